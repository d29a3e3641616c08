"""Products over two processes (gloo on the CPU) against one process with all the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from problems import EPS, labels, network, normal
from process_groups import run_in_ranks
from torch import Tensor, nn

import hesspipe
from hesspipe.objective.objective import Objective

LOSSES: dict[str, nn.Module] = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weights": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0])),
    "ignore": nn.CrossEntropyLoss(ignore_index=1),
}
OPERATORS: list[Callable[..., Any]] = [
    hesspipe.HessianOperator,
    hesspipe.GGNOperator,
    hesspipe.ResidualOperator,
]
# Processes of different size, one with two ragged batches.
PARTS = [[slice(0, 4)], [slice(4, 11), slice(11, 14)]]


def objective_of(loss: str, parts: list[slice]) -> Objective:
    inputs, targets = normal(14, 4), labels(14, 3)
    batches = [(inputs[part], targets[part]) for part in parts]
    return Objective(network([4, 6, 3], "tanh"), LOSSES[loss], batches, weight_decay=0.1)


def results(operator: Any) -> dict[str, Tensor]:
    pairs = hesspipe.eigenpairs(operator, num_smallest=1, num_largest=2)
    found = hesspipe.density(operator, num_probes=2, num_steps=5)
    return {
        "block": operator @ normal(operator.shape[0], 3),
        "eigenvalues": pairs.eigenvalues,
        "nodes": found.nodes,
    }


def run_process(rank: int) -> dict[str, Any]:
    saved: dict[str, Any] = {}
    for loss in LOSSES:
        for make in OPERATORS:
            operator = make(objective_of(loss, PARTS[rank]), process_group=dist.group.WORLD)
            saved[f"{loss} {make.__name__}"] = (operator.num_data, results(operator))
    moved = objective_of("mean", PARTS[rank])
    moved.theta = moved.theta + 1e-15 * rank
    for name, wrong in (("moved", moved), ("decay", objective_of("mean", PARTS[rank]))):
        if name == "decay":
            wrong.weight_decay = 0.1 + 0.1 * rank
        try:
            hesspipe.HessianOperator(wrong, process_group=dist.group.WORLD)
        except ValueError as error:
            saved[name] = str(error)
    return saved


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_in_ranks(run_process, 2, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("make", OPERATORS)
@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_give_what_one_gives(
    loss: str, make: Callable[..., Any], saved: list[dict[str, Any]]
) -> None:
    operator = make(objective_of(loss, [slice(0, 14)]))
    expected = results(operator)
    scale = float((operator @ torch.eye(operator.shape[0], dtype=torch.float64)).norm())
    for num_data, found in (one[f"{loss} {make.__name__}"] for one in saved):
        assert num_data == 14
        difference = (found["block"] - expected["block"]).norm()
        assert difference <= 20 * EPS * scale * normal(operator.shape[0], 3).norm()
        # Within the tolerance of eigenpairs; Lanczos forgets rounding as its nodes converge.
        assert (found["eigenvalues"] - expected["eigenvalues"]).abs().max() <= 1e-8 * scale
        assert (found["nodes"] - expected["nodes"]).abs().max() <= 1e-9 * scale


def test_processes_hold_equal_bits(saved: list[dict[str, Any]]) -> None:
    for key in (f"{loss} {make.__name__}" for loss in LOSSES for make in OPERATORS):
        for name, value in saved[0][key][1].items():
            assert torch.equal(value, saved[1][key][1][name])


def test_other_parameters_in_one_process_are_refused_in_all(saved: list[dict[str, Any]]) -> None:
    for one in saved:
        for name in ("moved", "decay"):
            assert "the same parameters and weight decay in every process" in one[name]


@pytest.mark.parametrize("loss", LOSSES)
def test_total_denominator_is_what_the_loss_divides_by(loss: str) -> None:
    objective = objective_of(loss, [slice(0, 9), slice(9, 14)])
    targets = labels(14, 3)
    expected = {
        "mean": 14.0,
        "sum": None,
        "weights": float(torch.tensor([0.2, 1.0, 3.0])[targets].sum()),
        "ignore": float((targets != 1).sum()),
    }[loss]
    found = objective.total_denominator()
    assert found == (expected if expected is None else pytest.approx(expected))

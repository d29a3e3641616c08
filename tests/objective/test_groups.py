"""Objectives over three processes: against plain double backward, and what is refused in all."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import group_cases
import pytest
import torch
from group_cases import LOSSES, OPERATORS, PARTS, SIZE
from problems import EPS, normal
from process_groups import run_in_ranks
from torch import Tensor

import hesspipe

CASES = [
    *itertools.product(LOSSES, ["ragged"]),
    *itertools.product(["cross entropy", "sum", "own mean"], list(PARTS)[1:-1]),
    *itertools.product(["cross entropy", "weighted", "sum", "restricted"], ["ignored"]),
]  # fmt: skip
# By name: what every rank raises, in which rank it happened, and a part of the message.
REFUSALS: dict[str, tuple[str, str]] = {
    "reduction": (
        "ValueError",
        "loss_fn.reduction must be the same in every process, got 'mean' in ranks 0, 2 and "
        "'sum' in rank 1",
    ),
    "class weight": ("ValueError", "loss_fn.weight must be the same in every process"),
    "own loss": (
        "ValueError",
        "loss_fn.weight must be the same in every process, got 1.0 in rank 0 and 2.0 in "
        "rank 1 and 3.0 in rank 2",
    ),
    "own partial": ("ValueError", "loss_fn.label_smoothing must be the same in every process"),
    "dtype": (
        "ValueError",
        "dtype must be the same in every process, got torch.float64 in rank 0 and "
        "torch.float32 in ranks 1, 2",
    ),
    "code": ("ValueError", "hesspipe's code must be the same in every process, got"),
    "decay": ("ValueError", "weight_decay must be the same in every process"),
    "moved": ("ValueError", "the values of 0.weight must be the same in every process"),
    "buffer": ("ValueError", "the values of 1.running_mean must be the same in every process"),
    "layer": (
        "ValueError",
        "model.2 must be the same in every process, got Tanh, forward Tanh.forward",
    ),
    "setting": (
        "ValueError",
        "model.2.alpha must be the same in every process, got 1.0 in rank 0 and 2.0 in rank 1 and "
        "3.0 in rank 2",
    ),
    "own setting": (
        "ValueError",
        "model.2.scale must be the same in every process, got 1.0 in ranks 0, 2 and 2.0 in rank 1",
    ),
    "own function": ("ValueError", "model.2.function must be the same in every process"),
    "own tuple": (
        "ValueError",
        "model.2.powers.0 must be the same in every process, got 1.0 in ranks 0, 2 and 2.0 in rank "
        "1",
    ),
    "own function with arguments": (
        "ValueError",
        "model.2.function.alpha must be the same in every process",
    ),
    "mode": ("RankError", "rank 1 of 3"),
    "features": ("ValueError", "rank 1 of 3"),
    "parameters": (
        "ValueError",
        "the shape of 3.weight must be the same in every process, got (3, 5) in rank 0 and "
        "nothing in ranks 1, 2",
    ),
    "nan": ("ValueError", "rank 1 of 3"),
    "labels": ("ValueError", "rank 2 of 3"),
    "no data": ("ValueError", "data must hold at least one sample in a process, got none in all"),
    "no valid": ("ValueError", "denominator must be positive, got 0.0 over all data"),
    "coupled": ("NotASumOverSamplesError", "to be added over processes"),
    "seed": (
        "ValueError",
        "seed must be the same in every process, got 0 in rank 0 and 1 in rank 1 and 2 in "
        "rank 2",
    ),
    "steps": (
        "ValueError",
        "num_steps must be the same in every process, got 3 in ranks 0, 1 and 4 in rank "
        "2",
    ),
    "tolerance": ("ValueError", "tolerance must be the same in every process"),
    "matrix": (
        "ValueError",
        "matrix must be the same in every process, got hessian in rank 0 and ggn in ranks "
        "1, 2",
    ),
    "function": ("ValueError", "must be the same in every process"),
    "vector": ("RankError", "a product of the hessian with vectors (torch.float64 and shape (1, "),
    "dtype of vectors": (
        "ValueError",
        "failed: ValueError: vectors must be torch.float64 on cpu, like the operator, got "
        "torch.float32",
    ),
    "kind of vectors": ("TypeError", "rank 2 of 3"),
    "interval of a monitor": ("ValueError", "rank 1 of 3"),
    "number of a monitor": ("ValueError", "rank 1 of 3"),
    "block": ("ValueError", "failed: ValueError: vectors must have shape (9,) or (9, K), got (8,"),
    "gradient of a loss": ("ValueError", "theta must not require a gradient for a loss over"),
    "argument": ("ValueError", "num_steps must be 1 to P"),
    "dense": ("ValueError", "the objective must have all the data in this process for a matrix"),
    "layers": ("ValueError", "the objective must have all the data in this process for a matrix"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("groups")


@pytest.fixture(scope="module")
def products(folder: Path) -> list[dict[str, Any]]:
    return run_in_ranks(group_cases.products, SIZE, folder / "products", CASES)


@pytest.fixture(scope="module")
def computed(folder: Path) -> list[dict[str, Any]]:
    return run_in_ranks(group_cases.computed, SIZE, folder / "computed", str(folder))


@pytest.fixture(scope="module")
def refused(folder: Path) -> list[dict[str, Any]]:
    return run_in_ranks(group_cases.refusals, SIZE, folder / "refused")


def plain_hessian(loss: str, parts: str) -> tuple[float, Tensor]:
    """The loss and the Hessian (P, P) of all data by double backward, with plain torch."""
    function, _, arguments = LOSSES[loss]
    net = group_cases.model()
    kept = [net[0].weight, net[0].bias, net[3].bias] if "parameters" in arguments else None
    parameters = kept or list(net.parameters())
    value = function(net(group_cases.INPUTS), group_cases.targets_of(loss, parts))
    squares = torch.stack([part.square().sum() for part in parameters]).sum()
    value = value + arguments.get("weight_decay", 0.0) / 2 * squares
    slopes = torch.autograd.grad(value, parameters, create_graph=True)
    slope = torch.cat([part.reshape(-1) for part in slopes])
    lines = [
        torch.cat([part.reshape(-1) for part in torch.autograd.grad(
            entry, parameters, retain_graph=True, materialize_grads=True)])
        for entry in slope
    ]  # fmt: skip
    return float(value.detach()), torch.stack(lines)


@pytest.mark.parametrize(("loss", "parts"), CASES)
def test_products_of_parts_are_those_of_double_backward_on_all_data(
    loss: str, parts: str, products: list[dict[str, Any]]
) -> None:
    value, hessian = plain_hessian(loss, parts)
    every = [one[f"{loss}, {parts}"] for one in products]
    eps = torch.finfo(every[0]["hessian"].dtype).eps
    vectors = normal(len(hessian), 2)
    for one in every:
        assert one["num_data"] == group_cases.N
        assert abs(float(one["loss"]) - value) <= 50 * eps * abs(value)
        for name in OPERATORS:
            assert torch.equal(one[name], every[0][name])
    scale = float(hessian.norm() * vectors.norm())
    found = every[0]
    assert float((found["hessian"].double() - hessian @ vectors).norm()) <= 200 * eps * scale
    parts_of_hessian = found["ggn"] + found["residual"]
    sizes = found["ggn"].norm() + found["residual"].norm() + scale
    assert (parts_of_hessian - found["hessian"]).norm() <= 200 * eps * sizes


@pytest.mark.parametrize("loss", ["cross entropy", "sum"])
def test_ggn_and_residual_of_parts_are_those_of_one_process(
    loss: str, products: list[dict[str, Any]]
) -> None:
    objective = group_cases.objective_of(loss, "none", list(range(group_cases.N)))
    vectors = normal(objective.num_parameters, 2)
    for name, make in OPERATORS.items():
        expected = make(objective) @ vectors
        difference = products[1][f"{loss}, none"][name] - expected
        assert difference.norm() <= 1000 * EPS * max(1.0, expected.norm())


def test_results_have_equal_bits_in_all_ranks_and_agree_with_one(
    computed: list[dict[str, Any]],
) -> None:
    _, hessian = plain_hessian("cross entropy", "ragged")
    exact = torch.linalg.eigvalsh(hessian)
    for name in ("pairs", "density", "block"):
        for part, values in computed[0][name].items():
            assert all(torch.equal(one[name][part], values) for one in computed), (name, part)
    assert computed[0]["norms"] == computed[1]["norms"] == computed[2]["norms"]
    # As text, in which nan is nan.
    assert len({repr(one["monitored"]) for one in computed}) == 1
    scale = float(exact.abs().max())
    found = computed[2]["pairs"]["eigenvalues"]
    assert (found - exact[[0, -2, -1]]).abs().max() <= 1e-9 * scale
    assert [one["has_state"] for one in computed] == [True, False, False]
    one = group_cases.objective_of("cross entropy", "ragged", list(range(group_cases.N)))
    nodes = hesspipe.density(one, "ggn", num_probes=2, num_steps=8).nodes
    assert (computed[1]["density"]["nodes"] - nodes).abs().max() <= 1e-9 * nodes.abs().max()
    block = hesspipe.ggn_matrix(one)[:20, :20]
    expected = torch.linalg.eigvalsh(block)
    difference = computed[1]["block"]["eigenvalues"] - expected
    assert difference.abs().max() <= 1000 * EPS * expected.abs().max()
    vector = normal(len(hessian), 1)[:, 0]
    for name in ("streamed", "whole batches", "wrapped"):
        for each in computed:
            assert (each[name] - hessian @ vector).norm() <= 100 * EPS * scale * vector.norm()


def test_search_that_does_not_converge_raises_the_same_in_all(
    computed: list[dict[str, Any]],
) -> None:
    assert all(one["hard"] == computed[0]["hard"] for one in computed)
    assert computed[2]["hard"][0][0] == "NotConvergedError"


def test_monitor_over_ranks_records_what_one_process_does(
    computed: list[dict[str, Any]], tmp_path: Path
) -> None:
    one = group_cases.objective_of("cross entropy", "ragged", list(range(group_cases.N)))
    alone = torch.tensor(group_cases.monitored(0, one, str(tmp_path)), dtype=torch.float64)
    found = torch.tensor(computed[1]["monitored"], dtype=torch.float64)
    known = ~alone.isnan()
    assert torch.equal(known, ~found.isnan())
    assert (found - alone)[known].abs().max() <= 2e-3 * alone[known].abs().max()


@pytest.mark.parametrize("name", REFUSALS)
def test_differences_and_errors_are_told_in_all_ranks(
    name: str, refused: list[dict[str, Any]]
) -> None:
    kind, message = REFUSALS[name]
    for one in refused:
        assert kind in one[name][0], one[name]
        assert message in one[name][1], one[name]
        assert one[name][1] == refused[0][name][1]


@pytest.fixture(scope="module")
def hidden(folder: Path) -> list[dict[str, Any]]:
    return run_in_ranks(group_cases.hidden_differences, SIZE, folder / "hidden")


@pytest.mark.parametrize("name", [*group_cases.HIDDEN, "a stream", "fields", "whole batches"])
def test_models_that_compute_something_else_are_refused_whatever_the_cause(
    name: str, hidden: list[dict[str, Any]]
) -> None:
    """Nothing that describes them differs, and the first rank has no data."""
    for one in hidden:
        assert "ValueError" in one[name][0], one[name]
        assert "the value of the loss on equal samples" in one[name][1]
        assert "in ranks 0, 2 and " in one[name][1]


def test_models_that_round_differently_are_taken(hidden: list[dict[str, Any]]) -> None:
    assert all(one["rounding"] == ([], "") for one in hidden)


@pytest.mark.parametrize("where", ["density", "a product"])
@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("loss error", "RankError", "my key"),
        ("memory", "MemoryError", "not enough memory"),
        ("interrupt", "RankError", "KeyboardInterrupt"),
    ],
)
def test_failure_of_one_rank_is_raised_in_all(
    what: str, kind: str, message: str, failing: int, where: str, refused: list[dict[str, Any]]
) -> None:
    found = [one[f"{what} of {failing} in {where}"] for one in refused]
    for rank, (kinds, text) in enumerate(found):
        if what == "interrupt" and rank == failing:
            assert kinds[0] == "KeyboardInterrupt"
            continue
        assert kind in kinds, found
        assert message in text
        assert f"rank {failing} of 3" in text
    assert all(
        one["after"][1] == str(sum(p.numel() for p in group_cases.model().parameters()))
        for one in refused
    )


def test_interrupt_while_an_objective_is_built_is_raised_in_all(
    refused: list[dict[str, Any]],
) -> None:
    kinds = [one["interrupted"][0][0] for one in refused]
    assert kinds == ["RankError", "KeyboardInterrupt", "RankError"]


def test_equal_data_in_two_ranks_is_warned_of(refused: list[dict[str, Any]]) -> None:
    for one in refused:
        assert "ranks 0 and 1 seem to have the same data: 11 samples" in one["overlap"][1]


def test_killed_rank_is_named_in_all_others(folder: Path) -> None:
    found = run_in_ranks(group_cases.death, SIZE, folder / "death")
    assert found[1] is None
    for rank in (0, 2):
        assert found[rank][0][0] == "LostRankError"
        assert "rank 1 of 3" in found[rank][1]

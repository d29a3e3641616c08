"""Sharded objectives on 1, 2 and 3 gloo processes against plain double backward and one process."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import sharded_cases as cases
import torch
from dense_reference import reference_matrices
from losses import LOSSES
from losses_by_derivatives import LOSSES as DERIVATIVES
from losses_by_derivatives import REFUSED, plain_product
from problems import EPS, labels, network, normal
from process_groups import run_in_ranks
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature.operators import CurvatureOperator

SIZES = [1, 2, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@functools.cache
def _everything(folder: Path, size: int) -> list[dict[str, Any]]:
    return run_in_ranks(cases.everything, size, folder / str(size), size)


@pytest.fixture(params=SIZES, ids="{} ranks".format)
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def _assert_products(
    found: list[dict[str, Tensor]], expected: dict[str, Tensor], tolerance: float = 20 * EPS
) -> None:
    for rank, one in enumerate(found):
        for matrix in one.keys() & expected.keys():
            vector = normal(len(expected[matrix]), seed=3)
            product = expected[matrix] @ vector
            scale = float(expected["hessian"].norm() * vector.norm())
            worst = float((one[matrix] - product).norm()) / scale
            assert worst <= tolerance, f"{matrix} v differs by {worst:.1e} in rank {rank}"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("number", [2, 3])
def test_products_of_every_loss_are_those_of_plain_double_backward(
    name: str, number: int, folder: Path
) -> None:
    loss, targets = LOSSES[name]
    model = network([4, 4, 3], "tanh")
    expected = reference_matrices(model, lambda m: m(cases.INPUTS), lambda o: loss(o, targets))
    decay = 0.1 * torch.eye(len(expected["ggn"]), dtype=torch.float64)
    expected |= {matrix: expected[matrix] + decay for matrix in ("hessian", "ggn")}
    found = [one["losses"][name] for one in _everything(folder, number)]
    # torch adds 1e-12 to denominators of derivatives of the binary cross-entropy.
    _assert_products(found, expected, 1e-11 if name == "BCELoss" else 20 * EPS)
    value = loss(model(cases.INPUTS), targets).detach()
    value = value + 0.05 * sum(float(p.detach().square().sum()) for p in model.parameters())
    assert all(abs(float(one["loss"] - value)) <= 50 * EPS * abs(float(value)) for one in found)


@pytest.mark.parametrize("name", cases.MODELS)
@pytest.mark.parametrize("number", [1, 2])
def test_products_of_models_of_many_kinds_are_those_of_plain_double_backward(
    name: str, number: int, folder: Path
) -> None:
    _, inputs, targets = cases.MODELS[name]
    model = cases.model_of(name)
    kept = torch.cat([torch.full((p.numel(),), p.requires_grad) for p in model.parameters()])
    expected = reference_matrices(
        model, lambda m: m(inputs), lambda o: nn.functional.cross_entropy(o, targets)
    )
    del expected["residual"]
    expected = {matrix: values[kept][:, kept] for matrix, values in expected.items()}
    _assert_products([one["models"][name] for one in _everything(folder, number)], expected)


@pytest.mark.parametrize("name", ["placements", "whole batches"])
@pytest.mark.parametrize("number", [1, 2])
def test_products_do_not_depend_on_placements_and_forms_of_data(
    name: str, number: int, folder: Path
) -> None:
    expected = reference_matrices(
        network([4, 5, 3], "tanh"),
        lambda m: m(cases.INPUTS),
        lambda o: nn.functional.cross_entropy(o, labels(9, 3)),
    )
    _assert_products([one["models"][name] for one in _everything(folder, number)], expected)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_products_of_losses_that_differentiate_are_those_of_plain_double_backward(
    name: str, folder: Path
) -> None:
    model = network([4, 4, 3], "tanh")
    vector = normal(sum(p.numel() for p in model.parameters()), seed=3)
    expected = plain_product(DERIVATIVES[name], model, cases.parts_as_batches(2), vector)
    for one in _everything(folder, 2):
        found = one["derivatives"]["products"][name]["hessian"]
        worst = float((found - expected).norm() / expected.norm())
        assert worst <= 100 * EPS, f"H v differs by {worst:.1e}"


@pytest.mark.parametrize("name", REFUSED)
def test_loss_that_cannot_differentiate_is_refused_by_name_with_the_way_out(
    name: str, folder: Path
) -> None:
    for one in _everything(folder, 2):
        classes, message = one["derivatives"]["refused"][name]
        assert "ValueError" in classes
        assert REFUSED[name][1] in message, message


@functools.cache
def _alone() -> hesspipe.Objective:
    targets = labels(9, 3)
    targets[:2] = -100
    return hesspipe.Objective(
        network([4, 5, 3], "tanh"), nn.CrossEntropyLoss(), (cases.INPUTS, targets)
    )


def test_each_rank_holds_its_share_of_theta(size: int, folder: Path) -> None:
    found = [one["methods"] for one in _everything(folder, size)]
    theta = _alone().theta
    assert all(torch.equal(one["theta"], theta) for one in found)
    assert sum(one["length"] for one in found) == len(theta)
    assert max(one["length"] for one in found) <= -(-len(theta) // size) + 4  # four parameters
    assert {one["num_data"] for one in found} == {9}


def test_eigenpairs_are_those_of_one_process(
    size: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # several processes start from a random vector only
        patch.setattr(CurvatureOperator, "gradient_of_first_batch", lambda _: None)
        expected = hesspipe.eigenpairs(_alone(), **cases.SEARCH)
    matrix = hesspipe.hessian_matrix(_alone())
    scale = float(expected.eigenvalues.abs().max())
    for one in (every["methods"] for every in _everything(folder, size)):
        values, vectors = one["eigenvalues"], one["eigenvectors"]
        assert float((values - expected.eigenvalues).abs().max()) <= 50 * EPS * scale
        assert one["num_products"] == expected.num_products
        residuals = (matrix @ vectors - vectors * values).norm(dim=0)
        assert float((residuals - one["residual_norms"]).abs().max()) <= 100 * EPS * scale
        assert float(one["residual_norms"].max()) <= 1e-8 * scale
        assert float((vectors.T @ vectors - torch.eye(4)).abs().max()) <= 50 * EPS


def test_density_has_the_nodes_weights_and_overlaps_of_one_process(size: int, folder: Path) -> None:
    expected = hesspipe.density(_alone(), "ggn", num_probes=2, num_steps=12)
    for one in (every["methods"] for every in _everything(folder, size)):
        scales = {"nodes": float(expected.nodes.abs().max()), "weights": 1.0, "overlaps": 1.0}
        for name, found in one["density"].items():
            worst = float((found - getattr(expected, name)).abs().max())
            assert worst <= 1e4 * EPS * scales[name], f"{name} differ by {worst:.1e}"


@pytest.mark.parametrize("count", [12, 60, 100])
def test_norms_are_those_of_one_process(count: int, size: int, folder: Path) -> None:
    norms = hesspipe.estimate_norms(_alone(), num_products=count)
    expected = torch.tensor([
        norms.trace.value, norms.trace.standard_error,
        norms.frobenius_norm.value, norms.frobenius_norm.standard_error,
    ])  # fmt: skip
    for one in (every["methods"] for every in _everything(folder, size)):
        assert torch.allclose(torch.tensor(one[f"norms {count}"]), expected, rtol=1e-10, atol=1e-12)


def test_float32_agrees_with_float64_to_its_precision(size: int, folder: Path) -> None:
    expected = hesspipe.eigenpairs(_alone(), num_largest=2).eigenvalues
    for one in (every["methods"] for every in _everything(folder, size)):
        assert torch.allclose(one["float32"], expected, rtol=1e-5)


REFUSALS = {
    "random": "model and loss_fn must be deterministic",
    "nan": "must be finite, got nan or inf in batch 0",
    "raises": "four",
    "same": "data_on_ranks must be 'same' if all processes have the same data",
    "parts": "data must be the same in every process for data_on_ranks='same'",
    "word": "data_on_ranks must be 'parts' or 'same', got 'all'",
    "moved": "the values of 1.bias (a whole parameter) must be the same in every process",
    "decay": "weight_decay must be the same in every process, got 0.0 in rank 0 and 0.1 in rank 1",
    "reduction": "reduction must be the same in every process",
    "denominator": "pass denominator=...",
    "whole loss": "loss_fn must be a sum over samples divided by the denominator",
    "outside": "loss_fn must use parameters in the call of the model only, got 1.weight",
    "seed": "seed must be the same in every process, got 0 in rank 0 and 1 in rank 1",
    "spectrum": "use hesspipe.eigenpairs, hesspipe.density or hesspipe.estimate_norms",
    "matrix": "use hesspipe.eigenpairs, hesspipe.density or hesspipe.estimate_norms",
    "operator": "use hesspipe.eigenpairs, hesspipe.density or hesspipe.estimate_norms",
    "objective": "use hesspipe.ShardedObjective",
    "data": "data must hold at least one sample, got none in any process",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_is_raised_in_every_process_with_its_reason(name: str, folder: Path) -> None:
    for one in _everything(folder, 2):
        classes, message = one["refusals"][name]
        assert REFUSALS[name] in message, message
        assert "HesspipeError" in classes or "ValueError" in classes


DIFFERENT = {
    "a setting": "model.scales.0 must be the same in every process, got 1.0 in rank 0",
    "a buffer": "the values of offset must be the same in every process",
    "a function": "model.change.exponent must be the same in every process",
    "a class": "model must be the same in every process, got Scaled, forward",
    "a private attribute": "the value of the loss on equal samples",
    "class weights": "loss_fn.weight must be the same in every process",
    "label smoothing": "loss_fn.label_smoothing must be the same in every process",
    "a factor": "loss_fn.factor must be the same in every process, got 1.0 in rank 0 and 2.0",
    "a closure": "loss_fn.factor must be the same in every process, got 1.0 in rank 0 and 2.0",
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_models_and_losses_that_differ_between_processes_are_refused(
    name: str, folder: Path
) -> None:
    """Their parameters are equal: the sum would be that of two functions."""
    for one in _everything(folder, 2):
        classes, message = one["different"][name]
        assert "ValueError" in classes
        assert DIFFERENT[name] in message, message


def test_loss_that_holds_the_divided_model_is_taken(folder: Path) -> None:
    assert all(one["different"]["nothing"] == ([], "") for one in _everything(folder, 2))


def test_samples_that_depend_on_each_other_are_named(folder: Path) -> None:
    assert all(
        "depend on the other samples" in one["refusals"]["coupling"]
        for one in _everything(folder, 2)
    )


@pytest.mark.parametrize("ends_at", [1, 3])
def test_killed_search_is_resumed_with_equal_results(
    ends_at: int, folder: Path, tmp_path: Path
) -> None:
    state = str(tmp_path / "search.safetensors")
    whole = [one["methods"] for one in _everything(folder, 2)]
    ended = run_in_ranks(cases.ended_search, 2, tmp_path / "ended", 2, state, ends_at)
    assert ended[1] is None
    assert "LostRankError" in ended[0][0]
    if ends_at == 3:
        (refused,) = run_in_ranks(cases.search_or_refuse, 1, tmp_path / "one", 1, state)
        assert "ForeignStateError" in refused[0]
        assert "of one in 2; start 2 of them" in refused[1]
    found = run_in_ranks(cases.search, 2, tmp_path / "again", 2, state, None)
    for (values, num_products, num_made, files), other in zip(found, whole, strict=True):
        assert torch.equal(values, other["eigenvalues"])
        assert num_products == other["num_products"] + 1  # that by which states are compared
        assert (num_made < num_products) == (ends_at > 1)
        assert files == []

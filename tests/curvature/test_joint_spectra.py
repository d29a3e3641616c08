"""Spectra of H, G and R in one call against references and separate calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from many_digits import eigenvalues, random_problem
from networks_of_all_kinds import KINDS, LOSSES, Case, reference, with_loss
from problems import EPS, labels, network, normal
from torch import nn

import hesspipe
from hesspipe.curvature import dense, exact_spectra, joint_spectra
from hesspipe.curvature.dense import ExactMatrix, add_residual, exact_matrix
from hesspipe.curvature.layers import Layer, find_layers
from hesspipe.curvature.matrix import Matrix
from hesspipe.errors import InconsistentMatrixError
from hesspipe.objective.objective import Objective

NAMES = ["hessian", "ggn", "residual"]


def small_convnet() -> nn.Module:
    """Two convolutions with pooling and a Linear layer, at a point in general position."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(3, 3),
    ).double()  # fmt: skip


def on_images(**options: Any) -> Objective:
    images, targets = normal(7, 25).view(7, 1, 5, 5), labels(7, 3)
    return Objective(small_convnet(), nn.CrossEntropyLoss(), (images, targets), **options)


def on_vectors(activation: str, **options: Any) -> Objective:
    data = (normal(40, 4), labels(40, 3))
    return Objective(network([4, 5, 3], activation), nn.CrossEntropyLoss(), data, **options)


def assert_right(build: Callable[[], Case]) -> None:
    """Compare with the eigenvalues of matrices by loops of double backward."""
    case, expected = build(), reference(build())
    objective = Objective(case.model, case.loss_fn, (case.inputs, case.targets))
    allowed = 100 * EPS * max(float(matrix.norm()) for matrix in expected.values())
    found = hesspipe.spectra(objective)
    assert list(found) == NAMES
    for name, result in found.items():
        right = torch.linalg.eigvalsh(expected[name])
        error = float((result.eigenvalues - right).abs().max())
        assert error <= allowed, f"eigenvalues of {name} by {result.method}: {error:.1e}"
        assert error <= result.error_bound + 20 * EPS * float(right.abs().max())
        assert result.matrix == name


@pytest.mark.parametrize("kind", KINDS)
def test_spectra_agree_with_double_backward_for_networks_of_all_kinds(kind: str) -> None:
    assert_right(KINDS[kind])


@pytest.mark.parametrize("loss", LOSSES)
def test_spectra_agree_with_double_backward_for_losses_of_all_kinds(loss: str) -> None:
    assert_right(partial(with_loss, loss, "relu"))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("method", ["auto", "columns"])
def test_every_eigenvalue_is_within_its_bound_of_50_digits(seed: int, method: Any) -> None:
    problem = random_problem(seed, max_parameters=22)
    found = hesspipe.spectra(problem.objective(), method)
    for name, values in problem.matrices().items():
        pairs = zip(found[name].eigenvalues.tolist(), eigenvalues(values), strict=True)
        assert max(float(abs(one - other)) for one, other in pairs) <= found[name].error_bound


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("build", "method"),
    [
        (on_images, "auto"),
        (on_images, "convolutions"),
        (on_images, "columns"),
        (partial(on_vectors, "relu"), "auto"),
        (partial(on_vectors, "tanh"), "layers"),
        (partial(on_vectors, "relu"), "factored"),
    ],
)
def test_spectra_are_those_of_separate_calls(
    build: Callable[..., Objective], method: Any, weight_decay: float
) -> None:
    objective = build(weight_decay=weight_decay)
    options: dict[str, Any] = {"method": method, "zero_tolerance": 2.0, "certify": True}
    found = hesspipe.spectra(objective, **options)
    for name in NAMES:
        one, other = found[name], hesspipe.spectrum(objective, name, **options)
        assert one.method == other.method
        error = float((one.eigenvalues - other.eigenvalues).abs().max())
        assert error <= one.error_bound + other.error_bound
        assert one.error_bound <= 4 * other.error_bound
        assert one.tolerance == 2.0 * one.error_bound
        counts = one.num_negative, one.num_zero, one.num_positive
        assert counts == (other.num_negative, other.num_zero, other.num_positive)
        assert one.certificate == other.certificate
        assert one.provenance == other.provenance


def test_spectra_of_batches_are_those_of_all_data() -> None:
    objective = on_images()
    data = objective.batches[0].inputs, objective.batches[0].targets
    parts = [tuple(array[rows] for array in data) for rows in (slice(3), slice(3, 7))]
    split = Objective(small_convnet(), nn.CrossEntropyLoss(), parts)
    for name, found in hesspipe.spectra(split).items():
        expected = hesspipe.spectrum(objective, name)
        error = float((found.eigenvalues - expected.eigenvalues).abs().max())
        assert error <= found.error_bound + expected.error_bound


@pytest.mark.parametrize("method", ["convolutions", "columns"])
def test_hessian_is_not_formed_by_itself(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    formed = []

    def form(objective: Objective, matrix: Matrix, *args: Any, **kwargs: Any) -> ExactMatrix:
        formed.append(matrix)
        return exact_matrix(objective, matrix, *args, **kwargs)

    monkeypatch.setattr(joint_spectra, "exact_matrix", form)
    hesspipe.spectra(on_images(), method)
    assert formed == [Matrix.RESIDUAL, Matrix.GGN]


@pytest.mark.parametrize("method", ["auto", "convolutions"])
def test_layers_are_found_once(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def record(objective: Objective) -> list[Layer]:
        found.append(find_layers(objective))
        return found[-1]

    for module in (joint_spectra, exact_spectra, dense):
        monkeypatch.setattr(module, "find_layers", record)
    hesspipe.spectra(on_images(), method)
    assert len(found) == 1


def test_hessian_is_formed_by_itself_where_the_others_have_different_methods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def form(objective: Objective, matrix: Matrix, method: Any, **kwargs: Any) -> ExactMatrix:
        method = "columns" if matrix is Matrix.GGN else method
        return exact_matrix(objective, matrix, method, **kwargs)

    monkeypatch.setattr(joint_spectra, "exact_matrix", form)
    found = hesspipe.spectra(on_images(), "convolutions")
    assert [found[name].method for name in NAMES] == ["convolutions", "columns", "convolutions"]


@pytest.mark.parametrize("size", [1e-9, 1e-6, 0.1])
@pytest.mark.parametrize("wrong", ["values of G", "values of R", "products of G", "both of G"])
def test_sum_that_disagrees_with_products_is_refused(wrong: str, size: float) -> None:
    objective = on_images()
    ggn, residual = (exact_matrix(objective, name) for name in ("ggn", "residual"))
    factor = 1 + size
    if wrong == "values of R":
        residual.values.mul_(factor)
    if wrong in ("values of G", "both of G"):
        ggn.values.mul_(factor)
    if wrong in ("products of G", "both of G"):
        samples = replace(ggn.samples, products=factor * ggn.samples.products)
        ggn = replace(ggn, samples=samples)
    with pytest.raises(InconsistentMatrixError, match="the hessian disagrees with"):
        add_residual(objective, ggn, residual)


def test_sum_has_the_entries_of_the_hessian() -> None:
    objective = on_images()
    expected = exact_matrix(objective, "hessian", "columns").values
    found = add_residual(
        objective, *(exact_matrix(objective, name) for name in ("ggn", "residual"))
    )
    assert (found.values - expected).abs().max() <= 20 * EPS * expected.norm()
    assert float(torch.linalg.matrix_norm(found.values - expected, 2)) <= found.error


@pytest.mark.parametrize("method", ["jacobians", "outputs", "exact", None])
def test_methods_that_not_all_matrices_have_are_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="method must be one of auto, factored, layers, conv"):
        hesspipe.spectra(on_images(), method)


def test_float32_and_other_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="dtype of the objective must be float64"):
        hesspipe.spectra(on_images(dtype=torch.float32))
    with pytest.raises(TypeError, match="Objective"):
        hesspipe.spectra(torch.eye(3))  # type: ignore[arg-type]

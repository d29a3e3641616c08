"""Every method that applies to a network gives its matrices, by loops of double backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from networks_of_all_kinds import KINDS, LOSSES, Case, mlp, positive_scale, reference, with_loss
from problems import EPS, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature import columns, dense, exact_spectra
from hesspipe.errors import InconsistentMatrixError
from hesspipe.objective.objective import Objective

MATRICES: dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]] = {
    "hessian": (hesspipe.hessian_matrix, hesspipe.HessianOperator),
    "ggn": (hesspipe.ggn_matrix, hesspipe.GGNOperator),
    "residual": (hesspipe.residual_matrix, hesspipe.ResidualOperator),
}


def applicable(matrix: Callable[..., Tensor], objective: Objective) -> dict[str, Tensor]:
    """The matrix by each method that applies; columns always do."""
    found = {"columns": matrix(objective, "columns")}
    for method in ("layers", "convolutions"):
        try:
            found[method] = matrix(objective, method)
        except ValueError as error:
            if "use method='columns'" not in str(error):
                raise
    return found


def assert_right(build: Callable[[], Case]) -> None:
    """Compare matrices by all methods, products, and spectra with the reference."""
    case, expected = build(), reference(build())
    objective = Objective(case.model, case.loss_fn, (case.inputs, case.targets))
    allowed = 100 * EPS * max(float(matrix.norm()) for matrix in expected.values())
    identity = torch.eye(objective.num_parameters, dtype=torch.float64)
    for name, (matrix, operator) in MATRICES.items():
        found = applicable(matrix, objective) | {"products": operator(objective) @ identity}
        for method, values in found.items():
            error = float((values - expected[name]).abs().max())
            assert error <= allowed, f"{name} by {method} differs by {error:.1e} > {allowed:.1e}"
        if name == "residual":  # the same code as for the others
            continue
        right = torch.linalg.eigvalsh(expected[name])
        result = hesspipe.spectrum(objective, name)
        error = float((result.eigenvalues - right).abs().max())
        assert error <= allowed, f"eigenvalues of {name} by {result.method}: {error:.1e}"
        assert error <= result.error_bound + 20 * EPS * float(right.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_agrees_with_double_backward_for_networks_of_all_kinds(kind: str) -> None:
    assert_right(KINDS[kind])


@pytest.mark.parametrize("loss", LOSSES)
def test_every_method_agrees_with_double_backward_for_losses_of_all_kinds(loss: str) -> None:
    assert_right(partial(with_loss, loss, "relu"))


@pytest.mark.parametrize("loss", ["rmse", "brier", "cosine"])
def test_every_method_agrees_with_double_backward_for_curved_networks(loss: str) -> None:
    assert_right(partial(with_loss, loss, "tanh"))


def test_every_method_agrees_for_a_loss_that_is_not_defined_at_zero_outputs() -> None:
    assert_right(positive_scale)


@pytest.mark.parametrize("failure", ["error", "wrong", "asymmetric", "nan"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_method_that_fails_gives_way_to_another(
    matrix: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(objective: Objective, *_: Any) -> Tensor:
        values = by_layers(objective, *_)
        if failure == "error":
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        values[3, 2] += torch.nan if failure == "nan" else 1e-9 * values.norm()
        values[2, 3] += 1e-9 * values.norm() if failure == "wrong" else 0.0
        return values

    by_layers = dense.matrix_by_layers
    case = with_loss("cross-entropy", "tanh")
    objective = Objective(case.model, case.loss_fn, (case.inputs, case.targets))
    assert dense.exact_matrix(objective, matrix).method == "layers"
    monkeypatch.setattr(dense, "matrix_by_layers", broken)
    found = dense.exact_matrix(objective, matrix)
    assert found.method == "columns"
    expected = reference(case)[matrix]
    assert (found.values - expected).abs().max() <= 100 * EPS * float(expected.norm())
    with pytest.raises((RuntimeError, ValueError, InconsistentMatrixError)):
        dense.exact_matrix(objective, matrix, "layers")


def test_factors_that_fail_give_way_to_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise InconsistentMatrixError("the factorization failed")

    model = mlp(20, 4, 3, act=nn.ReLU)
    objective = Objective(model, nn.MSELoss(), (normal(4, 20), normal(4, 3, seed=5)))
    expected = hesspipe.spectrum(objective)
    assert expected.method == "factored"
    monkeypatch.setattr(exact_spectra, "factored_spectrum", broken)
    found = hesspipe.spectrum(objective)
    assert found.method == "layers"
    error = float((found.eigenvalues - expected.eigenvalues).abs().max())
    assert error <= found.error_bound + expected.error_bound
    with pytest.raises(InconsistentMatrixError, match="the factorization failed"):
        hesspipe.spectrum(objective, method="factored")


@pytest.mark.parametrize("loss", ["ignored", "focal", "normal", "concave", "linear"])
def test_ggn_by_products_is_that_by_jacobians(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = with_loss(loss, "tanh")
    objective = Objective(case.model, case.loss_fn, (case.inputs, case.targets))
    assert columns._takes_jacobians(objective)
    by_jacobians = columns.ggn_by_columns(objective)
    monkeypatch.setattr(columns, "_takes_jacobians", lambda _: False)
    by_products = columns.ggn_by_columns(objective)
    allowed = 100 * EPS * float(columns.hessian_by_columns(objective).norm())
    assert (by_products - by_jacobians).abs().max() <= allowed + 100 * EPS * by_products.norm()


@pytest.mark.parametrize(
    ("widths", "num_samples", "is_by_jacobians"),
    [([8, 8, 3], 50_000, False), ([2, 3072], 40, False), ([100, 30, 10], 1_000, True)],
)
def test_ggn_is_computed_in_the_cheaper_way(
    widths: list[int], num_samples: int, is_by_jacobians: bool
) -> None:
    model, inputs = mlp(*widths), normal(num_samples, widths[0])
    targets = torch.zeros(num_samples, widths[-1])
    objective = Objective(model, nn.MSELoss(), (inputs, targets))
    assert columns._takes_jacobians(objective) == is_by_jacobians


@pytest.mark.parametrize("matrix", MATRICES)
def test_loss_that_changes_later_is_noticed_by_products(matrix: str) -> None:
    factors = [1.0]
    case = with_loss("squares", "tanh")

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return factors[0] * case.loss_fn(outputs, targets)

    objective = Objective(case.model, loss_fn, (case.inputs, case.targets))
    factors[0] = 1.0 + 1e-9
    operator = MATRICES[matrix][1](objective)
    try:
        product = operator @ objective.theta
    except ValueError as error:
        assert "must not change after the Objective is built" in str(error)  # noqa: PT017
    else:  # where the list was copied with the loss
        expected = reference(case)[matrix] @ objective.theta
        assert (product - expected).norm() <= 1e3 * EPS * float(expected.norm())

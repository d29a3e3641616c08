"""Every method that applies to a network gives its matrices, by loops of double backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from dense_reference import reference_matrices
from networks_of_all_kinds import KINDS, LOSSES, Case, positive_scale, with_loss
from problems import EPS
from torch import Tensor

import hesspipe
from hesspipe.objective.objective import Objective

MATRICES: dict[str, tuple[Callable[..., Tensor], Callable[..., Any]]] = {
    "hessian": (hesspipe.hessian_matrix, hesspipe.HessianOperator),
    "ggn": (hesspipe.ggn_matrix, hesspipe.GGNOperator),
    "residual": (hesspipe.residual_matrix, hesspipe.ResidualOperator),
}


def join(outputs: Any) -> Tensor:
    """All outputs as one vector."""
    if isinstance(outputs, Tensor):
        return outputs.flatten()
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.cat([part.flatten() for part in parts])


def splitter(outputs: Any) -> Callable[[Tensor], Any]:
    """The inverse of `join` for outputs like these."""
    if isinstance(outputs, Tensor):
        return lambda vector: vector.view(outputs.shape)
    parts = list(outputs.values()) if isinstance(outputs, dict) else list(outputs)

    def split(vector: Tensor) -> Any:
        pieces = vector.split([part.numel() for part in parts])
        shaped = [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
        return dict(zip(outputs, shaped, strict=True)) if isinstance(outputs, dict) else shaped

    return split


def reference(case: Case) -> dict[str, Tensor]:
    split = splitter(case.call(case.model))
    for module in case.model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):  # a pruned weight, which its hook computes anew
                setattr(module, name, value.detach())
    return reference_matrices(case.model, case.call, case.loss, join, split)


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
        right = torch.linalg.eigvalsh(expected[name])
        result = hesspipe.spectrum(objective, name)
        error = float((result.eigenvalues - right).abs().max())
        assert error <= allowed, f"eigenvalues of {name} by {result.method}: {error:.1e}"
        assert error <= result.error_bound + 20 * EPS * float(right.abs().max())


_PENDING = {"checkpoint", "slope"}


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - _PENDING))
def test_every_method_agrees_with_double_backward_for_networks_of_all_kinds(kind: str) -> None:
    assert_right(KINDS[kind])


@pytest.mark.parametrize("loss", LOSSES)
def test_every_method_agrees_with_double_backward_for_losses_of_all_kinds(loss: str) -> None:
    assert_right(partial(with_loss, loss, "relu"))


@pytest.mark.parametrize("loss", ["smoothed", "rmse", "brier", "cosine", "normal", "variance"])
def test_every_method_agrees_with_double_backward_for_curved_networks(loss: str) -> None:
    assert_right(partial(with_loss, loss, "tanh"))


def test_every_method_agrees_for_a_loss_that_is_not_defined_at_zero_outputs() -> None:
    assert_right(positive_scale)

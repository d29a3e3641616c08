"""Lanczos against its defining identities, on matrices with prescribed spectra."""

from __future__ import annotations

import pytest
import torch
from problems import EPS, matrix_with, normal

from hesspipe.linalg.lanczos import tridiagonalize


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_steps", [1, 2, 30, 60])
def test_tridiagonalize_fulfills_the_lanczos_relation(dtype: torch.dtype, num_steps: int) -> None:
    values = torch.cat([torch.linspace(-1, 1, 55), 10.0 ** torch.arange(5)]).double()
    matrix = matrix_with(values, dtype)
    found = tridiagonalize(matrix, normal(60).to(dtype), num_steps)
    eps, norm = torch.finfo(dtype).eps, float(values.abs().max())
    size = len(found.diagonal)
    assert size == num_steps
    overlap = found.basis @ found.basis.T
    assert (overlap - torch.eye(size)).abs().max() <= 10 * eps
    relation = matrix @ found.basis.T - found.basis.T @ found.matrix
    relation[:, -1] -= found.residual_norm * found.residual
    assert relation.abs().max() <= 20 * eps * norm
    assert (found.basis @ found.residual).abs().max() <= 10 * eps
    assert (found.off_diagonal > 0).all()


def test_each_outlier_is_found_once_in_float32() -> None:
    """The guard: with one pass instead of two, 76 are found; without any, 98 of another 10."""
    bulk = torch.linspace(-1e-3, 1e-3, 390)
    values = torch.cat([bulk, torch.logspace(0, 3, 10)]).double()
    found = tridiagonalize(matrix_with(values, torch.float32), normal(400).float(), 150)
    ritz = torch.linalg.eigvalsh(found.matrix.double())
    assert int((ritz > 0.5).sum()) == 10
    assert (ritz[-10:] - values[-10:]).abs().max() <= 10 * torch.finfo(torch.float32).eps * 1e3


@pytest.mark.parametrize("num_distinct", [1, 3, 7])
def test_invariant_space_ends_the_process_with_exact_eigenvalues(num_distinct: int) -> None:
    distinct = torch.arange(1, num_distinct + 1, dtype=torch.float64)
    matrix = torch.diag(distinct.repeat(20))
    found = tridiagonalize(matrix, normal(len(matrix)), len(matrix))
    assert found.residual_norm == 0
    assert len(found.diagonal) == num_distinct
    ritz = torch.linalg.eigvalsh(found.matrix)
    assert (ritz - distinct).abs().max() <= 20 * EPS * num_distinct


def test_eigenvectors_do_not_depend_on_the_scale() -> None:
    matrix = matrix_with(torch.linspace(-1, 3, 40, dtype=torch.float64))
    small = tridiagonalize(1e-9 * matrix, normal(40), 20)
    large = tridiagonalize(matrix, 1e5 * normal(40), 20)
    assert (small.diagonal - 1e-9 * large.diagonal).abs().max() <= 1e3 * EPS * 3e-9


def test_tridiagonalize_refuses_bad_arguments() -> None:
    matrix = torch.eye(3)
    for num_steps in (0, 4):
        with pytest.raises(ValueError, match=f"num_steps must be 1 to P = 3, got {num_steps}"):
            tridiagonalize(matrix, torch.ones(3), num_steps)
    with pytest.raises(ValueError, match="start must be finite and not zero"):
        tridiagonalize(matrix, torch.zeros(3), 1)

"""Arguments and failures of dense spectra, factorizations and Lanczos that are rare."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from problems import matrix_with, normal

from hesspipe.errors import InconsistentMatrixError
from hesspipe.linalg import inertia
from hesspipe.linalg.inertia import count_signs
from hesspipe.linalg.lanczos import tridiagonalize
from hesspipe.linalg.spectrum import (
    ZERO_TOLERANCE,
    _check_sums,
    _confirm_counts,
    matrix_spectrum,
    solver_error,
    with_inertia,
)
from hesspipe.linalg.trace import estimate_norms

EPS = torch.finfo(torch.float64).eps


def test_default_tolerance_is_the_error_bound_itself() -> None:
    assert ZERO_TOLERANCE == 1
    values = matrix_with(torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64))
    found = matrix_spectrum(values, matrix="test", method="given", matrix_error=0.25)
    assert found.tolerance == found.error_bound == 0.25 + solver_error(found.eigenvalues)


@pytest.mark.parametrize("zero_tolerance", [0.0, 1.0])
def test_eigenvalue_at_the_tolerance_counts_as_zero(zero_tolerance: float) -> None:
    """Also exact zeros at a tolerance of zero."""
    size = 0.5 if zero_tolerance else 0.0
    values = torch.tensor([-3.0, -size, size, 3.0], dtype=torch.float64)
    error = size - solver_error(values) if zero_tolerance else 0.0
    found = with_inertia(values, "test", "given", error, zero_tolerance)
    assert (found.num_negative, found.num_zero, found.num_positive) == (1, 2, 1)
    assert found.tolerance == size


def test_solver_error_of_nothing_is_zero() -> None:
    assert solver_error(torch.zeros(0)) == 0
    assert solver_error(torch.tensor([-2.0])) == EPS * 10 * 2
    assert solver_error(torch.full((50,), -2.0)) == EPS * 50 * 2


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize(("factor", "is_refused"), [(0.9, False), (1.1, True)])
def test_sums_may_differ_by_the_backward_error(size: int, factor: float, is_refused: bool) -> None:
    """Ten roundings for each eigenvalue and the norm, and the root of their number in the trace."""
    eigenvalues = torch.full((size,), 2.0, dtype=torch.float64)
    trace, norm = 2.0 * size, float(eigenvalues.norm())
    slack = factor * 10 * EPS * size * norm
    for found, other in ((trace + slack * size**0.5, norm), (trace, norm + slack)):
        context = pytest.raises(InconsistentMatrixError, match="the eigensolver failed")
        with context if is_refused else contextlib.nullcontext():
            _check_sums(eigenvalues, torch.tensor(found, dtype=torch.float64), "test", 1.0, other)


def test_signs_on_a_gpu_have_no_certificate() -> None:
    found = with_inertia(torch.ones(2, dtype=torch.float64), "test", "given", 0.0, 1.0)
    there = torch.empty(2, 2, dtype=torch.float64, device="meta")
    assert _confirm_counts(found, found.eigenvalues, there, False) == "none: the matrix is on a GPU"


@pytest.mark.parametrize("shape", [(3, 3, 3), (3,), (2, 3), ()])
def test_matrix_spectrum_refuses_what_is_no_square_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="values must be a square matrix, got shape"):
        matrix_spectrum(torch.zeros(shape).double(), matrix="test", method="given")


@pytest.mark.parametrize("info", [-4, -1])
def test_count_signs_notices_a_refused_factorization(
    info: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = inertia.dsytrf
    monkeypatch.setattr(inertia, "dsytrf", lambda *a, **k: (*plain(*a, **k)[:2], info))
    with pytest.raises(InconsistentMatrixError, match=f"dsytrf refused its argument {-info}"):
        count_signs(torch.eye(3, dtype=torch.float64), 0.0)


@pytest.mark.parametrize("shift", [-1.5, 0.0, 0.7])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 30])
def test_count_signs_counts_all_eigenvalues(size: int, shift: float) -> None:
    """Matrices with a zero diagonal need pairs of pivots."""
    values = normal(size, size).tril(-1)
    values = values + values.mT
    eigenvalues = torch.linalg.eigvalsh(values)
    expected = int((eigenvalues < shift).sum()), int((eigenvalues > shift).sum())
    assert count_signs(values, shift) == expected


@pytest.mark.parametrize(
    ("start", "got"),
    [
        (torch.ones(4).double(), r"shape \(4,\) and torch.float64"),
        (torch.ones(5, 1).double(), r"shape \(5, 1\) and torch.float64"),
        (torch.ones(5), r"shape \(5,\) and torch.float32"),
    ],
)
def test_tridiagonalize_refuses_a_start_of_another_shape_or_type(
    start: torch.Tensor, got: str
) -> None:
    with pytest.raises(ValueError, match=f"a vector of length 5 and torch.float64, got {got}"):
        tridiagonalize(torch.eye(5, dtype=torch.float64), start, 2)


@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [(torch.float64, e) for e in (-1060, -1000, 1000, 1020)]
    + [(torch.float32, e) for e in (-130, -120, 120, 127)],
)
def test_start_at_the_ends_of_the_range_is_normalized(dtype: torch.dtype, exponent: int) -> None:
    matrix = torch.diag(torch.arange(1.0, 7.0, dtype=dtype))
    start = torch.tensor([1.0, -1.0, 0.5, 0.0, 1.5, 1.0], dtype=dtype)
    found = tridiagonalize(
        matrix, start * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2), 6
    )
    expected = tridiagonalize(matrix, start, 6)
    assert torch.equal(found.basis[0], expected.basis[0])
    assert abs(float(found.basis[0].norm()) - 1) <= 4 * torch.finfo(dtype).eps


def test_squared_norm_of_zero_is_zero() -> None:
    for size in (3, 200):
        found = estimate_norms(torch.zeros(size, size).double(), num_products=60)
        assert (found.squared_frobenius_norm.value, found.frobenius_norm.value) == (0, 0)
        assert found.squared_frobenius_norm.standard_error == 0


@pytest.mark.parametrize("step", [1, 4])
def test_residual_direction_continues_the_recurrence(step: int) -> None:
    """A Q^T = Q^T T + beta r e^T, whatever the size of beta."""
    matrix = matrix_with(torch.linspace(-1, 3, 30, dtype=torch.float64))
    for scale in (2.0**-20, 1.0, 2.0**20):
        found = tridiagonalize(scale * matrix, normal(30), step)
        rest = scale * matrix @ found.basis.T - found.basis.T @ found.matrix
        rest[:, -1] -= found.residual_norm * found.residual
        assert np.abs(rest.numpy()).max() <= 100 * EPS * 3 * scale
        assert abs(float(found.residual.norm()) - 1) <= 10 * EPS

"""Spectra of dense matrices with known eigenvalues, and their counts of signs."""

from __future__ import annotations

import pytest
import torch
from problems import EPS, assert_close, normal
from torch import Tensor

from hesspipe.errors import InconsistentMatrixError
from hesspipe.linalg.spectrum import matrix_spectrum


def with_eigenvalues(eigenvalues: Tensor) -> Tensor:
    """A symmetric matrix with a prescribed spectrum."""
    basis, _ = torch.linalg.qr(normal(len(eigenvalues), len(eigenvalues)))
    product = basis * eigenvalues @ basis.T
    return torch.tril(product) + torch.tril(product, -1).T


def test_spectrum_finds_prescribed_eigenvalues_and_their_signs() -> None:
    eigenvalues = torch.cat([torch.tensor([-3.0, -0.5]), torch.zeros(7), normal(5).abs() + 0.1])
    eigenvalues = eigenvalues.double().sort().values
    found = matrix_spectrum(with_eigenvalues(eigenvalues), matrix="test", method="given")
    assert (found.eigenvalues - eigenvalues).abs().max() <= 20 * EPS * eigenvalues.abs().max()
    assert (found.num_negative, found.num_zero, found.num_positive) == (2, 7, 5)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_counts_of_signs_do_not_depend_on_the_scale(scale: float) -> None:
    eigenvalues = torch.tensor([-1.0, -1e-6, 0, 0, 0, 1e-6, 1.0], dtype=torch.float64) * scale
    found = matrix_spectrum(with_eigenvalues(eigenvalues), matrix="test", method="given")
    assert (found.num_negative, found.num_zero, found.num_positive) == (2, 3, 2)
    assert found.tolerance == pytest.approx(EPS * 10 * scale, rel=1e-9)


def test_tolerance_decides_what_is_zero() -> None:
    values = torch.diag(torch.tensor([-1.0, 1e-3, 1.0], dtype=torch.float64))
    loose = matrix_spectrum(values, matrix="test", method="given", zero_tolerance=1e-2 / EPS / 3)
    strict = matrix_spectrum(values, matrix="test", method="given")
    assert (loose.num_zero, strict.num_zero) == (1, 0)


def test_zero_rows_give_exact_zeros() -> None:
    values = torch.zeros(6, 6, dtype=torch.float64)
    values[1:4, 1:4] = with_eigenvalues(torch.tensor([-2.0, 1.0, 5.0], dtype=torch.float64))
    found = matrix_spectrum(values, matrix="test", method="given")
    assert (found.eigenvalues == 0).sum() == 3
    expected = torch.tensor([-2.0, 0.0, 0.0, 0.0, 1.0, 5.0], dtype=torch.float64)
    assert_close(found.eigenvalues, expected)


def test_zero_matrix_has_only_zeros() -> None:
    found = matrix_spectrum(torch.zeros(4, 4, dtype=torch.float64), matrix="test", method="given")
    assert (found.num_negative, found.num_zero, found.num_positive) == (0, 4, 0)


def test_asymmetric_matrix_is_refused() -> None:
    values = with_eigenvalues(torch.ones(5, dtype=torch.float64))
    values[0, 4] += 1e-6
    with pytest.raises(ValueError, match="test must be symmetric"):
        matrix_spectrum(values, matrix="test", method="given")


def test_failed_eigensolver_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = with_eigenvalues(torch.arange(1.0, 6.0, dtype=torch.float64))
    solve = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: solve(matrix) * 1.001)
    with pytest.raises(InconsistentMatrixError, match=r"give a trace of .* the matrix 15"):
        matrix_spectrum(values, matrix="test", method="given")

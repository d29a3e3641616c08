"""Spectra of dense matrices with known eigenvalues, and their counts of signs."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from problems import EPS, assert_close, matrix_with, normal

from hesspipe.errors import InconsistentMatrixError
from hesspipe.linalg import inertia, spectrum
from hesspipe.linalg.spectrum import matrix_spectrum, solver_error, with_inertia


def test_spectrum_finds_prescribed_eigenvalues_and_their_signs() -> None:
    eigenvalues = torch.cat([torch.tensor([-3.0, -0.5]), torch.zeros(7), normal(5).abs() + 0.1])
    eigenvalues = eigenvalues.double().sort().values
    found = matrix_spectrum(matrix_with(eigenvalues), matrix="test", method="given")
    assert (found.eigenvalues - eigenvalues).abs().max() <= 20 * EPS * eigenvalues.abs().max()
    assert (found.num_negative, found.num_zero, found.num_positive) == (2, 7, 5)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_counts_of_signs_do_not_depend_on_the_scale(scale: float) -> None:
    eigenvalues = torch.tensor([-1.0, -1e-6, 0, 0, 0, 1e-6, 1.0], dtype=torch.float64) * scale
    found = matrix_spectrum(matrix_with(eigenvalues), matrix="test", method="given")
    assert (found.num_negative, found.num_zero, found.num_positive) == (2, 3, 2)
    assert found.tolerance == pytest.approx(EPS * 10 * scale, rel=1e-9)


def test_tolerance_decides_what_is_zero() -> None:
    values = torch.diag(torch.tensor([-1.0, 1e-3, 1.0], dtype=torch.float64))
    loose = matrix_spectrum(values, matrix="test", method="given", zero_tolerance=1e-2 / EPS / 3)
    strict = matrix_spectrum(values, matrix="test", method="given")
    assert (loose.num_zero, strict.num_zero) == (1, 0)


def test_zero_rows_give_exact_zeros() -> None:
    values = torch.zeros(6, 6, dtype=torch.float64)
    values[1:4, 1:4] = matrix_with(torch.tensor([-2.0, 1.0, 5.0], dtype=torch.float64))
    found = matrix_spectrum(values, matrix="test", method="given")
    assert (found.eigenvalues == 0).sum() == 3
    expected = torch.tensor([-2.0, 0.0, 0.0, 0.0, 1.0, 5.0], dtype=torch.float64)
    assert_close(found.eigenvalues, expected)


@pytest.mark.parametrize("num", [1, 127, 128, 129, 400])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_matrix_spectrum_leaves_out_rows_of_zeros_anywhere(num: int, share: float) -> None:
    is_kept = torch.rand(num, generator=torch.Generator().manual_seed(num)) >= share
    values = normal(num, num)
    values = (values + values.mT) * is_kept * is_kept[:, None]
    found = matrix_spectrum(values, matrix="test", method="given")
    expected = np.linalg.eigvalsh(values.numpy())
    assert_close(found.eigenvalues, torch.from_numpy(expected))
    part = torch.linalg.eigvalsh(values[is_kept][:, is_kept])
    assert int((found.eigenvalues == 0).sum()) == int((~is_kept).sum())
    assert torch.equal(found.eigenvalues[found.eigenvalues != 0], part)


@pytest.mark.parametrize("num", [0, 1, 4, 300])
def test_zero_matrix_has_only_zeros(num: int) -> None:
    zeros = torch.zeros(num, num, dtype=torch.float64)
    found = matrix_spectrum(zeros, matrix="test", method="given")
    assert (found.num_negative, found.num_zero, found.num_positive) == (0, num, 0)


def test_asymmetric_matrix_is_refused() -> None:
    values = matrix_with(torch.ones(5, dtype=torch.float64))
    values[0, 4] += 1e-6
    with pytest.raises(ValueError, match="test must be symmetric"):
        matrix_spectrum(values, matrix="test", method="given")


def test_failed_eigensolver_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = matrix_with(torch.arange(1.0, 6.0, dtype=torch.float64))
    solve = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: solve(matrix) * 1.001)
    with pytest.raises(InconsistentMatrixError, match=r"give a trace of .* the matrix 15"):
        matrix_spectrum(values, matrix="test", method="given")


@pytest.mark.parametrize("size", [1e-9, 1e-6, 0.1])
@pytest.mark.parametrize("num", [5, 60])
@pytest.mark.parametrize("what", ["trace", "Frobenius norm"])
def test_matrix_spectrum_notices_eigenvalues_that_are_wrong_by_little(
    what: str, num: int, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = matrix_with(torch.linspace(-1.0, 1.0, num, dtype=torch.float64))
    solve = torch.linalg.eigvalsh

    def wrong(matrix: torch.Tensor) -> torch.Tensor:
        eigenvalues = solve(matrix)
        eigenvalues[-1] += size
        if what == "Frobenius norm":
            eigenvalues[num // 2] -= size
        return eigenvalues

    monkeypatch.setattr(torch.linalg, "eigvalsh", wrong)
    with pytest.raises(InconsistentMatrixError, match=f"test give a {what} of .*; the eig"):
        matrix_spectrum(values, matrix="test", method="given")


def test_matrix_spectrum_notices_wrong_signs_that_no_sum_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # (-0.1, 1, 1) and the three positive roots have the same sum and the same sum of squares.
    values = matrix_with(torch.tensor([-0.1, 1.0, 1.0], dtype=torch.float64))
    wrong = torch.from_numpy(np.sort(np.roots([1.0, -1.9, 0.8, -0.05])))
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda _: wrong)
    with pytest.raises(InconsistentMatrixError, match=r"0 eigenvalues .* L D L\^T counts 1"):
        matrix_spectrum(values, matrix="test", method="given")
    found = matrix_spectrum(values, matrix="test", method="given", certify=False)
    assert (found.num_negative, found.certificate) == (0, "none: not asked for by certify=True")


@pytest.mark.parametrize(("eigenvalue", "is_near"), [(1.0 + 20 * EPS, True), (1.5, False)])
def test_certificate_names_eigenvalues_within_rounding_of_the_tolerance(
    eigenvalue: float, is_near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bound, and with it the tolerance, is 1; one of the two eigenvalues is beyond it.
    values = torch.diag(torch.tensor([0.5, eigenvalue], dtype=torch.float64))
    monkeypatch.setattr(spectrum, "count_signs", lambda _, shift: (0, 0))
    if is_near:
        found = matrix_spectrum(values, matrix="test", method="given", matrix_error=1.0)
        assert found.certificate.startswith("LDL^T, except for 1 eigenvalues within")
    else:
        with pytest.raises(InconsistentMatrixError, match=r"1 eigenvalues .* L D L\^T counts 0"):
            matrix_spectrum(values, matrix="test", method="given", matrix_error=1.0)


@pytest.mark.parametrize("size", [1e-9, 1e-6, 0.1])
@pytest.mark.parametrize("place", [(1, 0), (0, -1), (-1, 0), (-2, -1), "all"])
@pytest.mark.parametrize("num", [2, 5, 1100])
def test_matrix_spectrum_refuses_what_is_not_symmetric_by_little(
    num: int, place: tuple[int, int] | str, size: float
) -> None:
    lower = normal(num, num).tril(-1)
    values = lower + lower.mT + torch.eye(num, dtype=torch.float64)
    if isinstance(place, str):
        values = values * (1 + size * normal(num, num, seed=1))
    else:
        values[place] = 1.0 + size
        values[place[::-1]] = 1.0
    with pytest.raises(ValueError, match="test must be symmetric, got"):
        matrix_spectrum(values, matrix="test", method="given")


@pytest.mark.parametrize("num", [1, 2, 3, 40])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e100])
def test_matrix_spectrum_takes_matrices_that_are_symmetric_up_to_rounding(
    num: int, scale: float
) -> None:
    values = scale * (1 + EPS * normal(num, num).sign()) * matrix_with(normal(num))
    found = matrix_spectrum(values, matrix="test", method="given")
    assert len(found.eigenvalues) == num
    asymmetric = values + 1e-6 * values.norm() * normal(num, num)
    error = 1e-5 * num * float(values.norm())
    assert matrix_spectrum(asymmetric, matrix="test", method="given", matrix_error=error)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 3), (3, 1), (1050, 2), (2, 1050), (1050, 1051)])
def test_matrix_spectrum_refuses_what_is_not_finite(number: float, place: tuple[int, int]) -> None:
    values = torch.eye(1060, dtype=torch.float64)
    values[place] = number
    with pytest.raises(ValueError, match="test must be finite, got an entry that is nan or inf"):
        matrix_spectrum(values, matrix="test", method="given")


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_with_inertia_refuses_eigenvalues_that_are_not_finite(number: float) -> None:
    eigenvalues = torch.tensor([0.0, 1.0, number], dtype=torch.float64)
    with pytest.raises(InconsistentMatrixError, match="1 eigenvalues of the test that are not"):
        with_inertia(eigenvalues, "test", "given", 0.0, 1.0)
    for name, arguments in (("matrix_error", (number, 1.0)), ("zero_tolerance", (0.0, number))):
        with pytest.raises(ValueError, match=f"{name} must be .*finite"):
            with_inertia(torch.zeros(3, dtype=torch.float64), "test", "given", *arguments)


def test_matrix_spectrum_refuses_a_rectangle() -> None:
    with pytest.raises(ValueError, match=r"values must be a square matrix, got shape \(3, 2\)"):
        matrix_spectrum(normal(3, 2), matrix="test", method="given")


def test_error_bound_is_that_of_the_matrix_and_of_the_solver() -> None:
    eigenvalues = torch.tensor([-4.0, 0.3, 2.0], dtype=torch.float64)
    found = matrix_spectrum(
        matrix_with(eigenvalues), matrix="test", method="given", matrix_error=0.1, zero_tolerance=4
    )
    assert found.error_bound == 0.1 + solver_error(found.eigenvalues)
    assert found.error_bound == pytest.approx(0.1, abs=1e-13)
    assert found.tolerance == 4 * found.error_bound
    assert (found.num_negative, found.num_zero, found.num_positive) == (1, 1, 1)


def test_eigenvalues_that_are_known_are_counted_with_the_others() -> None:
    values = matrix_with(torch.tensor([-4.0, 0.0, 2.0], dtype=torch.float64))
    others = torch.tensor([0.5, -0.5, 0.0, 0.5], dtype=torch.float64)
    found = matrix_spectrum(values, matrix="test", method="given", others=others)
    assert (found.num_negative, found.num_zero, found.num_positive) == (2, 2, 3)
    assert found.certificate == "LDL^T"
    expected = torch.tensor([-4.0, -0.5, 0.0, 0.0, 0.5, 0.5, 2.0], dtype=torch.float64)
    assert_close(found.eigenvalues, expected)


@pytest.mark.parametrize("rank", [1, 8, 30])
def test_counts_of_signs_are_invariant(rank: int) -> None:
    # Negation exchanges the signs; a permutation and a factor change nothing.
    rows = normal(rank, 30)
    signs = torch.where(torch.arange(rank) % 3 == 0, -1.0, 1.0).double()
    values = (rows.mT * signs) @ rows
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    found, negated, permuted, scaled = (
        matrix_spectrum(matrix, matrix="test", method="given")
        for matrix in (values, -values, values[order][:, order], 3e-7 * values)
    )
    counts = (found.num_negative, found.num_zero, found.num_positive)
    assert counts == ((rank + 2) // 3, 30 - rank, rank - (rank + 2) // 3)
    assert (negated.num_negative, negated.num_zero, negated.num_positive) == counts[::-1]
    for same in (permuted, scaled):
        assert (same.num_negative, same.num_zero, same.num_positive) == counts


@pytest.mark.parametrize("num", [1, 2, 3, 5, 7, 12])
def test_error_bound_holds_against_50_digits(num: int) -> None:
    for seed in range(24):
        basis, numbers = normal(num, num, seed=seed), normal(num, seed=seed + 99)
        scales = 10.0 ** (-seed / 2 * torch.linspace(0, 1, num, dtype=torch.float64))
        lower = ((basis * numbers * scales) @ basis.mT).tril()
        values = lower + lower.tril(-1).mT
        found = matrix_spectrum(values, matrix="test", method="given")
        with mpmath.workdps(50):
            exact = sorted(mpmath.eigsy(mpmath.matrix(values.tolist()), eigvals_only=True))
            pairs = zip(exact, found.eigenvalues.tolist(), strict=True)
            assert max(abs(true - mpmath.mpf(value)) for true, value in pairs) <= found.error_bound


@pytest.mark.parametrize("error", [4 * EPS, 1e-6])
@pytest.mark.parametrize("num", [3, 30, 1030])
@pytest.mark.parametrize("place", ["lower", "upper", "first row", "first column", "last row"])
def test_matrix_spectrum_is_that_of_the_lower_triangle_where_errors_make_them_differ(
    place: str, num: int, error: float
) -> None:
    values = matrix_with(torch.linspace(-1.0, 1.0, num, dtype=torch.float64))
    noise = error * normal(num, num)
    if place in ("lower", "upper"):
        values += noise.tril(-1) if place == "lower" else noise.triu(1)
    else:  # the mirror of what is left is zero
        index = -1 if place == "last row" else 0
        values[index], values[:, index] = 0.0, 0.0
        if place == "first column":
            values[1:, 0] = noise[1:, 0]
        else:
            values[index] = noise[index]
    expected = torch.linalg.eigvalsh(values.tril() + values.tril(-1).mT)
    found = matrix_spectrum(values, matrix="test", method="given", matrix_error=50 * error)
    assert (found.eigenvalues - expected).abs().max() <= 100 * EPS
    assert found.certificate.startswith("LDL^T")


def test_matrix_spectrum_notices_a_wrong_eigenvalue_beside_an_error_of_the_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = matrix_with(torch.linspace(-1.0, 1.0, 30, dtype=torch.float64))
    solve = torch.linalg.eigvalsh
    monkeypatch.setattr(
        torch.linalg, "eigvalsh", lambda matrix: solve(matrix) + 1e-9 * (torch.arange(30) == 29)
    )
    with pytest.raises(InconsistentMatrixError, match="test give a trace of"):
        matrix_spectrum(values, matrix="test", method="given", matrix_error=1e-6)


@pytest.mark.parametrize("zero_tolerance", [0.0, 1.0])
@pytest.mark.parametrize("rank", [0, 3, 20])
def test_certificate_of_a_gram_matrix_counts_positive_eigenvalues_only(
    rank: int, zero_tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifts = []

    def counted(values: torch.Tensor, shift: float) -> tuple[int, int]:
        shifts.append(shift)
        return inertia.count_signs(values, shift)

    monkeypatch.setattr(spectrum, "count_signs", counted)
    columns = normal(30, rank) @ normal(rank, 20, seed=1)  # (30, 20), of this rank
    found = matrix_spectrum(
        columns.mT @ columns, matrix="test", method="given", matrix_error=1e-10,
        zero_tolerance=zero_tolerance, is_gram=True,
    )  # fmt: skip
    if zero_tolerance == 0:  # the signs of errors are counted
        assert len(shifts) == 2
        assert "Gram" not in found.certificate
    else:
        assert shifts == [found.tolerance]
        assert (found.num_negative, found.num_positive) == (0, rank)
        assert found.certificate == "LDL^T; a Gram matrix has no negative eigenvalues"


def test_negative_eigenvalue_of_a_gram_matrix_is_noticed() -> None:
    values = matrix_with(torch.tensor([-0.1, 1.0, 1.0], dtype=torch.float64))
    with pytest.raises(InconsistentMatrixError, match=r"1 eigenvalues .* a Gram matrix has 0"):
        matrix_spectrum(values, matrix="test", method="given", is_gram=True)

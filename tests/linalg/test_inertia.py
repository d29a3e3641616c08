"""Counts of signs without eigenvalues, for matrices with known spectra."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import EPS, matrix_with, normal

from hesspipe.linalg.inertia import count_signs
from hesspipe.linalg.spectrum import matrix_spectrum


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    st.sampled_from([-3.5, -0.5, 0.5, 2.5]),
    st.sampled_from([1e-9, 1.0, 1e9]),
)
def test_count_signs_counts_prescribed_eigenvalues(
    integers: list[int], shift: float, scale: float
) -> None:
    eigenvalues = torch.tensor(integers, dtype=torch.float64)
    found = count_signs(matrix_with(eigenvalues * scale), shift * scale)
    assert found == (int((eigenvalues < shift).sum()), int((eigenvalues > shift).sum()))


@pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 200])
def test_count_signs_needs_pairs_where_the_diagonal_is_zero(size: int) -> None:
    # No 1 x 1 pivot exists in [[0, B], [B^T, 0]], whose eigenvalues are +- singular values of B.
    values = torch.zeros(2 * size, 2 * size, dtype=torch.float64)
    values[:size, size:] = normal(size, size) + size * torch.eye(size)
    values[size:, :size] = values[:size, size:].mT
    assert count_signs(values, 0.0) == (size, size)


def test_count_signs_leaves_out_eigenvalues_equal_to_the_shift() -> None:
    values = torch.diag(torch.tensor([2.0, 0.0, -1.0, 0.0, 3.0], dtype=torch.float64))
    assert count_signs(values, 0.0) == (1, 2)
    assert count_signs(values, 2.0) == (3, 1)
    assert count_signs(values[:0, :0], 0.0) == (0, 0)


def test_count_signs_reads_the_lower_triangle_and_changes_nothing() -> None:
    values = matrix_with(torch.tensor([-1.0, 2.0, 3.0], dtype=torch.float64))
    spoiled = values.tril() + torch.ones(3, 3, dtype=torch.float64).triu(1)
    before = spoiled.clone()
    assert count_signs(spoiled, 0.0) == (1, 2)
    assert torch.equal(spoiled, before)


@pytest.mark.parametrize("small", [1e-10, 1e-12])
@pytest.mark.parametrize("num_small", [1, 7, 20])
def test_matrix_spectrum_keeps_true_eigenvalues_of_small_relative_size(
    small: float, num_small: int
) -> None:
    tiny = small * (1 + normal(num_small).abs())
    parts = [-tiny, torch.zeros(9), tiny, normal(20).abs() + 0.1, -normal(5).abs() - 0.1]
    eigenvalues = torch.cat(parts).double().sort().values
    found = matrix_spectrum(matrix_with(eigenvalues), matrix="test", method="given")
    expected = (num_small + 5, 9, num_small + 20)
    assert (found.num_negative, found.num_zero, found.num_positive) == expected
    assert (found.eigenvalues - eigenvalues).abs().max() <= found.error_bound
    assert found.error_bound <= 100 * EPS * eigenvalues.abs().max() * 2
    assert found.certificate == "LDL^T"

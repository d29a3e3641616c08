"""Where Lanczos ends: by its scale, not by an absolute number."""

from __future__ import annotations

import math

import pytest
import torch
from problems import EPS, matrix_with, normal

from hesspipe.linalg.lanczos import breakdown, tridiagonalize
from hesspipe.linalg.operator import symmetric_product

VALUES = torch.cat([torch.zeros(20), torch.linspace(-1, 3, 20)]).double()


@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [(torch.float64, exponent) for exponent in (-600, -150, -20, 0, 20, 150, 600)]
    + [(torch.float32, exponent) for exponent in (-90, -70, -20, 0, 20, 70, 90)],
)
def test_tridiagonalize_is_homogeneous_in_the_matrix(dtype: torch.dtype, exponent: int) -> None:
    scale = 2.0**exponent  # exact, so that every number is the same up to its exponent
    matrix, start = matrix_with(VALUES, dtype), normal(40).to(dtype)
    expected = tridiagonalize(matrix, start, 21)
    found = tridiagonalize(scale * matrix, start, 21)
    assert torch.equal(found.diagonal, scale * expected.diagonal)
    assert torch.equal(found.off_diagonal, scale * expected.off_diagonal)
    assert torch.equal(found.basis, expected.basis)
    assert found.residual_norm == scale * expected.residual_norm


@pytest.mark.parametrize("exponent", [-300, -9, 0, 9, 300])
def test_tridiagonalize_does_not_depend_on_the_length_of_the_start(exponent: int) -> None:
    matrix, start = matrix_with(VALUES), normal(40)
    found = tridiagonalize(matrix, 2.0**exponent * start, 10)
    assert torch.equal(found.basis, tridiagonalize(matrix, start, 10).basis)


@pytest.mark.parametrize("size", [1, 5])
def test_tridiagonalize_of_zero_ends_at_once(size: int) -> None:
    found = tridiagonalize(torch.zeros(size, size).double(), normal(size), size)
    assert found.diagonal.tolist() == [0]
    assert len(found.off_diagonal) == 0
    assert found.residual_norm == 0
    assert not found.residual.any()
    assert torch.equal(found.matrix, torch.zeros(1, 1).double())


@pytest.mark.parametrize("remainder", [3.0, 30.0])
def test_tridiagonalize_ends_where_the_remainder_is_rounding(remainder: float) -> None:
    # [[1, r], [r, 1]] from e_1: the remainder is r, and rounding is 10 eps.
    coupling = remainder * EPS
    matrix = torch.tensor([[1.0, coupling], [coupling, 1.0]], dtype=torch.float64)
    found = tridiagonalize(matrix, torch.tensor([1.0, 0.0]).double(), 2)
    assert len(found.diagonal) == (1 if remainder < 10 else 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_breakdown_is_ten_roundings_of_the_largest_image(dtype: torch.dtype) -> None:
    product = symmetric_product(torch.eye(2, dtype=dtype))
    expected = 10 * torch.finfo(dtype).eps * 7.0
    assert math.isclose(breakdown(7.0, product), expected, rel_tol=1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_tridiagonalize_refuses_a_start_that_is_not_finite(bad: float) -> None:
    start = torch.tensor([1.0, bad, 0.0])
    with pytest.raises(ValueError, match=r"start must be finite and not zero, got norm (nan|inf)"):
        tridiagonalize(torch.eye(3), start, 1)


def test_tridiagonalize_makes_the_steps_of_its_iterator() -> None:
    matrix = matrix_with(VALUES)
    seen: list[int] = []

    def watched(num_steps: int):  # type: ignore[no-untyped-def]
        for step in range(num_steps):
            seen.append(step)
            yield step

    found = tridiagonalize(matrix, normal(40), 7, steps=watched(7))
    assert seen == list(range(7))
    assert torch.equal(found.matrix, tridiagonalize(matrix, normal(40), 7).matrix)


def test_matrix_is_tridiagonal_and_symmetric() -> None:
    found = tridiagonalize(matrix_with(VALUES), normal(40), 6)
    assert torch.equal(found.matrix, found.matrix.T)
    assert torch.equal(found.matrix.triu(2), torch.zeros(6, 6).double())
    assert torch.equal(found.matrix.diagonal(), found.diagonal)
    assert torch.equal(found.matrix.diagonal(1), found.off_diagonal)

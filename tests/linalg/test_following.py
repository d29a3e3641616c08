"""Following: eigenvalues of matrices that change, against dense ones, where it is difficult."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hesspipe.linalg.following import Tracking, errors_of_ends, follow_eigenpairs
from hesspipe.linalg.tracking import track_eigenpairs

SIZE = 120
OPTIONS = {"tolerance": 1e-3, "max_products": SIZE}


def rotation(seed: int, angle: float = 10.0) -> Tensor:
    """An orthogonal matrix: near the identity for small angles."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator)
    skew = (numbers - numbers.T) / (2 * SIZE**0.5)
    return torch.linalg.matrix_exp(angle * skew)


def bulk(*others: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(SIZE - len(others), dtype=torch.float64, generator=generator) / 8
    return torch.cat([values.clamp(-0.4, 0.4), torch.tensor(others, dtype=torch.float64)])


def matrix(values: Tensor, angle: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Eigenvalues in eigenvectors that turn by an angle."""
    vectors = rotation(1, angle) @ rotation(0)
    return ((vectors * values) @ vectors.T).to(dtype)


def follow(first: Tensor, second: Tensor, ends: tuple[int, int], **options: int) -> Tracking:
    begun = track_eigenpairs(first, *ends, start=None, max_missed_probability=0.01, **OPTIONS)
    return follow_eigenpairs(second, *ends, carried=begun.carried, **OPTIONS | options)


def require_right(found: Tracking, operator: Tensor, ends: tuple[int, int]) -> None:
    """Values within 1e-3 of the dense ones, and residual norms of the vectors that are returned."""
    exact = torch.linalg.eigvalsh(operator.double())
    expected = torch.cat([exact[: ends[0]], exact[SIZE - ends[1] :]])
    pairs = found.pairs
    assert found.is_converged.all()
    assert torch.allclose(pairs.eigenvalues, expected, rtol=1e-3, atol=0)
    vectors = pairs.eigenvectors.double()
    residuals = operator.double() @ vectors - vectors * pairs.eigenvalues
    rounding = 100 * torch.finfo(operator.dtype).eps * float(exact.abs().max())
    assert torch.allclose(residuals.norm(dim=0), pairs.residual_norms, atol=rounding)
    assert (found.error_estimates <= pairs.residual_norms + rounding).all()


@pytest.mark.parametrize("ends", [(0, 1), (1, 0), (1, 1), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e7, 1e-9])
def test_follow_eigenpairs_finds_the_ends_after_a_small_change(
    ends: tuple[int, int], dtype: torch.dtype, scale: float
) -> None:
    values = scale * bulk(-2.0, -1.5, 3.0, 4.0, 5.0)
    first, second = (matrix(values * (1 + angle), angle, dtype) for angle in (0.0, 0.1))
    found = follow(first, second, ends)
    require_right(found, second, ends)
    if sum(ends) == 1:
        cold = track_eigenpairs(second, *ends, start=None, **OPTIONS)
        assert found.pairs.num_products < cold.pairs.num_products
    assert not found.is_lost


@pytest.mark.parametrize("angle", [0.0, 0.02])
@pytest.mark.parametrize("ends", [(0, 1), (1, 0)])
def test_follow_eigenpairs_sees_two_leading_eigenvalues_change_places(
    angle: float, ends: tuple[int, int]
) -> None:
    sign = 1.0 if ends[1] else -1.0
    first, second = bulk(sign * 5.0, sign * 4.8), bulk(sign * 4.9, sign * 5.2)
    found = follow(matrix(first, 0.0), matrix(second, angle), ends)
    require_right(found, matrix(second, angle), ends)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-4])
@pytest.mark.parametrize("ends", [(0, 1), (0, 2), (2, 0)])
def test_follow_eigenpairs_takes_degenerate_leading_pairs(
    gap: float, ends: tuple[int, int]
) -> None:
    sign = 1.0 if ends[1] else -1.0
    apart, equal = bulk(sign * 5.0, sign * 4.0), bulk(sign * 5.0, sign * (5.0 - gap))
    found = follow(matrix(apart, 0.0), matrix(equal, 0.02), ends)
    require_right(found, matrix(equal, 0.02), ends)
    again = follow_eigenpairs(matrix(equal, 0.04), *ends, carried=found.carried, **OPTIONS)
    require_right(again, matrix(equal, 0.04), ends)
    parted = follow_eigenpairs(matrix(apart, 0.06), *ends, carried=again.carried, **OPTIONS)
    require_right(parted, matrix(apart, 0.06), ends)


def test_follow_eigenpairs_says_that_vectors_of_another_matrix_are_lost() -> None:
    first, other = matrix(bulk(3.0, 5.0), 0.0), matrix(bulk(4.0, 6.0), 9.0)
    assert follow(first, other, (0, 1)).is_lost
    assert not follow(first, first, (0, 1)).is_lost


@pytest.mark.parametrize("smallest", [-1e-3, -1e-6])
def test_follow_eigenpairs_finds_a_tiny_negative_end(smallest: float) -> None:
    values = bulk(5.0).abs()
    values[0] = smallest
    for dtype in (torch.float64, torch.float32):
        first, second = (matrix(values, angle, dtype) for angle in (0.0, 1e-4))
        found = follow(first, second, (1, 0))
        exact = float(torch.linalg.eigvalsh(second.double())[0])
        error = abs(float(found.pairs.eigenvalues) - exact)
        assert error <= float(found.pairs.residual_norms) + 1e-6 * (dtype == torch.float32)
        if found.is_converged.all():
            assert error <= 1e-3 * abs(exact)
        else:
            assert dtype == torch.float32
            assert smallest == -1e-6


def test_follow_eigenpairs_ends_where_it_may_not_go_on() -> None:
    first, second = matrix(bulk(3.0, 5.0), 0.0), matrix(bulk(3.0, 5.0), 1.0)
    begun = track_eigenpairs(first, 0, 1, start=None, **OPTIONS)
    found = follow_eigenpairs(
        second, 0, 1, carried=begun.carried, may_go_on=lambda: False, **OPTIONS
    )
    assert found.pairs.num_products == len(begun.carried) == 2
    assert not found.is_converged.any()
    exact = torch.linalg.eigvalsh(second)
    distance = float((exact - found.pairs.eigenvalues).abs().min())
    assert distance <= float(found.pairs.residual_norms)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_follow_eigenpairs_ends_in_small_spaces(size: int) -> None:
    operator = torch.diag(torch.arange(1.0, size + 1, dtype=torch.float64))
    begun = track_eigenpairs(operator, 0, 1, start=None, tolerance=1e-9, max_products=9)
    found = follow_eigenpairs(
        2 * operator, 0, 1, carried=begun.carried, tolerance=1e-9, max_products=9
    )
    assert float(found.pairs.eigenvalues) == pytest.approx(2 * size)
    assert found.is_converged.all()


def test_follow_eigenpairs_takes_a_matrix_that_becomes_zero() -> None:
    begun = track_eigenpairs(matrix(bulk(5.0), 0.0), 1, 1, start=None, **OPTIONS)
    zero = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    found = follow_eigenpairs(zero, 1, 1, carried=begun.carried, **OPTIONS)
    assert found.pairs.eigenvalues.tolist() == [0.0, 0.0]


def test_errors_of_ends_count_close_values_together() -> None:
    values = np.array([0.0, 5.0 - 1e-12, 5.0])
    errors = errors_of_ends(values, np.array([0.1, 0.1]), 0, 2)
    assert errors == pytest.approx([0.02 / 5, 0.02 / 5])
    assert errors_of_ends(values, np.array([0.1]), 0, 1) == pytest.approx([0.1])

"""Tracking: ends of matrices that change, against dense ones, where it is difficult."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hesspipe.linalg.tracking import Tracking, errors_of_ends, track_eigenpairs

SIZE = 80
OPTIONS = {"tolerance": 1e-3, "max_products": SIZE, "max_missed_probability": 1e-3}
# Without a random vector.
BLIND = OPTIONS | {"max_missed_probability": 1.0}


def track(operator: Any, *ends: int, carried: Tensor | None = None, seed: int = 0, **options: Any):
    generator = torch.Generator().manual_seed(seed)
    return track_eigenpairs(
        operator, *ends, carried=carried, generator=generator, **OPTIONS | options
    )


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


def follow(first: Tensor, second: Tensor, ends: tuple[int, int], **options: Any) -> Tracking:
    """Search the second matrix from what was found for the first."""
    return track(second, *ends, carried=track(first, *ends).carried, **options)


def exact_ends(operator: Tensor, ends: tuple[int, int]) -> Tensor:
    exact = torch.linalg.eigvalsh(operator.double())
    return torch.cat([exact[: ends[0]], exact[SIZE - ends[1] :]])


def require_right(found: Tracking, operator: Tensor, ends: tuple[int, int]) -> None:
    """Values within 1e-3 of the dense ones, their bounds, and residual norms of the vectors."""
    expected, pairs = exact_ends(operator, ends), found.pairs
    assert found.is_converged.all()
    assert torch.allclose(pairs.eigenvalues, expected, rtol=1e-3, atol=0)
    require_bounded(found, operator, ends)
    vectors = pairs.eigenvectors.double()
    residuals = operator.double() @ vectors - vectors * pairs.eigenvalues
    rounding = 100 * torch.finfo(operator.dtype).eps * float(operator.norm(2))
    assert torch.allclose(residuals.norm(dim=0), pairs.residual_norms, atol=rounding)
    assert (found.error_estimates <= pairs.residual_norms + rounding).all()


def require_bounded(found: Tracking, operator: Tensor, ends: tuple[int, int]) -> None:
    """Ritz values lie inside of the ends, by no more than the bounds."""
    outwards = exact_ends(operator, ends) - found.pairs.eigenvalues
    outwards[: ends[0]] *= -1
    rounding = 100 * torch.finfo(operator.dtype).eps * float(operator.double().norm(2))
    assert (outwards >= -rounding).all()
    assert (outwards <= found.error_bounds + rounding).all()


@pytest.mark.parametrize("ends", [(0, 1), (1, 0), (1, 1), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e7, 1e-9])
def test_track_eigenpairs_finds_the_ends_before_and_after_a_small_change(
    ends: tuple[int, int], dtype: torch.dtype, scale: float
) -> None:
    values = scale * bulk(-2.0, -1.5, 3.0, 4.0, 5.0)
    first, second = (matrix(values * (1 + angle), angle, dtype) for angle in (0.0, 0.1))
    begun = track(first, *ends)
    require_right(begun, first, ends)
    require_right(track(second, *ends, carried=begun.carried), second, ends)
    if sum(ends) == 1:
        cold = track(second, *ends, **BLIND)
        found = track(second, *ends, carried=begun.carried, **BLIND)
        assert found.pairs.num_products < cold.pairs.num_products


@pytest.mark.parametrize("tolerance", [1e-5, 1e-9])
def test_track_eigenpairs_keeps_its_tolerance(tolerance: float) -> None:
    first, second = (matrix(bulk(-2.0, 4.0, 5.0), angle) for angle in (0.0, 0.1))
    found = follow(first, second, (1, 2), tolerance=tolerance)
    assert found.is_converged.all()
    expected = exact_ends(second, (1, 2))
    assert torch.allclose(found.pairs.eigenvalues, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("angle", [0.0, 0.02])
@pytest.mark.parametrize("ends", [(0, 1), (1, 0)])
@pytest.mark.parametrize("options", [OPTIONS, BLIND])
def test_track_eigenpairs_sees_two_leading_eigenvalues_change_places(
    angle: float, ends: tuple[int, int], options: dict[str, Any]
) -> None:
    sign = 1.0 if ends[1] else -1.0
    first, second = bulk(sign * 5.0, sign * 4.8), bulk(sign * 4.9, sign * 5.2)
    found = follow(matrix(first, 0.0), matrix(second, angle), ends, **options)
    expected = exact_ends(matrix(second, angle), ends)
    assert torch.allclose(found.pairs.eigenvalues, expected, rtol=1e-3, atol=0)
    assert bool(found.is_converged) == (options is OPTIONS)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-4])
@pytest.mark.parametrize("ends", [(0, 1), (0, 2), (2, 0)])
def test_track_eigenpairs_takes_degenerate_leading_pairs(gap: float, ends: tuple[int, int]) -> None:
    sign = 1.0 if ends[1] else -1.0
    apart, equal = bulk(sign * 5.0, sign * 4.0), bulk(sign * 5.0, sign * (5.0 - gap))
    found = follow(matrix(apart, 0.0), matrix(equal, 0.02), ends)
    require_right(found, matrix(equal, 0.02), ends)
    again = track(matrix(equal, 0.04), *ends, carried=found.carried)
    require_right(again, matrix(equal, 0.04), ends)
    parted = track(matrix(apart, 0.06), *ends, carried=again.carried)
    require_right(parted, matrix(apart, 0.06), ends)


@pytest.mark.parametrize("gap", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("angle", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("ends", [(0, 1), (1, 0), (0, 2)])
def test_track_eigenpairs_without_random_vectors_settles_its_estimates(
    gap: float, angle: float, ends: tuple[int, int]
) -> None:
    """Also where the next eigenvalue is near, which estimates count and goals do not."""
    sign = 1.0 if ends[1] else -1.0
    values = bulk(sign * 3.0, sign * 4.0, sign * (5.0 - gap), sign * 5.0)
    found = follow(matrix(values, 0.0), matrix(values, angle), ends, **BLIND)
    assert (found.error_estimates <= 1e-3 * found.pairs.eigenvalues.abs()).all()
    expected = exact_ends(matrix(values, angle), ends)
    assert torch.allclose(found.pairs.eigenvalues, expected, rtol=1e-3, atol=0)


def test_track_eigenpairs_finds_copies_from_random_vectors() -> None:
    operator = matrix(bulk(5.0, 5.0, 5.0), 0.0)
    require_right(track(operator, 0, 3), operator, (0, 3))


@pytest.mark.parametrize("options", [OPTIONS, BLIND])
def test_track_eigenpairs_is_right_from_vectors_of_another_matrix(options: dict[str, Any]) -> None:
    first, other = matrix(bulk(3.0, 5.0), 0.0), matrix(bulk(4.0, 6.0), 9.0)
    found = follow(first, other, (0, 1), **options)
    assert float(found.pairs.eigenvalues) == pytest.approx(6.0, rel=1e-3)


@pytest.mark.parametrize("smallest", [-1e-3, -1e-6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_track_eigenpairs_finds_a_tiny_negative_end(smallest: float, dtype: torch.dtype) -> None:
    values = bulk(5.0).abs()
    values[0] = smallest
    first, second = (matrix(values, angle, dtype) for angle in (0.0, 1e-4))
    found = follow(first, second, (1, 0))
    exact = float(torch.linalg.eigvalsh(second.double())[0])
    error = abs(float(found.pairs.eigenvalues) - exact)
    assert error <= float(found.pairs.residual_norms) + 1e-6 * (dtype == torch.float32)
    if found.is_converged.all():
        assert error <= 1e-3 * abs(exact)
    else:
        assert dtype == torch.float32  # its products are as uncertain as the tolerance


@pytest.mark.parametrize("size", [1, 2, 3])
def test_track_eigenpairs_ends_in_small_spaces(size: int) -> None:
    operator = torch.diag(torch.arange(1.0, size + 1, dtype=torch.float64))
    begun = track(operator, 0, 1, tolerance=1e-9)
    assert float(begun.pairs.eigenvalues) == pytest.approx(size)
    found = track(2 * operator, 0, 1, carried=begun.carried, tolerance=1e-9)
    assert float(found.pairs.eigenvalues) == pytest.approx(2 * size)
    assert found.is_converged.all()


def test_track_eigenpairs_takes_a_matrix_that_becomes_zero() -> None:
    zero = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    found = follow(matrix(bulk(5.0), 0.0), zero, (1, 1))
    assert found.pairs.eigenvalues.tolist() == [0.0, 0.0]
    assert track(zero, 0, 1).pairs.eigenvalues.tolist() == [0.0]


def test_track_eigenpairs_ends_where_it_may_not_go_on() -> None:
    first, second = matrix(bulk(3.0, 5.0), 0.0), matrix(bulk(3.0, 5.0), 1.0)
    found = follow(first, second, (0, 1), may_go_on=lambda: False)
    assert found.pairs.num_products == 2
    assert not found.is_converged.any()
    exact = torch.linalg.eigvalsh(second)
    distance = float((exact - found.pairs.eigenvalues).abs().min())
    assert distance <= float(found.pairs.residual_norms)


@pytest.mark.parametrize("max_products", [8, 20])
def test_track_eigenpairs_bounds_what_did_not_converge(max_products: int) -> None:
    values = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    operator = matrix(values, 0.0)
    found = track(operator, 1, 1, tolerance=1e-6, max_products=max_products)
    assert found.pairs.num_products == max_products
    assert not found.is_converged.any()
    require_bounded(found, operator, (1, 1))
    for value, norm in zip(found.pairs.eigenvalues, found.pairs.residual_norms, strict=True):
        assert (values - value).abs().min() <= norm  # an eigenvalue within the residual norm


@pytest.mark.parametrize(("number", "sign"), [(1, 1), (1, -1), (3, 1)])
@pytest.mark.parametrize("beyond", [1.0005, 1.02, 1.07, 1.5, 20.0])
@pytest.mark.parametrize("max_products", [3, 6, 10, SIZE])
def test_track_eigenpairs_is_right_or_says_so_where_new_eigenvectors_rise(
    number: int, sign: int, beyond: float, max_products: int
) -> None:
    """They have no component along what was carried, so that only a random vector sees them."""
    vectors = rotation(0)
    carried = vectors[:, -2:].T.flip(0)
    for seed in range(2):
        values = bulk(4.0, 5.0)
        values[seed : seed + number] = 5.0 * beyond ** torch.linspace(1, 1.1, number).double()
        operator = sign * (vectors * values) @ vectors.T
        ends = (0, 1) if sign > 0 else (1, 0)
        options = {"max_products": max_products, "carried": carried, "seed": seed}
        blind = track(operator, *ends, max_missed_probability=1.0, **options)
        assert abs(float(blind.pairs.eigenvalues)) == pytest.approx(5.0)
        assert not blind.is_converged
        assert blind.missed_probability == 1.0
        found = track(operator, *ends, **options)
        require_bounded(found, operator, ends)
        if found.is_converged or max_products == SIZE:
            require_right(found, operator, ends)
            assert found.missed_probability <= 0.01


def test_missed_probability_bounds_how_often_bounds_are_wrong() -> None:
    """A leading eigenvector that the carried one does not contain, in short runs."""
    vectors = rotation(0)
    for max_products, allowed in [(3, 0.3), (6, 0.3), (20, 0.3)]:
        wrong, bounds = [], []
        for seed in range(60):
            operator = (vectors * bulk(1.3, 0.9)) @ vectors.T
            found = track(
                operator, 0, 1, carried=vectors[:, -1:].T, max_products=max_products, seed=seed,
                max_missed_probability=allowed,
            )  # fmt: skip
            wrong.append(float(found.pairs.eigenvalues + found.error_bounds) < 1.3 - 1e-9)
            bounds.append(found.missed_probability)
        assert np.mean(wrong) <= np.mean(bounds) + 4 * np.sqrt(np.mean(bounds) / 60)
        assert np.mean(bounds) < 0.9


def test_track_eigenpairs_refuses_products_whose_squares_underflow() -> None:
    with pytest.raises(ValueError, match="squares lose digits"):
        track(1e-16 * torch.eye(9), 0, 1)


def test_errors_of_ends_count_close_values_together() -> None:
    values = np.array([0.0, 5.0 - 1e-12, 5.0])
    errors = errors_of_ends(values, np.array([0.1, 0.1]), 0, 2)
    assert errors == pytest.approx([0.02 / 5, 0.02 / 5])
    assert errors_of_ends(values, np.array([0.1]), 0, 1) == pytest.approx([0.1])

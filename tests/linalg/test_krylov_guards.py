"""What a Krylov basis keeps, forgets and allocates, where a slip would cost accuracy unnoticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import EPS, matrix_with

from hesspipe.linalg import krylov
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import SymmetricProduct, symmetric_product
from hesspipe.linalg.thick_restart import PairSearch

VALUES = torch.cat([torch.linspace(-1, 1, 60), torch.tensor([1.5, 3.0])]).double()
MATRIX = matrix_with(VALUES)


def full_basis(capacity: int = 20) -> KrylovBasis:
    """A basis of a first search that has reached its capacity."""
    basis = KrylovBasis(symmetric_product(MATRIX), capacity, seed=0)
    while not basis.is_full:
        basis.extend()
    return basis


def true_rests(basis: KrylovBasis) -> np.ndarray:
    """The residual norms of the Ritz vectors of the unlocked part, from products."""
    rows = basis.vectors[basis.num_locked : basis.size]
    values, coefficients = torch.linalg.eigh(rows @ MATRIX @ rows.T)
    vectors = coefficients.T @ rows
    residuals = vectors @ MATRIX - values.unsqueeze(1) * vectors
    residuals -= residuals @ basis.vectors[: basis.size].T @ basis.vectors[: basis.size]
    return residuals.norm(dim=1).numpy()


@pytest.mark.parametrize("is_locked", [False, True])
@pytest.mark.parametrize("num_kept", [1, 2, 3, 4])
def test_ritz_residuals_are_true_at_every_step_after_a_restart(
    num_kept: int, is_locked: bool
) -> None:
    """Those kept from a restart belong to it only, though a later part may have their number."""
    basis = full_basis()
    ritz = basis.ritz()
    basis.restart(ritz, np.arange(20 - num_kept, 20))
    if is_locked:
        basis.extend()
        ritz = basis.ritz()
        basis.lock(ritz, np.arange(len(ritz.values))[-1:])
        basis.extend()
    for _ in range(6):
        assert np.abs(basis.ritz().rests - true_rests(basis)).max() <= 200 * EPS * 3
        basis.extend()


@pytest.mark.parametrize("num_points", [1, 2])
def test_unlock_forgets_a_bound_that_no_longer_holds(num_points: int) -> None:
    """The components along locked vectors are not tracked, so that the bound ends with them."""
    basis = full_basis()
    basis.lock(basis.ritz(), np.arange(18, 20))
    basis.watch(np.full(num_points, 4.0))
    basis.extend()
    assert len(basis.hidden) == num_points
    basis.unlock()
    assert (basis.num_locked, len(basis.hidden), len(basis.watched)) == (0, 0, 0)
    basis.extend()
    assert len(basis.ritz().values) == basis.size == 4


@pytest.mark.parametrize("size", [2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_bound_holds_and_is_the_norm_of_the_tracked_components(size: int, seed: int) -> None:
    """In small spaces the start has a large component, which a bound that is too small denies."""
    values = torch.arange(1.0, size + 1, dtype=torch.float64)
    basis = KrylovBasis(symmetric_product(torch.diag(values)), size, seed=seed)
    start = basis.vectors[0].abs()
    basis.watch(np.array([float(size)]))
    assert basis.hidden.tolist() == [1.0]
    for step in range(1, size):
        basis.extend()
        assert float(start[-1]) <= basis.hidden[0] * (1 + 1e-12)
        followed = basis.vectors[: step + 1, -1] / basis.vectors[0, -1]
        assert basis.hidden[0] == pytest.approx(1 / float(followed.norm()), rel=1e-10)


def test_new_basis_knows_nothing_of_the_norm() -> None:
    for matrix in (MATRIX, 1e-3 * MATRIX, torch.zeros(9, 9, dtype=torch.float64)):
        basis = KrylovBasis(symmetric_product(matrix), 5, seed=0)
        assert (basis.beta, basis.scale) == (0, 0)
        for _ in range(5):
            basis.extend()
        largest = np.abs(basis.ritz().values).max()
        assert basis.scale == largest
        assert basis.scale <= float(torch.linalg.matrix_norm(matrix, 2)) * (1 + 10 * EPS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("capacity", [1, 7])
def test_forecast_is_what_the_basis_allocates(
    dtype: torch.dtype, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(krylov, "require", lambda num_bytes, *_, **__: asked.append(num_bytes))
    basis = KrylovBasis(symmetric_product(MATRIX.to(dtype)), capacity, seed=0)
    assert asked == [basis.vectors.numel() * basis.vectors.element_size()]


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_extend_refuses_a_product_that_is_not_finite(number: int, bad: float) -> None:
    made: list[int] = []

    def multiply(vector: torch.Tensor) -> torch.Tensor:
        made.append(1)
        return MATRIX @ vector * (bad if len(made) == number else 1.0)

    product = SymmetricProduct(multiply, 62, torch.float64, torch.device("cpu"))
    basis = KrylovBasis(product, 10, seed=0)
    for _ in range(number - 1):
        basis.extend()
    with pytest.raises(ValueError, match="a product with the operator must be finite, got"):
        basis.extend()


@pytest.mark.parametrize(("num_smallest", "num_largest"), [(0, 3), (2, 3), (4, 0), (1, 9)])
def test_restart_keeps_the_wanted_and_half_of_the_others(
    num_smallest: int, num_largest: int
) -> None:
    """The share decides how many products a search needs; benchmarks/eigenpairs.md has them."""
    basis = full_basis()
    search = PairSearch(basis, num_smallest, num_largest, 1e-8, 1000)
    ritz, num_wanted = basis.ritz(), num_smallest + num_largest
    search._restart(ritz, num_smallest, num_largest)
    spare = (20 - num_wanted) // 2
    at_low = num_smallest + round(spare * num_smallest / num_wanted)
    at_high = num_wanted + spare - at_low
    kept = np.concatenate([ritz.values[:at_low], ritz.values[20 - at_high :]])
    assert np.array_equal(basis.projected.diagonal()[: basis.size], kept)


def test_rotation_of_columns_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for columns in (2**16, 7, 1):
        monkeypatch.setattr(krylov, "_COLUMNS_AT_ONCE", columns)
        basis = full_basis()
        basis.restart(basis.ritz(), np.arange(12, 20))
        found.append(basis.vectors[:9].clone())
    assert (found[0] - found[1]).abs().max() <= 20 * EPS
    assert (found[0] - found[2]).abs().max() <= 20 * EPS
    assert (found[0] @ found[0].T - torch.eye(9)).abs().max() <= 50 * EPS


def test_next_vector_of_an_invariant_space_is_random_and_orthogonal() -> None:
    matrix = torch.diag(torch.tensor([2.0, 2.0, 2.0, 5.0], dtype=torch.float64))
    basis = KrylovBasis(symmetric_product(matrix), 4, seed=1)
    for _ in range(2):
        basis.extend()
    assert (basis.beta, basis.num_starts, basis.num_steps) == (0.0, 2, 0)
    kept = basis.vectors[:3]
    assert (kept @ kept.T - torch.eye(3)).abs().max() <= 20 * EPS

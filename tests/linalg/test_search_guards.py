"""What a search for eigenpairs promises, where a removed guard would break it unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from problems import EPS, matrix_with, normal
from torch import Tensor

from hesspipe.errors import NotConvergedError
from hesspipe.linalg import krylov
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import SymmetricProduct, random_unit, symmetric_product

VALUES = torch.cat(
    [-torch.linspace(3, 9, 5), torch.linspace(-1, 1, 185), torch.linspace(5, 50, 10)]
).double()
MATRIX = matrix_with(VALUES)
CPU = torch.device("cpu")


def noisy(noise: float, made: list[int]) -> SymmetricProduct:
    """Products with other errors of the relative size `noise` at each call."""

    def multiply(vector: Tensor) -> Tensor:
        made.append(1)
        image = MATRIX @ vector
        return image + noise * image.norm() * normal(len(vector), seed=len(made)) / 200**0.5

    return SymmetricProduct(multiply, 200, torch.float64, CPU)


@pytest.mark.parametrize("noise", [1e-13, 1e-11, 1e-9])
def test_eigenpairs_accepts_rounding_that_the_tolerance_allows(noise: float) -> None:
    found = eigenpairs(noisy(noise, []), num_largest=3, tolerance=1e-8)
    assert (found.eigenvalues - VALUES.sort().values[-3:]).abs().max() <= 1e-8 * 50
    vectors, values = found.eigenvectors, found.eigenvalues
    true = (MATRIX @ vectors - vectors * values).norm(dim=0)
    assert true.max() <= (1e-8 + 3 * noise) * 50


def test_residual_norms_are_those_of_the_vectors_and_not_estimates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If every estimate were taken as converged, the true residuals would still decide."""
    monkeypatch.setattr("hesspipe.linalg.thick_restart.PairSearch._allowed", lambda _: 1e9)
    with pytest.raises(NotConvergedError, match="where estimates were smaller"):
        eigenpairs(MATRIX, num_largest=5)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8, 1e-12])
def test_true_residuals_are_within_the_tolerance(tolerance: float) -> None:
    for seed in range(4):
        found = eigenpairs(MATRIX, num_smallest=3, num_largest=4, tolerance=tolerance, seed=seed)
        vectors = found.eigenvectors
        true = (MATRIX @ vectors - vectors * found.eigenvalues).norm(dim=0)
        assert true.max() <= tolerance * 50 + 100 * EPS * 50


def test_second_search_ends_where_the_bound_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may end by either criterion; by the bound, only at 1e-4 / sqrt(P)."""
    seen: list[tuple[float, float]] = []
    plain = krylov.KrylovBasis.ritz

    def ritz(basis: KrylovBasis) -> krylov.Ritz:
        found = plain(basis)
        if basis.num_locked:
            seen.append((float(basis.hidden.max()), float(found.rests[-1])))
        return found

    monkeypatch.setattr(krylov.KrylovBasis, "ritz", ritz)
    dense = torch.cat([torch.linspace(0, 1, 297), torch.tensor([3.0, 5.0, 7.0])]).double()
    eigenpairs(matrix_with(dense), num_largest=3)
    hidden, rest = seen[-1]
    assert hidden <= 1e-4 / 300**0.5 or rest <= 0.3 * 1e-8 * 7
    # The look before was not enough, so that the search did not run on for nothing either.
    assert all(hidden > 1e-4 / 300**0.5 and rest > 0.3 * 1e-8 * 7 for hidden, rest in seen[:-1])


def test_search_resumed_between_its_parts_keeps_its_scale(tmp_path: Path) -> None:
    """After a restart the Ritz values are near the ends; the scale of the other end is stored."""
    values = torch.cat([torch.linspace(0, 1, 190), torch.linspace(2, 3, 9)]).double()
    values = torch.cat([values, torch.tensor([-1e6], dtype=torch.float64)])
    matrix = matrix_with(values)
    state = tmp_path / "search.safetensors"
    options: dict[str, Any] = {"num_largest": 2, "basis_size": 12, "tolerance": 1e-12}
    whole = eigenpairs(matrix, **options)
    with pytest.raises(NotConvergedError):
        eigenpairs(matrix, **options, max_products=40, state=state)
    resumed = eigenpairs(matrix, **options, state=state)
    assert torch.equal(resumed.eigenvalues, whole.eigenvalues)
    assert resumed.num_products == whole.num_products + 1  # the test of the state


@pytest.mark.parametrize("factor", [2.0, 0.5, 2.0**40, -1.0, 1 + 1e-6])
def test_state_of_a_multiple_is_that_of_another_operator(tmp_path: Path, factor: float) -> None:
    """A power of two is divided out of the products, and must not be lost."""
    state = tmp_path / "search.safetensors"
    with pytest.raises(NotConvergedError):
        eigenpairs(MATRIX, num_largest=8, max_products=30, basis_size=20, state=state)
    with pytest.raises(ValueError, match="another operator"):
        eigenpairs(factor * MATRIX, num_largest=8, basis_size=20, state=state)


def test_random_unit_is_orthogonal_to_a_basis() -> None:
    product = symmetric_product(MATRIX)
    basis = torch.linalg.qr(normal(200, 60, seed=3)).Q.T
    for seed in range(5):
        vector = random_unit(product, torch.Generator().manual_seed(seed), basis)
        assert abs(float(vector.norm()) - 1) <= 10 * EPS
        assert (basis @ vector).abs().max() <= 10 * EPS

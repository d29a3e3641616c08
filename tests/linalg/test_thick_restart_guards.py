"""What the search for eigenpairs must not do: believe estimates, stop early, forget on resuming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, check_eigenpairs, matrix_with, normal
from torch import Tensor

from hesspipe.errors import NotConvergedError
from hesspipe.linalg import krylov
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import symmetric_product

VALUES = torch.cat(
    [-torch.linspace(3, 9, 5), torch.linspace(-1, 1, 145), torch.linspace(5, 50, 10)]
)
MATRIX = matrix_with(VALUES.double())


class Changed:
    """A matrix whose products are changed, with the number of the product."""

    def __init__(self, change: Callable[[Tensor, int], Tensor], matrix: Tensor = MATRIX) -> None:
        self.matrix, self.change, self.num_products = matrix, change, 0
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        return self.change(self.matrix @ vector, self.num_products)


def noise(size: float) -> Callable[[Tensor, int], Tensor]:
    """Noise of a relative size, another one for each product."""
    return lambda image, number: image + size * image.norm() * normal(len(image), seed=number)


def test_eigenpairs_gives_up_where_true_residuals_stay_above_their_estimates() -> None:
    # Too small for the check of symmetry; it appears in the true residuals only.
    operator = Changed(noise(1e-13))
    with pytest.raises(NotConvergedError, match="where estimates were smaller: the rou") as info:
        eigenpairs(operator, num_largest=3, tolerance=2e-14)
    converged = info.value.converged
    assert (converged.residual_norms <= 2e-14 * 50).all()


def test_eigenpairs_gives_only_residuals_below_the_tolerance() -> None:
    operator = Changed(noise(1e-13))
    for tolerance in (1e-8, 1e-10, 1e-11):
        found = eigenpairs(operator, num_largest=3, num_smallest=2, tolerance=tolerance)
        vectors = found.eigenvectors
        true = (MATRIX @ vectors - vectors * found.eigenvalues).norm(dim=0)
        assert true.max() <= 1.01 * tolerance * 50


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [3, 10, 30])
def test_eigenpairs_refuses_a_product_that_is_not_finite(number: int, bad: float) -> None:
    operator = Changed(lambda image, product: image * (bad if product == number else 1.0))
    with pytest.raises(ValueError, match="must be finite, got nan or inf"):
        eigenpairs(operator, num_largest=3)


@pytest.mark.parametrize("shrunk", [1.0, 1e-2, 1e-3])
def test_eigenpairs_finds_an_eigenvector_that_the_second_start_almost_lacks(
    shrunk: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The criterion promises to miss only what is below 1e-4 of a random start's component.
    values = torch.cat([torch.linspace(-1, 1, 200), torch.tensor([3.0, 3.0])]).double()
    draw = krylov.random_unit

    def almost_without(product: Any, random: Any, basis: Tensor) -> Tensor:
        vector = draw(product, random, basis).clone()
        if len(basis):
            vector[-2:] *= shrunk
        return vector / vector.norm()

    monkeypatch.setattr(krylov, "random_unit", almost_without)
    found = eigenpairs(torch.diag(values), num_largest=2, tolerance=1e-10)
    assert (found.eigenvalues - 3).abs().max() <= 1e-9


def test_begin_with_continues_orthogonal_to_what_it_keeps() -> None:
    basis = KrylovBasis(symmetric_product(MATRIX), 40, seed=0)
    rows = torch.linalg.qr(normal(160, 6)).Q.T
    vector = 5 * rows.T @ normal(6) + 1e-3 * normal(160, seed=3)
    basis.begin_with(rows, np.arange(6.0), vector)
    kept = basis.vectors[:7]
    assert (kept @ kept.T - torch.eye(7).double()).abs().max() <= 20 * EPS
    assert torch.equal(kept[:6], rows)
    rest = vector - rows.T @ (rows @ vector)
    assert (kept[6] - rest / rest.norm()).norm() <= 1e-10
    assert basis.projected.diagonal()[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert (basis.size, basis.num_locked, basis.num_steps) == (6, 0, 0)


@pytest.mark.parametrize("is_locked", [False, True])
def test_load_restores_everything_that_the_search_goes_on_with(is_locked: bool) -> None:
    def new() -> KrylovBasis:
        return KrylovBasis(symmetric_product(MATRIX), 30, seed=4)

    basis = new()
    while not basis.is_full:
        basis.extend()
    ritz, kept = basis.ritz(), np.arange(24, 30)
    if is_locked:
        basis.lock(ritz, kept)
        basis.watch(np.array([60.0, 70.0]))
    else:
        basis.watch(np.array([60.0, 70.0]))
        basis.restart(ritz, kept)
    for _ in range(3):
        basis.extend()
    resumed = new()
    tensors, numbers = basis.state()
    resumed.load({name: value.clone() for name, value in tensors.items()}, numbers)
    names = ("size", "num_locked", "num_steps", "num_products", "num_starts", "beta", "scale")
    for _ in range(4):
        assert {n: getattr(resumed, n) for n in names} == {n: getattr(basis, n) for n in names}
        for name in ("watched", "hidden", "_components", "projected"):
            assert np.array_equal(getattr(resumed, name), getattr(basis, name)), name
        part = slice(0, basis.size + 1)
        assert torch.equal(resumed.vectors[part], basis.vectors[part])
        basis.extend()
        resumed.extend()
    assert basis.scale == pytest.approx(50, rel=1e-3)


def test_scale_is_the_largest_value_seen_though_the_search_forgets_it() -> None:
    # Wanted at the small end only: a restart may drop the large values that decide the tolerance.
    values = torch.cat([torch.linspace(1, 2, 150), torch.tensor([1e6])]).double()
    matrix = matrix_with(values)
    found = eigenpairs(matrix, num_smallest=2, num_largest=0, basis_size=12, tolerance=1e-9)
    check_eigenpairs(found, matrix, values, 1e-9)


@pytest.mark.parametrize("multiplicity", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_eigenpairs_finds_every_copy_at_both_ends(multiplicity: int, seed: int) -> None:
    ends = torch.tensor([-7.0, 9.0]).repeat(multiplicity)
    values = torch.cat([torch.linspace(-1, 1, 120), ends]).double()
    matrix = matrix_with(values)
    options: dict[str, Any] = {"num_smallest": multiplicity + 1, "num_largest": multiplicity + 1}
    found = eigenpairs(matrix, **options, seed=seed, tolerance=1e-9, basis_size=30)
    check_eigenpairs(found, matrix, values, 1e-9)

"""Steps of a Krylov basis that are not made orthogonal to all of it, and what they may lose."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, matrix_with, normal
from torch import Tensor

from hesspipe.linalg import krylov
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import symmetric_product
from hesspipe.linalg.orthogonalization import orthogonalize_product
from hesspipe.linalg.vector_space import VectorSpace

DIM = 400
BULK = torch.linspace(-1, 1, DIM - 4, dtype=torch.float64)


def matrix_of(largest: float, dtype: torch.dtype) -> Tensor:
    """A bulk from -1 to 1 and four outliers, of which the largest is given."""
    outliers = largest * torch.tensor([1.0, 0.6, 0.3, 0.15], dtype=torch.float64)
    return matrix_with(torch.cat([BULK, outliers]), dtype)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each step has left out a part of the basis."""
    partial: list[bool] = []

    def recorded(*arguments: Any, **named: Any) -> tuple[Tensor, float, bool]:
        found = orthogonalize_product(*arguments, **named)
        partial.append(found[2])
        return found

    monkeypatch.setattr(krylov, "orthogonalize_product", recorded)
    return partial


def extended(matrix: Tensor, num_steps: int, capacity: int, seed: int = 0) -> KrylovBasis:
    basis = KrylovBasis(symmetric_product(matrix), capacity, seed=seed)
    for _ in range(num_steps):
        basis.extend()
    return basis


def overlap(basis: KrylovBasis) -> float:
    """Largest deviation of V V^T from the identity."""
    rows = basis.vectors[: basis.size + 1].double()
    return float((rows @ rows.T - torch.eye(len(rows))).abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("largest", [2.0, 10.0, 50.0, 1e3, 1e6])
@pytest.mark.parametrize("seed", [0, 1])
def test_basis_is_as_orthogonal_as_one_step_leaves_it(
    dtype: torch.dtype, largest: float, seed: int, passes: list[bool]
) -> None:
    """However large outliers are: the rounding of a step grows by their size over the bulk's."""
    eps = torch.finfo(dtype).eps
    basis = extended(matrix_of(largest, dtype), 60, 80, seed)
    assert overlap(basis) <= 10 * krylov._MOST_GROWN * eps
    if largest <= 10:  # every second step then
        assert sum(passes) >= 25
    assert not any(first and second for first, second in pairwise(passes))


@pytest.mark.parametrize("largest", [2.0, 50.0])
def test_projection_is_that_of_the_operator(largest: float) -> None:
    matrix = matrix_of(largest, torch.float64)
    basis = extended(matrix, 60, 80)
    rows = basis.vectors[:60]
    error = rows @ matrix @ rows.T - torch.from_numpy(basis.projected[:60, :60])
    assert error.abs().max() <= 500 * torch.finfo(torch.float64).eps * largest


def test_projection_has_what_locked_vectors_couple_to() -> None:
    """Residuals of locked vectors lie in later ones, so that T is not tridiagonal any more."""
    matrix = matrix_of(10.0, torch.float64)
    basis = extended(matrix, 15, 80)
    ritz = basis.ritz()
    assert ritz.rests[8] > 0.1
    basis.lock(ritz, np.array([8, 9]))
    for _ in range(6):
        basis.extend()
    basis.unlock()
    for _ in range(6):
        basis.extend()
    rows = basis.vectors[: basis.size]
    projected = torch.from_numpy(basis.projected[: basis.size, : basis.size])
    assert projected[:2, 4:].abs().max() > 1e-3
    assert (rows @ matrix @ rows.T - projected).abs().max() <= 1e-13
    assert overlap(basis) <= 1e-14


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("largest", [2.0, 10.0, 50.0, 1e3])
@pytest.mark.parametrize("locked", [[-5, -7], [-1, -2, -3, -4, -5, -6], [0, 1, -1]])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_basis_beside_locked_vectors_is_as_orthogonal_and_its_projection_right(
    dtype: torch.dtype, largest: float, locked: list[int], is_resumed: bool, passes: list[bool]
) -> None:
    """The residuals of the locked vectors are large: they have not converged."""
    eps = torch.finfo(dtype).eps
    matrix = matrix_of(largest, dtype)
    basis = extended(matrix, 25, 80)
    ritz = basis.ritz()
    chosen = np.sort(np.array(locked) % 25)
    assert ritz.rests[chosen].max() > 1e-4
    basis.lock(ritz, chosen)
    if is_resumed:
        tensors, numbers = basis.state()
        tensors = {name: value.clone() for name, value in tensors.items()}
        basis = KrylovBasis(symmetric_product(matrix), 80, seed=1)
        basis.load(tensors, numbers)
    passes.clear()
    for _ in range(30):
        basis.extend()
    rows = basis.vectors[: basis.size].double()
    projected = torch.from_numpy(basis.projected[: basis.size, : basis.size])
    assert projected[: len(locked), len(locked) + 2 :].abs().max() > 1e-6
    assert (rows @ matrix.double() @ rows.T - projected).abs().max() <= 500 * eps * largest
    assert overlap(basis) <= 10 * krylov._MOST_GROWN * eps
    if largest <= 10:
        assert sum(passes) >= 12
    assert not any(first and second for first, second in pairwise(passes))


@pytest.mark.parametrize("num_steps", [5, 6])
def test_basis_beside_locked_vectors_survives_invariant_spaces(num_steps: int) -> None:
    """After six steps there is one: the random vectors that follow are coupled to all others."""
    values = torch.cat([torch.tensor([1.0, 2.0, 3.0] * 20), torch.tensor([9.0, 8.0, 7.0])])
    matrix = matrix_with(values.double())
    basis = extended(matrix, num_steps, 40)
    basis.lock(basis.ritz(), np.arange(num_steps - 2, num_steps))
    for _ in range(20):
        basis.extend()
    assert (basis.num_starts > 4) == (num_steps == 6)
    rows = basis.vectors[: basis.size]
    projected = torch.from_numpy(basis.projected[: basis.size, : basis.size])
    assert (rows @ matrix @ rows.T - projected).abs().max() <= 500 * EPS * 9
    assert overlap(basis) <= 100 * EPS


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("is_enough", [True, False])
def test_orthogonalize_product_leaves_out_rows_where_enough_is_left(
    dtype: torch.dtype, is_enough: bool
) -> None:
    eps = torch.finfo(dtype).eps
    rows = torch.linalg.qr(normal(3000, 12, seed=2)).Q.T.to(dtype).contiguous()
    weights = torch.full((12,), 1e-4, dtype=dtype)
    weights[10:] = torch.tensor([3.0, -5.0])
    image = rows.T @ weights + normal(3000, seed=3).to(dtype) / 3000**0.5
    expected = (rows.double() @ image.double()).to(dtype)
    left = image.double() - rows.double().T @ (rows.double() @ image.double())
    coefficients, norm, is_partial = orthogonalize_product(
        image, rows, VectorSpace(3000), first_row=10, enough=0.5 if is_enough else 2.0
    )
    assert is_partial == is_enough
    if is_enough:
        assert not coefficients[:10].any()
        assert ((rows @ image)[:10] - expected[:10]).abs().max() <= 50 * eps
        expected[:10] = 0
        left += rows[:10].double().T @ (rows[:10].double() @ image.double())
    assert (coefficients - expected).abs().max() <= 50 * eps
    assert (rows @ image)[10:].abs().max() <= 10 * eps
    assert (image.double() - left).norm() <= 50 * eps
    assert abs(norm - float(left.norm())) <= 50 * eps


@pytest.mark.parametrize("enough", [0.0, 10.0])
def test_orthogonalize_product_keeps_the_digits_of_long_vectors(enough: float) -> None:
    """Sums over a million terms of one sign: the first pass is wrong by more than rounding."""
    eps, length = torch.finfo(torch.float32).eps, 2**20
    positive = normal(3, length, seed=5).abs()
    rows = torch.linalg.qr(positive.T).Q.T.float().contiguous()
    rest = normal(length, seed=6)
    rest -= rows.double().T @ (rows.double() @ rest)
    image = (rows.double().T @ torch.tensor([0.0, 3.0, -5.0]).double() + rest / rest.norm()).float()
    exact = rows.double() @ image.double()
    assert (rows[0] * rows[0]).min() >= 0
    coefficients, norm, _ = orthogonalize_product(
        image, rows, VectorSpace(length), first_row=1, enough=enough
    )
    assert (coefficients.double() - exact)[1:].abs().max() <= 10 * eps * 5
    assert (rows.double() @ image.double()).abs().max() <= 2 * eps
    assert abs(norm - 1) <= 20 * eps


def test_orthogonalize_product_goes_over_all_rows_once_too_little_is_left() -> None:
    """A product within the span, of which a first pass leaves only rounding."""
    rows = torch.linalg.qr(normal(300, 5, seed=2)).Q.T.contiguous()
    image = rows.T @ torch.tensor([0.0, 0.0, 1e-3, 2.0, 1.0], dtype=torch.float64)
    coefficients, norm, is_partial = orthogonalize_product(
        image, rows, VectorSpace(300), first_row=3, enough=1e-2
    )
    assert not is_partial
    assert abs(float(coefficients[2]) - 1e-3) <= 1e-15
    assert norm <= 1e-15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dim", [30, 5_000])
def test_give_makes_the_nearest_orthonormal_columns(dtype: torch.dtype, dim: int) -> None:
    eps = torch.finfo(dtype).eps
    matrix = torch.diag(torch.linspace(1, 2, dim, dtype=torch.float64)).to(dtype)
    basis = KrylovBasis(symmetric_product(matrix), 8, seed=0)
    rows = torch.linalg.qr(normal(dim, 4, seed=1)).Q.T.contiguous()
    rows += 1e-3 * normal(4, dim, seed=2) / dim**0.5
    basis.vectors[:4] = rows.to(dtype)
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    columns = basis.give(4)
    assert columns.shape == (dim, 4)
    assert (columns.double() - (left @ right).T).abs().max() <= 20 * eps
    assert (columns.double().T @ columns.double() - torch.eye(4)).abs().max() <= 20 * eps
    assert len(basis.vectors) == 0

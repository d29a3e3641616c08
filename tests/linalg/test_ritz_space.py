"""A growing space: its basis, Ritz matrix and residuals against those computed from the matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hesspipe.linalg.operator import symmetric_product
from hesspipe.linalg.ritz_space import RitzSpace, Workspace

SIZE, CAPACITY = 300, 24


def symmetric(seed: int, dtype: torch.dtype) -> Tensor:
    """A bulk with some outliers, in random directions."""
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randn(SIZE, SIZE, generator=draw, dtype=torch.float64)
    vectors, _ = torch.linalg.qr(numbers)
    values = torch.randn(SIZE, generator=draw, dtype=torch.float64) / 10
    values[:5] = torch.tensor([5.0, 4.9, 3.0, -2.0, 1.5])
    return ((vectors * values) @ vectors.T).to(dtype)


def require_relations(space: RitzSpace, matrix: Tensor) -> None:
    """V is orthonormal, M is V^T A V, and R^T R is that of A V - V M, up to rounding."""
    exact, basis = matrix.double(), space.basis[: space.size].double().T
    eps, gram = torch.finfo(matrix.dtype).eps, basis.T @ basis
    rounding = 50 * eps * float(exact.norm(2))
    assert torch.allclose(gram, torch.eye(space.size, dtype=torch.float64), atol=100 * eps)
    projected = basis.T @ exact @ basis
    assert torch.allclose(torch.from_numpy(space.matrix()), projected, atol=rounding)
    residuals = exact @ basis - basis @ projected
    rng = np.random.default_rng(space.size)
    coefficients = np.linalg.qr(rng.standard_normal((space.size, space.size)))[0]
    for columns in (coefficients, np.eye(space.size)):
        norms = (residuals @ torch.from_numpy(columns)).norm(dim=0)
        assert space.residual_norms(columns) == pytest.approx(norms.numpy(), abs=rounding)
    excess = torch.from_numpy(space.excess())
    scale = float(exact.norm(2))
    assert torch.allclose(excess, residuals.T @ residuals, atol=rounding * scale)


def grow(space: RitzSpace, seed: int, num_starts: int) -> None:
    """Add some vectors, then residuals of Ritz pairs, and now and then another vector."""
    draw = torch.Generator().manual_seed(seed)
    for number in range(CAPACITY):
        if number < num_starts or number % 7 == 6:
            vector = torch.randn(SIZE, generator=draw, dtype=torch.float64)
            assert space.extend(vector.to(space.product.dtype))
            continue
        pairs = np.linalg.eigh(space.matrix())[1]
        by_residual = np.argsort(space.residual_norms(pairs))
        assert space.extend_by_residual(pairs[:, by_residual[-1 - number % 2 * (space.size > 1)]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("num_starts", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_ritz_space_keeps_its_relations(dtype: torch.dtype, num_starts: int, seed: int) -> None:
    matrix = symmetric(seed, dtype)
    space = RitzSpace.begin(symmetric_product(matrix), CAPACITY, Workspace())
    grow(space, seed, num_starts)
    assert space.size == CAPACITY
    # A random vector opens a residual, and one that is closed makes room for the next.
    assert len(space.shares) == num_starts + sum(n % 7 == 6 for n in range(num_starts, CAPACITY))
    require_relations(space, matrix)


@pytest.mark.parametrize("noise", [1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ritz_space_keeps_its_relations_where_residuals_are_small(
    dtype: torch.dtype, noise: float
) -> None:
    """It begins with vectors next to eigenvectors, and residuals that are nearly equal."""
    matrix = symmetric(0, dtype)
    vectors = torch.linalg.eigh(matrix.double())[1][:, [-1, -2, -3, 0]].T
    turned = torch.stack([vectors[0] + vectors[1], vectors[0] - vectors[1], *vectors[2:]])
    draw = torch.Generator().manual_seed(1)
    errors = noise * torch.randn(turned.shape, generator=draw, dtype=torch.float64)
    errors[1] = errors[0] + 1e-3 * errors[1]
    space = RitzSpace.begin(symmetric_product(matrix), CAPACITY, Workspace())
    for vector in (turned + errors).to(dtype):
        assert space.extend(vector)
    for number in range(12):
        order = np.linalg.eigh(space.matrix())[1]
        space.extend_by_residual(order[:, (-1, 0, -2)[number % 3]])
        require_relations(space, matrix)


@pytest.mark.parametrize("seed", range(3))
def test_residual_of_canceling_residuals_is_a_unit_vector(seed: int) -> None:
    """Two images have nearly the same part outside of the space."""
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randn(SIZE, 4, generator=draw, dtype=torch.float64)
    vectors, _ = torch.linalg.qr(numbers)
    cosine, sine = float(np.cos(0.07)), float(np.sin(0.07))
    entries = [[1, 0, 1, 0], [0, 1, cosine, sine], [1, cosine, 0, 0], [0, sine, 0, 0]]
    matrix = vectors @ torch.tensor(entries, dtype=torch.float64) @ vectors.T
    space = RitzSpace.begin(symmetric_product(matrix.float()), CAPACITY, Workspace())
    assert all(space.extend(vector) for vector in vectors.T[:2].float())
    unit, length = space.residual(np.array([1.0, -1.0]) / 2**0.5)
    assert length == pytest.approx(np.hypot(1 - cosine, sine) / 2**0.5, rel=1e-4)
    assert float(unit.double().norm()) == pytest.approx(1, abs=10 * torch.finfo(unit.dtype).eps)


def test_extend_by_residual_refuses_rounding_and_a_full_space() -> None:
    matrix = torch.diag(torch.arange(1.0, 6.0, dtype=torch.float64))
    space = RitzSpace.begin(symmetric_product(matrix), 2, Workspace())
    assert space.extend(torch.eye(5, dtype=torch.float64)[0])
    assert not space.extend_by_residual(np.ones(1))
    assert not space.extend(torch.eye(5, dtype=torch.float64)[0])
    assert space.extend(torch.ones(5, dtype=torch.float64))
    assert not space.extend_by_residual(np.array([0.0, 1.0]))
    assert not space.extend(torch.eye(5, dtype=torch.float64)[3])
    assert space.size == 2

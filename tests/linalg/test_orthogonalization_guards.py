"""How often Gram-Schmidt passes over a vector, which decides both its cost and its accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from problems import EPS, normal
from torch import Tensor

from hesspipe.linalg.orthogonalization import orthogonalize


@dataclass
class CountedBasis:
    """Orthonormal rows that count the products with vectors."""

    rows: Tensor
    products: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __matmul__(self, vector: Tensor) -> Tensor:
        self.products.append(float(vector.norm()))
        return self.rows @ vector

    @property
    def T(self) -> Tensor:
        return self.rows.T

    def new_zeros(self, size: int) -> Tensor:
        return self.rows.new_zeros(size)


def basis_of(num_rows: int, dim: int) -> CountedBasis:
    return CountedBasis(torch.linalg.qr(normal(dim, num_rows, seed=2)).Q.T.contiguous())


@pytest.mark.parametrize("size", [1e-100, 1e-9, 1.0, 1e9])
def test_orthogonalize_passes_twice_over_a_general_vector(size: float) -> None:
    basis = basis_of(5, 100)
    found, _, norm = orthogonalize(size * normal(100), basis)  # type: ignore[arg-type]
    assert len(basis.products) == 2
    assert (basis.rows @ found).norm() <= 10 * EPS * norm


@pytest.mark.parametrize(("shrunk", "num_passes"), [(0.75, 2), (0.6, 3), (0.3, 3), (0.01, 3)])
def test_orthogonalize_passes_again_after_a_pass_that_shrinks(
    shrunk: float, num_passes: int
) -> None:
    # The second pass shrinks the vector by this factor, because the first left so much undone.
    class Forgetful(CountedBasis):
        def __matmul__(self, vector: Tensor) -> Tensor:
            factor = 1.0 if self.products else 1 - (1 / shrunk**2 - 1) ** 0.5 / float(inside.norm())
            return factor * super().__matmul__(vector)

    rows = basis_of(5, 100).rows
    outside = normal(100, seed=3)
    outside -= rows.T @ (rows @ outside)
    inside = rows.T @ normal(5)
    basis = Forgetful(rows)
    found, coefficients, norm = orthogonalize(
        inside + outside / outside.norm(),
        basis,  # type: ignore[arg-type]
    )
    assert len(basis.products) == num_passes
    assert basis.products[1] * shrunk == pytest.approx(1.0)
    assert norm == pytest.approx(1.0)
    assert (coefficients - rows @ inside).norm() <= 10 * EPS * inside.norm()
    assert (found - outside / outside.norm()).norm() <= 20 * EPS * basis.products[1]


def test_orthogonalize_stops_after_five_passes_inside_the_span() -> None:
    basis = basis_of(30, 30)  # all of the space, so that every pass shrinks
    vector = normal(30)
    _, coefficients, norm = orthogonalize(vector, basis)  # type: ignore[arg-type]
    assert len(basis.products) == 5
    assert norm <= EPS**3
    assert (coefficients - basis.rows @ vector).norm() <= 20 * EPS * vector.norm()


def test_orthogonalize_passes_once_over_zero() -> None:
    basis = basis_of(5, 30)
    found, coefficients, norm = orthogonalize(torch.zeros(30).double(), basis)  # type: ignore[arg-type]
    assert len(basis.products) == 1
    assert norm == 0
    assert not found.any()
    assert not coefficients.any()

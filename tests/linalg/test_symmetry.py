"""What counts as symmetric: rounding of canceled terms does, a wrong entry does not."""

from __future__ import annotations

import pytest
import torch
from problems import EPS, matrix_with, normal
from torch import Tensor

import hesspipe
from hesspipe.linalg.operator import symmetric_product


class Product:
    """An operator that is known by its products only."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.num_products = matrix, 0
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        return self.multiply(vector)

    def multiply(self, vector: Tensor) -> Tensor:
        return self.matrix @ vector


class Canceling(Product):
    """Products as differences of numbers that are `size` times larger."""

    def __init__(self, matrix: Tensor, size: float) -> None:
        super().__init__(matrix)
        self.other = size * float(matrix.norm()) * normal(*matrix.shape, seed=3) / len(matrix)

    def multiply(self, vector: Tensor) -> Tensor:
        return (self.matrix + self.other) @ vector - self.other @ vector


def spread(size: int = 60) -> Tensor:
    return matrix_with(torch.logspace(-8, 0, size, dtype=torch.float64))


@pytest.mark.parametrize("size", [1e1, 1e3, 1e4])
def test_products_of_canceled_terms_count_as_symmetric(size: float) -> None:
    operator = Canceling(spread(), size)
    assert symmetric_product(operator).dim == 60
    assert operator.num_products <= 3


@pytest.mark.parametrize("kind", ["everywhere", "in one entry", "in a small block"])
@pytest.mark.parametrize("size", [0.0, 1e3])
@pytest.mark.parametrize("relative", [1e-6, 1e-3])
def test_operators_that_are_asymmetric_are_refused(kind: str, size: float, relative: float) -> None:
    matrix = spread()
    error = torch.zeros_like(matrix)
    if kind == "everywhere":
        error = normal(60, 60)
    elif kind == "in one entry":
        error[3, 40] = 1.0
    else:
        error[:3, :3] = normal(3, 3)
    wrong = matrix + relative * float(matrix.norm()) * error / error.norm()
    operator = Canceling(wrong, size) if size else Product(wrong)
    with pytest.raises(ValueError, match="operator must be symmetric"):
        symmetric_product(operator)


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e-9, 1e-14])
def test_small_blocks_of_a_matrix_with_rounding_count_as_symmetric(scale: float) -> None:
    whole = normal(40, 40)
    whole = whole + whole.T
    whole[:6] *= scale
    whole[:, :6] *= scale
    whole[6:, :6] = whole[:6, 6:].T
    rounded = whole + EPS * normal(40, 40, seed=5) * float(whole.abs().max())
    is_member = torch.arange(40) < 6
    for block in (hesspipe.DiagonalBlock(each, is_member) for each in (rounded, Product(rounded))):
        found = hesspipe.estimate_norms(block, num_products=6)
        assert abs(found.trace.value - float(whole[:6, :6].trace())) <= 1e3 * EPS


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_blocks_that_are_asymmetric_are_refused(scale: float) -> None:
    whole = normal(40, 40)
    whole = whole + whole.T
    whole[:6] *= scale
    whole[:, :6] *= scale
    whole[0, 1] += 1e-6 * scale
    block = hesspipe.DiagonalBlock(Product(whole), torch.arange(40) < 6)
    with pytest.raises(ValueError, match="operator must be symmetric"):
        hesspipe.density(block, num_steps=3)

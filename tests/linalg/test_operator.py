"""Symmetric operators: what counts as one, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import EPS, matrix_with, normal
from scipy.sparse.linalg import aslinearoperator

from hesspipe.linalg.operator import random_unit, symmetric_product


def test_symmetric_product_accepts_tensors_arrays_and_scipy_operators() -> None:
    matrix = matrix_with(torch.linspace(-1, 3, 30, dtype=torch.float64))
    vector = normal(30)
    for operator in (matrix, matrix.numpy(), aslinearoperator(matrix.numpy())):
        product = symmetric_product(operator)
        assert (product.dim, product.dtype, product.name) == (30, torch.float64, "operator")
        assert (product.multiply(vector) - matrix @ vector).norm() <= 20 * EPS * 3 * vector.norm()
    assert symmetric_product(product) is product


def test_symmetric_product_names_an_object_that_is_not_an_operator() -> None:
    with pytest.raises(TypeError, match=r"operator must have shape, dtype and @.* got str"):
        symmetric_product("hessian")


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (torch.ones(3, 2), r"operator must be square, got shape \(3, 2\)"),
        (np.triu(np.ones((5, 5))), "operator must be symmetric, got a bilinear form"),
        (torch.eye(3, dtype=torch.int64), "operator must be real and of floating point"),
        (torch.full((3, 3), torch.nan), "a product with the operator must be finite, got nan"),
    ],
    ids=["square", "symmetric", "real", "finite"],
)
def test_symmetric_product_refuses_other_operators(operator: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symmetric_product(operator)


def test_random_unit_is_orthogonal_to_the_basis() -> None:
    product = symmetric_product(torch.eye(50, dtype=torch.float64))
    basis = torch.linalg.qr(normal(50, 49)).Q.T.contiguous()
    unit = random_unit(product, torch.Generator().manual_seed(0), basis)
    assert abs(float(unit.norm()) - 1) <= 4 * EPS
    assert (basis @ unit).abs().max() <= 10 * EPS

"""Symmetric operators: what counts as one, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, matrix_with, normal
from scipy.sparse.linalg import aslinearoperator

import hesspipe
from hesspipe.linalg.density import density
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.operator import SymmetricProduct, random_unit, scaled, symmetric_product
from hesspipe.linalg.trace import estimate_norms


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
        (torch.ones(0, 0), r"operator must have at least one row, got shape \(0, 0\)"),
        (np.ones((0, 0)), r"operator must have at least one row, got shape \(0, 0\)"),
        (torch.eye(9).half(), "operator must be of float64 or float32, got dtype torch.float16"),
        (torch.eye(9).bfloat16(), "must be of float64 or float32, got dtype torch.bfloat16"),
        (np.eye(9, dtype=np.float16), "must be of float64 or float32, got dtype torch.float16"),
        (np.eye(9, dtype=np.longdouble), "operator must be real and of floating point"),
        (np.eye(9).astype(object), "operator must be real and of floating point, got dtype object"),
        (np.array([["a", "b"], ["c", "d"]]), "operator must be real and of floating point"),
        (torch.eye(3, device="meta"), "operator must hold numbers, got .* meta device"),
    ],
    ids=[
        "square", "symmetric", "real", "finite", "empty", "empty array", "half", "bfloat16",
        "half array", "long double", "objects", "text", "meta",
    ],
)  # fmt: skip
def test_symmetric_product_refuses_other_operators(operator: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symmetric_product(operator)


class _Operator:
    """An operator with any attributes."""

    def __init__(self, shape: Any, dtype: Any, result: Any) -> None:
        self.shape, self.dtype, self.result = shape, dtype, result

    def __matmul__(self, vector: Any) -> Any:
        return self.result


@pytest.mark.parametrize("call", [eigenpairs, density, estimate_norms, hesspipe.spectrum])
@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (
            SimpleNamespace(shape=(3, 3), dtype=torch.float64),
            "must (be|have) .* got SimpleNamespace",
        ),
        (torch.Tensor, "must .*@.* got _TensorMeta"),
        (_Operator(None, torch.float64, None), "operator must have a shape of two integers, got N"),
        (_Operator((3.0, 3.0), torch.float64, None), r"a shape of two integers, got \(3.0, 3.0\)"),
        (_Operator((9, 9), torch.float64, None), "a product .* must be a tensor, .*got NoneType"),
        (_Operator((9, 9), torch.float64, [1.0] * 9), "a product .* must be a tensor, .*got list"),
    ],
    ids=["no product", "class", "no shape", "decimals", "nothing", "list"],
)
def test_every_method_names_an_object_that_is_not_an_operator(
    operator: Any, message: str, call: Callable[[Any], object]
) -> None:
    with pytest.raises(TypeError, match=message):
        call(operator)


@pytest.mark.parametrize("kind", ["other byte order", "gradient", "sparse"])
def test_eigenpairs_of_unusual_storage_are_those_of_the_matrix(kind: str) -> None:
    matrix = matrix_with(torch.linspace(-1, 3, 30, dtype=torch.float64))
    operator = {
        "other byte order": matrix.numpy().astype(np.dtype(np.float64).newbyteorder()),
        "gradient": matrix.clone().requires_grad_(),
        "sparse": matrix.to_sparse(),
    }[kind]
    found = eigenpairs(operator, num_largest=1, num_smallest=1)
    assert (found.eigenvalues - torch.tensor([-1.0, 3.0])).abs().max() <= 100 * EPS


def test_random_unit_is_orthogonal_to_the_basis() -> None:
    product = symmetric_product(torch.eye(50, dtype=torch.float64))
    basis = torch.linalg.qr(normal(50, 49)).Q.T.contiguous()
    unit = random_unit(product, torch.Generator().manual_seed(0), basis)
    assert abs(float(unit.norm()) - 1) <= 4 * EPS
    assert (basis @ unit).abs().max() <= 10 * EPS


@pytest.mark.parametrize(
    ("entries", "is_finite"),
    [
        ([1e308] * 4, True),  # their sum overflows
        ([1e308, -1e308, 1e308, 1e308], True),
        ([math.inf, -math.inf, 1.0, 1.0], False),
        ([1.0, 1.0, 1.0, math.nan], False),
        ([-math.inf, 0.0, 0.0, 0.0], False),
    ],
)
def test_scaled_refuses_exactly_the_products_that_are_not_finite(
    entries: list[float], is_finite: bool
) -> None:
    image = torch.tensor(entries, dtype=torch.float64)
    plain = SymmetricProduct(lambda _: image, 4, torch.float64, torch.device("cpu"))
    product, scaling = scaled(plain)
    if not is_finite:
        with pytest.raises(ValueError, match="must be finite"):
            product.multiply(image)
        return
    assert torch.equal(product.multiply(image) * scaling.unit, image)
    assert torch.equal(image, torch.tensor(entries, dtype=torch.float64))


@pytest.mark.parametrize("exponent", [-900, -130, -119, 0, 1, 119, 130, 1000])
def test_scaled_divides_by_powers_of_two_exactly(exponent: int) -> None:
    image = torch.tensor([1.5, -3.0, 0.75], dtype=torch.float64) * 2.0**exponent
    plain = SymmetricProduct(lambda _: image, 3, torch.float64, torch.device("cpu"))
    found = scaled(plain)[0].multiply(image)
    assert torch.equal(found, torch.tensor([0.75, -1.5, 0.375], dtype=torch.float64))
    assert found is not image

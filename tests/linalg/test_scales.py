"""Operators whose squares are out of range, and products that are none: right, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from problems import check_eigenpairs, matrix_with, normal
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from hesspipe.errors import NotConvergedError
from hesspipe.linalg.density import density
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.operator import SymmetricProduct, symmetric_product
from hesspipe.linalg.trace import estimate_norms

VALUES = torch.cat([torch.linspace(-1, 1, 55), torch.tensor([-7.0, 5.0, 5.0, 9.0, 20.0])]).double()
SIZE = len(VALUES)
CPU = torch.device("cpu")
# Squares of 1e-24 and 1e30 are out of range in float32, those of 1e-200 and 1e200 in float64.
SCALES = [
    (torch.float32, 1e-28), (torch.float32, 1e-24), (torch.float32, 1e30),
    (torch.float64, 1e-285), (torch.float64, 1e-200), (torch.float64, 1e200),
    (torch.float64, 1e300),
]  # fmt: skip


def product_of(matrix: Tensor) -> SymmetricProduct:
    return SymmetricProduct(matrix.__matmul__, len(matrix), matrix.dtype, CPU)


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_eigenpairs_are_right_at_any_scale(dtype: torch.dtype, scale: float) -> None:
    matrix = (matrix_with(VALUES) * scale).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    found = eigenpairs(matrix, num_smallest=2, num_largest=4, tolerance=tolerance)
    expected = VALUES.sort().values[[0, 1, -4, -3, -2, -1]]
    assert (found.eigenvalues / scale - expected).abs().max() <= 20 * tolerance * 20
    assert 0 < float(found.residual_norms.max()) <= tolerance * 20.1 * scale
    # The residual norms are true ones: computed again, in float64 and at the scale of one.
    vectors = found.eigenvectors.double()
    again = matrix_with(VALUES) @ vectors - vectors * (found.eigenvalues / scale)
    allowed = 100 * torch.finfo(dtype).eps * 20
    assert (again.norm(dim=0) - found.residual_norms / scale).abs().max() <= allowed


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_counts_and_norms_are_right_at_any_scale(dtype: torch.dtype, scale: float) -> None:
    matrix = (matrix_with(VALUES) * scale).to(dtype)
    found = density(matrix, num_steps=30)
    for threshold, number in ((3.0, 4), (7.0, 2), (-3.0, 59), (0.31, 23)):
        count = found.count(low=threshold * scale)
        assert count.low <= number <= count.high
        assert count.high - count.low <= (25 if threshold == 0.31 else 12)
    assert found.moment(1).estimate == pytest.approx(float(VALUES.sum()) * scale, abs=1e3 * scale)
    for num_products in (12, 30, 100):
        norms = estimate_norms(matrix, num_products=num_products)
        eps = 1e3 * torch.finfo(dtype).eps
        for estimate, exact in (
            (norms.trace, float(VALUES.sum())), (norms.frobenius_norm, float(VALUES.norm())),
        ):  # fmt: skip
            error = abs(estimate.value / scale - exact)
            assert error <= 6 * estimate.standard_error / scale + eps * 60


def test_scale_by_a_power_of_two_changes_no_bit() -> None:
    matrix = matrix_with(VALUES)
    for power in (-600, 40):
        factor = 2.0**power
        one, other = (density(each, num_steps=20) for each in (matrix, matrix * factor))
        assert torch.equal(one.nodes * factor, other.nodes)
        assert torch.equal(one.weights, other.weights)
        first, second = (
            estimate_norms(each, num_products=20) for each in (matrix, matrix * factor)
        )
        assert first.trace.value * factor == second.trace.value
        assert first.frobenius_norm.value * factor == second.frobenius_norm.value


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e-36), (torch.float64, 1e-300)])
def test_products_that_have_lost_digits_are_refused(dtype: torch.dtype, scale: float) -> None:
    product = product_of((matrix_with(VALUES) * scale).to(dtype))
    for function in (pairs_of, density_of, estimate_norms):
        with pytest.raises(ValueError, match="so small that its products lose digits"):
            function(product)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_squared_norm_out_of_range_is_refused(scale: float) -> None:
    found = estimate_norms(scale * torch.diag(VALUES))
    with pytest.raises(
        ValueError, match=r"squared_frobenius_norm must be in the range of float64, got the square"
    ):
        _ = found.squared_frobenius_norm
    assert found.frobenius_norm.value == pytest.approx(float(VALUES.norm()) * scale)


def pairs_of(operator: Any) -> Any:
    return eigenpairs(operator, num_largest=3, tolerance=1e-5)


def density_of(operator: Any) -> Any:
    return density(operator, num_steps=20)


FUNCTIONS: list[Callable[[Any], Any]] = [pairs_of, density_of, estimate_norms]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 2, 7])
def test_product_that_is_not_finite_is_named(function: Any, bad: float, step: int) -> None:
    matrix, made = matrix_with(VALUES), []

    def multiply(vector: Tensor) -> Tensor:
        made.append(1)
        image = matrix @ vector
        image[3] = bad if len(made) == step else image[3]
        return image

    message = f"a product with the operator must be finite, got nan or inf in product {step}"
    with pytest.raises(ValueError, match=message):
        function(SymmetricProduct(multiply, SIZE, torch.float64, CPU))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda image: image + 0j, TypeError, "must be of torch.float64, .* got torch.complex128"),
        (lambda image: image.float(), TypeError, "must be of torch.float64, .* got torch.float32"),
        (lambda image: image[:, None], ValueError, r"vector of length 60, got shape \(60, 1\)"),
        (lambda image: image[:-1], ValueError, r"vector of length 60, got shape \(59,\)"),
        (lambda image: image.sum(), ValueError, r"vector of length 60, got shape \(\)"),
    ],
    ids=["complex", "precision", "column", "shorter", "number"],
)
def test_product_of_another_kind_is_refused(
    function: Any, change: Any, error: type[Exception], message: str
) -> None:
    matrix = matrix_with(VALUES)
    product = SymmetricProduct(lambda vector: change(matrix @ vector), SIZE, torch.float64, CPU)
    with pytest.raises(error, match=message):
        function(product)


@pytest.mark.parametrize(
    ("operator", "error"),
    [
        (np.eye(3) * 1j, ValueError), (torch.eye(3) * 1j, ValueError),
        (np.eye(3, dtype=int), ValueError), (np.array([[None] * 3] * 3), ValueError),
        (np.eye(3, dtype=np.longdouble), ValueError), (np.zeros((0, 0)), ValueError),
        (np.ones(3), ValueError), (3.0, TypeError), (None, TypeError), ([[1.0]], TypeError),
        (LinearOperator((3, 3), matvec=lambda vector: 1j * vector, dtype=float), TypeError),
    ],
)  # fmt: skip
def test_symmetric_product_refuses_what_is_no_real_symmetric_matrix(
    operator: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="operator"):
        symmetric_product(operator)


@pytest.mark.parametrize("size", [5, 60, 300])
@pytest.mark.parametrize("asymmetry", [1.0, 1e-3, 1e-9])
def test_asymmetry_is_refused(size: int, asymmetry: float) -> None:
    matrix = matrix_with(normal(size, seed=1))
    skewed = matrix + asymmetry * normal(size, size, seed=2) / size**0.5
    with pytest.raises(ValueError, match="operator must be symmetric, got a bilinear form"):
        symmetric_product(skewed)
    if asymmetry > 1e-7:  # without that check, by Lanczos itself
        with pytest.raises(ValueError, match="must be symmetric and the same in every product"):
            density(product_of(skewed), num_steps=4)
    else:  # an asymmetry that is not refused widens the intervals
        found = density(product_of(skewed), num_steps=4)
        assert found.resolution > 1e-11


@pytest.mark.parametrize("change", [1e-2, 1e-5])
def test_operator_that_changes_is_refused(change: float) -> None:
    matrix, made = matrix_with(VALUES), []

    def multiply(vector: Tensor) -> Tensor:
        made.append(1)
        return (1 + change * math.sin(len(made))) * (matrix @ vector)

    product = SymmetricProduct(multiply, SIZE, torch.float64, CPU)
    with pytest.raises(ValueError, match="must be symmetric and the same in every product"):
        density(product, num_steps=20)
    with pytest.raises(NotConvergedError):
        eigenpairs(product, num_largest=3, max_products=2000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", [[0.0], [-3.0], [0.0, 0.0], [1.0, 1.0], [-1.0, 2.0]])
def test_smallest_matrices_are_right(values: list[float], dtype: torch.dtype) -> None:
    exact = torch.tensor(values, dtype=torch.float64)
    matrix, size = matrix_with(exact).to(dtype), len(values)
    check_eigenpairs(
        eigenpairs(matrix, num_largest=size, tolerance=1e-5), matrix, exact, 1e-5
    ) if exact.any() else None
    found = estimate_norms(matrix)
    assert found.trace.value == pytest.approx(float(exact.sum()), abs=1e-5)
    assert found.num_products == size
    count = density(matrix, num_steps=size).count(low=9.0)
    assert (count.low, count.high) == (0, 0)
    with pytest.raises(ValueError, match=f"num_steps must be 1 to P = {size}, got {size + 1}"):
        density(matrix, num_steps=size + 1)

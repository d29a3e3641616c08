"""The unit of an operator's products, and which of them is named when one is wrong."""

from __future__ import annotations

import pytest
import torch

from hesspipe.linalg.operator import SymmetricProduct, scaled, symmetric_product


@pytest.mark.parametrize("exponent", [-900, -1, 0, 1, 5, 900])
def test_scaled_divides_by_the_power_of_two_at_the_first_product(exponent: int) -> None:
    matrix = torch.diag(torch.tensor([0.0, 1.0, -1.5, 0.5], dtype=torch.float64))
    product, scaling = scaled(symmetric_product(2.0**exponent * matrix))
    assert (scaling.unit, scaling.num_products) == (1.0, 0)
    zero = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert not product.multiply(zero).any()
    assert (scaling.exponent, scaling.unit, scaling.num_products) == (None, 1.0, 1)
    vector = torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    for number in (2, 3):
        assert torch.equal(product.multiply(vector), matrix @ vector)
        assert (scaling.exponent, scaling.num_products) == (exponent, number)
    assert scaling.unit == 2.0**exponent


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image * torch.nan, "must be finite, got nan or inf in product {}$"),
        (lambda image: image[:-1], r"a vector of length 4, got shape \(3,\) in product {}$"),
        (lambda image: image.float(), "must be of torch.float64, .* torch.float32 in product {}$"),
    ],
    ids=["finite", "length", "type"],
)
def test_scaled_names_the_product_that_is_wrong(number: int, change, message: str) -> None:  # type: ignore[no-untyped-def]
    made: list[int] = []

    def multiply(vector: torch.Tensor) -> torch.Tensor:
        made.append(1)
        return change(2 * vector) if len(made) == number else 2 * vector

    product, _ = scaled(SymmetricProduct(multiply, 4, torch.float64, torch.device("cpu")))
    for _ in range(number - 1):
        product.multiply(torch.ones(4, dtype=torch.float64))
    with pytest.raises((ValueError, TypeError), match=message.format(number)):
        product.multiply(torch.ones(4, dtype=torch.float64))

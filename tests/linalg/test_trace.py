"""Trace and Frobenius norm against exact sums, over repetitions."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from problems import EPS, matrix_with
from torch import Tensor

from hesspipe.linalg.trace import NormEstimates, estimate_norms

SPECTRA: dict[str, Tensor] = {
    "outliers": torch.cat([torch.linspace(-1, 1, 140), torch.linspace(20, 50, 10)]).double(),
    "flat": torch.linspace(-3, 5, 150).double(),
}


COUNTS = [45, 60]  # of products: by XTrace, and by Hutch++


@functools.cache
def repeat(name: str, num_products: int) -> list[NormEstimates]:
    matrix = matrix_with(SPECTRA[name])
    return [estimate_norms(matrix, num_products=num_products, seed=seed) for seed in range(100)]


@pytest.mark.parametrize("num_products", COUNTS)
@pytest.mark.parametrize("name", SPECTRA)
def test_estimates_have_no_bias_and_true_standard_errors(name: str, num_products: int) -> None:
    values = SPECTRA[name]
    found = repeat(name, num_products)
    for exact, estimates in (
        (float(values.sum()), [one.trace for one in found]),
        (float(values.square().sum()), [one.squared_frobenius_norm for one in found]),
    ):
        errors = torch.tensor([one.value - exact for one in estimates])
        stated = torch.tensor([one.standard_error for one in estimates])
        assert abs(errors.mean()) <= 4 * errors.std() / math.sqrt(len(errors))
        # The mean of the stated variances is the variance; that of 100 squares is off by 14 %.
        ratio = errors.square().mean() / stated.square().mean()
        assert abs(ratio - 1) <= 4 * math.sqrt(2 / len(errors))


@pytest.mark.parametrize("num_products", COUNTS)
def test_large_directions_make_the_errors_small(num_products: int) -> None:
    """The guard of Q: plain averages over random signs vary about 10 times as much."""
    found = repeat("outliers", num_products)
    spread = torch.tensor([one.trace.value for one in found]).std()
    # Hutchinson's variance for random signs is 2 (||A||_F^2 - sum of A_ii^2), per vector.
    matrix = matrix_with(SPECTRA["outliers"])
    plain = math.sqrt(
        2 * float(matrix.square().sum() - matrix.diagonal().square().sum()) / num_products
    )
    assert spread < plain / 5


def test_operator_of_small_rank_or_size_is_exact() -> None:
    values = torch.cat([torch.zeros(90), torch.tensor([-3.0] * 4 + [1.0] * 6)]).double()
    found = estimate_norms(matrix_with(values), num_products=40)
    assert abs(found.trace.value + 6) <= 100 * EPS * 10
    assert abs(found.squared_frobenius_norm.value - 42) <= 100 * EPS * 100
    assert found.trace.standard_error <= 100 * EPS * 10
    small = estimate_norms(torch.diag(torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)))
    assert small.trace.value == pytest.approx(3, abs=100 * EPS)
    assert small.frobenius_norm.value == pytest.approx(math.sqrt(21), abs=100 * EPS)
    assert small.trace.standard_error == small.frobenius_norm.standard_error == 0
    zero = estimate_norms(torch.zeros(3, 3))
    assert (zero.trace.value, zero.frobenius_norm.value) == (0, 0)


def test_too_few_products_are_refused() -> None:
    with pytest.raises(ValueError, match="num_products must be at least 6, got 5"):
        estimate_norms(torch.eye(3), num_products=5)

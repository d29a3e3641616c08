"""Which estimator is the default, and the range of what is estimated."""

from __future__ import annotations

import math

import pytest
import torch
from problems import EPS, matrix_with

from hesspipe.linalg import trace
from hesspipe.linalg.trace import Estimate, NormEstimates, estimate_norms

VALUES = torch.cat([torch.linspace(-1, 1, 92), torch.linspace(5, 20, 8)]).double()
MATRIX = matrix_with(VALUES)


@pytest.mark.parametrize(("num_products", "name"), [
    (6, "_exchangeable"), (58, "_exchangeable"), (59, "_exchangeable"),
    (60, "_independent"), (99, "_independent"), (100, "_exact"), (300, "_exact"),
])  # fmt: skip
def test_estimate_norms_chooses_the_estimator_by_the_products(
    num_products: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for each in ("_exchangeable", "_independent", "_exact"):
        plain = getattr(trace, each)
        monkeypatch.setattr(
            trace, each, lambda *a, each=each, plain=plain: (called.append(each), plain(*a))[1]
        )
    found = estimate_norms(MATRIX, num_products=num_products)
    assert called == [name]
    assert found.num_products == min(num_products - num_products % 2 * (num_products < 60), 100)


@pytest.mark.parametrize("num_products", [6, 9, 30])
def test_forecast_of_memory_counts_the_vectors_that_are_held(
    num_products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype, size in ((torch.float64, 8), (torch.float32, 4)):
        asked: list[int] = []
        monkeypatch.setattr(
            trace, "require", lambda number, *_, asked=asked, **__: asked.append(number)
        )
        estimate_norms(MATRIX.to(dtype), num_products=num_products)
        assert asked == [4 * (num_products // 2) * 100 * size]
        estimate_norms(MATRIX.to(dtype), num_products=num_products + 60)
        assert asked[1:] == [3 * ((num_products + 60) // 3) * 100 * size]


@pytest.mark.parametrize("exponent", [-480, -300, -30, 0, 30, 300, 480])
def test_squared_norm_is_given_throughout_its_range(exponent: int) -> None:
    scale = 2.0**exponent
    found = estimate_norms(scale * MATRIX, num_products=100)
    norm = float(VALUES.norm())
    assert found.frobenius_norm.value == pytest.approx(scale * norm, rel=100 * EPS)
    square = found.squared_frobenius_norm
    assert square.value == pytest.approx(scale * (scale * norm**2), rel=100 * EPS)
    assert found.trace.value == pytest.approx(scale * float(VALUES.sum()), rel=1e3 * EPS)


@pytest.mark.parametrize("exponent", [-520, 510])
def test_squared_norm_beyond_its_range_is_refused(exponent: int) -> None:
    found = estimate_norms(2.0**exponent * MATRIX, num_products=100)
    with pytest.raises(ValueError, match="squared_frobenius_norm must be in the range of float64"):
        _ = found.squared_frobenius_norm
    assert math.isfinite(found.frobenius_norm.value)


def test_error_of_the_norm_ends_at_zero() -> None:
    """A standard error larger than the value leaves the norm with an error of its own size."""
    estimates = NormEstimates(Estimate(1.0, 1.0), Estimate(4.0, 9.0), 8.0, 6)
    assert estimates.frobenius_norm == Estimate(16.0, 16.0)
    assert estimates.squared_frobenius_norm == Estimate(256.0, 576.0)
    assert Estimate(2.0, 0.5).times(4.0) == Estimate(8.0, 2.0)

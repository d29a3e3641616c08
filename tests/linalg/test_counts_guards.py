"""Numbers between two thresholds, and how the stated risk is shared among the parts of a count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from problems import normal
from torch import Tensor

from hesspipe.linalg import counts
from hesspipe.linalg.counts import Sample
from hesspipe.linalg.density import density
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.spectral_density import Density

SIZE = 600


def bulk(seed: int, size: int = SIZE) -> Tensor:
    """A bulk that a few steps cannot resolve, and outliers at both ends."""
    values = normal(size, seed=seed)
    values[:3], values[3:6] = torch.tensor([-20.0, -15.0, -9.0]), torch.tensor([8.0, 12.0, 30.0])
    return values.sort().values


def density_of(values: Tensor, num_probes: int = 3, seed: int = 0) -> Density:
    product = SymmetricProduct(
        lambda vector: values * vector, len(values), torch.float64, torch.device("cpu")
    )
    return density(product, num_probes=num_probes, num_steps=20, seed=seed)


def middle(values: Tensor, share: float) -> float:
    """A threshold between two eigenvalues, by the share of those below."""
    index = int(share * (len(values) - 2))
    return float(values[index] + values[index + 1]) / 2


@pytest.mark.parametrize("num_probes", [1, 2, 3, 6])
def test_count_between_two_thresholds_holds_the_number(num_probes: int) -> None:
    shares = [0.02, 0.3, 0.31, 0.8, 0.999]
    for seed in range(2):
        values = bulk(seed)
        found = density_of(values, num_probes, seed)
        for first in range(len(shares)):
            for second in range(first + 1, len(shares)):
                low, high = middle(values, shares[first]), middle(values, shares[second])
                exact = int(((values > low) & (values <= high)).sum())
                count = found.count(low, high)
                assert 0 <= count.low <= exact <= count.high <= SIZE
                assert count.low <= count.estimate <= count.high


def test_count_between_two_thresholds_estimates_the_share_between_them() -> None:
    values = bulk(1)
    found = density_of(values, num_probes=10)
    for first, second in ((0.1, 0.9), (0.3, 0.6)):
        low, high = middle(values, first), middle(values, second)
        exact = int(((values > low) & (values <= high)).sum())
        # Twelve nodes resolve the bulk: one more or less in the interval is a twelfth of it.
        assert abs(found.count(low, high).estimate - exact) <= 0.15 * SIZE


def test_share_between_two_thresholds_says_more_than_the_shares_below_them() -> None:
    """Near each other in the bulk, their own intervals leave their difference open."""
    widths, plain = [], []
    for seed in range(2):
        values = bulk(seed)
        found = density_of(values, seed=seed)
        low, high = middle(values, 0.45), middle(values, 0.55)
        count = found.count(low, high)
        one, other = found.count(high=low), found.count(high=high)
        widths.append(count.high - count.low)
        plain.append(other.high - other.low + one.high - one.low)
    assert sum(widths) < 0.9 * sum(plain)


@pytest.mark.parametrize("confidence", [0.9, 0.999])
@pytest.mark.parametrize(
    ("low", "high", "num_ends"),
    [(-0.3, 0.4, 2), (-math.inf, 0.4, 1), (-0.3, math.inf, 1)],
)
def test_risks_of_the_parts_add_up_to_the_stated_one(
    low: float, high: float, num_ends: int, confidence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less would waste what the probes say, and more would break the promise."""
    spent: dict[str, float] = {}
    up_to, between = Sample.numbers_up_to, Sample.numbers_between

    def watched_up_to(self: Sample, points: Any, confidence: float) -> Any:
        spent["below"] = num_ends * (1 - confidence)  # of the last call
        return up_to(self, points, confidence)

    def watched_between(self: Sample, low: float, high: float, risk: float) -> Any:
        spent["between"] = risk
        return between(self, low, high, risk)

    monkeypatch.setattr(Sample, "numbers_up_to", watched_up_to)
    monkeypatch.setattr(Sample, "numbers_between", watched_between)
    density_of(bulk(2)).count(low, high, confidence=confidence)
    assert len(spent) == num_ends
    assert sum(spent.values()) == pytest.approx(1 - confidence, rel=1e-9)


def test_risks_of_one_threshold_add_up_to_the_stated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own exactness, that of every gap around it, and the law of the shares between them."""
    spent = []
    invert, exact = counts._invert, Sample._exact_numbers

    def watched_invert(*arguments: Any) -> Any:
        spent.append(arguments[-1])
        return invert(*arguments)

    def watched_exact(self: Sample, points: Any, masses: Any, risk: float) -> Any:
        is_gaps = len(points) and points is self._gaps[0]
        spent.append(risk * (self.rules.nodes.shape[1] if is_gaps else 1))
        return exact(self, points, masses, risk)

    monkeypatch.setattr(counts, "_invert", watched_invert)
    monkeypatch.setattr(Sample, "_exact_numbers", watched_exact)
    found = density_of(bulk(2))
    found.sample.numbers_up_to(np.array([0.1]), 0.99)
    assert len(spent) == 3
    assert 0.005 < sum(spent) <= 0.01


@pytest.mark.parametrize("risk", [0.5, 0.01])
@pytest.mark.parametrize("num_probes", [1, 3])
def test_law_of_no_share_leaves_everything_possible(num_probes: int, risk: float) -> None:
    """Where quadrature says nothing, from 0 to 1, the interval is the whole."""
    for total in (1, 2, 7, 1000):
        low, high = counts._invert(
            np.array([0.0]), np.array([1.0]), np.array([total]), num_probes, risk
        )
        assert (low[0], high[0]) == (0, total)
    low, high = counts._invert(np.zeros(1), np.ones(1), np.array([0]), num_probes, risk)
    assert (low[0], high[0]) == (0, 0)


@pytest.mark.parametrize("total", [1, 2, 50])
def test_law_of_a_certain_share_is_certain(total: int) -> None:
    for share in (0.0, 1.0):
        low, high = counts._invert(np.array([share]), np.array([share]), np.array([total]), 3, 1e-3)
        assert (low[0], high[0]) == (share * total, share * total)

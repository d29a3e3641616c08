"""Intervals for numbers of eigenvalues, against counts of prescribed spectra.

A diagonal operator stands for every symmetric one with the same eigenvalues: the directions of the
start vectors are uniform.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import EPS, matrix_with, normal
from scipy.stats import beta
from torch import Tensor

from hesspipe.linalg.counts import _invert
from hesspipe.linalg.density import density
from hesspipe.linalg.lanczos import tridiagonalize
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.radau import Rules

CPU = torch.device("cpu")


def diagonal(values: Tensor, dtype: torch.dtype = torch.float64) -> SymmetricProduct:
    entries = values.to(dtype)
    return SymmetricProduct(lambda vector: entries * vector, len(values), dtype, CPU)


def like_a_network(size: int, seed: int) -> Tensor:
    """A few outliers over three decades, a bulk over six of both signs, and zeros."""
    draw = normal(size, seed=seed)
    bulk = draw.sign() * 10 ** (-3 - draw.abs())
    bulk[: size // 3] = 0.0
    bulk[-12:] = 10 ** torch.linspace(-0.5, 2, 12, dtype=torch.float64)
    return bulk


def thresholds_of(values: Tensor, count: int, seed: int) -> list[float]:
    """Midpoints between neighbors, which no eigenvalue is near to, from all parts."""
    distinct = values.unique()
    middles = (distinct[1:] + distinct[:-1]) / 2
    ranks = torch.rand(count, generator=torch.Generator().manual_seed(seed)) ** 2
    return [float(middles[-1 - int(rank * len(middles))]) for rank in ranks]


def test_bounds_hold_the_measure_of_the_start_vector_and_touch_it_in_a_gap() -> None:
    """The reference needs no quadrature: the squares of the entries of the start vector."""
    values = torch.cat([torch.linspace(-1, 1, 180), torch.linspace(5, 20, 20)]).double()
    for seed in range(5):
        start = normal(200, seed=seed)
        found = tridiagonalize(torch.diag(values), start, 25)
        nodes, vectors = torch.linalg.eigh(found.matrix)
        vectors *= vectors[0].sign()
        rules = Rules(*(row[None] for row in (
            nodes, vectors[0].square(), found.residual_norm * vectors[-1]
        )))  # fmt: skip
        points = torch.linspace(-1.5, 21, 97, dtype=torch.float64)
        low, high = rules.bounds(points, 1e3 * EPS * 20)
        shares = start.square() / start.square().sum()
        exact = torch.stack([shares[values <= point].sum() for point in points])
        assert (low[0] <= exact).all()
        assert (exact <= high[0] + 10 * EPS).all()  # shares add up to 1 up to rounding
        gap = (points > 2.0) & (points < 4.0)
        assert (high - low)[0, gap].max() < 1e-5
        # Without the node at t, the two nodes around it would both be uncertain.
        after = torch.searchsorted(nodes, points).clamp(1, len(nodes) - 1)
        plain = rules.weights[0, after - 1] + rules.weights[0, after]
        assert ((high - low)[0] <= plain + 1e-9).all()
        assert (high - low)[0].mean() < 0.8 * plain.mean()


@pytest.mark.parametrize(("num_probes", "total"), [(1, 40), (3, 40), (3, 4000)])
def test_inverted_law_covers_each_number_as_stated(num_probes: int, total: int) -> None:
    """Exactly, by the quantiles of the law itself."""
    risk = 0.01
    for number in {0, 1, 2, total // 3, total - 1, total}:
        inner = 0 < number < total
        law = beta(num_probes * number / 2, num_probes * (total - number) / 2) if inner else None
        for quantile, holds in ((0.0051, True), (0.9949, True), (0.0049, False), (0.9951, False)):
            if law is None:
                share = np.array([float(number == total)])
                holds = True
            else:
                share = law.ppf([quantile])
            low, high = _invert(share, share, np.array([total]), num_probes, risk)
            assert (low[0] <= number <= high[0]) == holds, (number, quantile)


@pytest.mark.parametrize("num_probes", [2, 3, 6])
def test_count_holds_the_number_at_every_threshold(num_probes: int) -> None:
    """Of 100 intervals at 99.9 %, none should fail; the width says something."""
    num_failed, num_exact, num_asked = 0, 0, 0
    for seed in range(4):
        values = like_a_network(900, seed)
        found = density(diagonal(values), num_probes=num_probes, num_steps=40, seed=seed)
        for threshold in thresholds_of(values, 30, seed):
            try:
                count = found.count(low=threshold)
            except ValueError:  # within rounding of a node: the zeros
                continue
            exact = int((values > threshold).sum())
            num_failed += not count.low <= exact <= count.high
            num_exact += count.low == count.high
            num_asked += 1
        other = found.count(high=threshold)
        assert (other.low, other.high) == (900 - count.high, 900 - count.low)
    assert num_asked > 70
    assert num_failed == 0
    assert num_exact > 0.05 * num_asked


def test_count_between_outliers_is_exact() -> None:
    values = like_a_network(900, 0)
    found = density(diagonal(values), num_probes=3, num_steps=60)
    outliers = values[-12:]
    for number, (first, second) in enumerate(pairwise(outliers.flip(0)), start=1):
        count = found.count(low=float(first + second) / 2)
        assert (count.low, count.high, count.estimate) == (number, number, number)
    inner = found.count(float(outliers[2]) * 1.1, float(outliers[8]) * 1.1)
    assert (inner.low, inner.high) == (6, 6)


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("multiplicity", [2, 3, 10])
def test_count_is_never_exact_and_wrong_with_multiple_eigenvalues(
    multiplicity: int, distance: float
) -> None:
    """A Krylov space has one vector of each eigenvalue: the other copies are in no Ritz value."""
    cluster = 7 * (1 + distance * torch.arange(multiplicity, dtype=torch.float64))
    values = torch.cat([torch.linspace(-1, 1, 500, dtype=torch.float64), cluster])
    values = torch.cat([values, torch.tensor([-9.0, 12.0, 15.0], dtype=torch.float64)])
    for seed in range(4):
        found = density(diagonal(values), num_probes=3, num_steps=50, seed=seed)
        for threshold, number in ((3.0, multiplicity + 2), (10.0, 2), (-5.0, len(values) - 1)):
            count = found.count(low=threshold)
            assert count.low <= number <= count.high
            if threshold != 3.0:
                assert count.low == count.high  # the others are still exact


def test_exactness_needs_the_comparison_of_the_probes() -> None:
    """The guard: if the other probes were explained by anything, copies would be overlooked."""
    values = torch.cat([torch.linspace(-1, 1, 300), torch.full((4,), 8.0)]).double()
    found = density(diagonal(values), num_steps=15)
    count = found.count(low=4.0)
    assert count.low <= 4 < count.high
    wrong = replace(found, overlaps=found.weights[:-1].sqrt() * found.overlaps.sign())
    assert (wrong.count(low=4.0).low, wrong.count(low=4.0).high) == (1, 1)


def test_confidence_widens_the_interval() -> None:
    found = density(diagonal(like_a_network(900, 1)), num_steps=20)
    wide, narrow = (found.count(low=1e-3, confidence=level) for level in (0.9999, 0.9))
    assert wide.low <= narrow.low < narrow.high <= wide.high
    assert wide.high - wide.low > narrow.high - narrow.low
    for level in (0.0, 1.0, -1.0, 95.0, math.nan):
        with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
            found.count(low=1e-3, confidence=level)


def test_distribution_is_the_count_as_a_share() -> None:
    values = like_a_network(900, 2)
    found = density(diagonal(values), num_steps=40)
    points = torch.tensor([-math.inf, -2.0, 0.003, 0.1, 2.0, 200.0, math.inf])
    shares = found.distribution(points)
    exact = torch.stack([(values <= point).double().mean() for point in points])
    assert (shares.low <= exact).all()
    assert (exact <= shares.high).all()
    assert (shares.low <= shares.estimate).all()
    assert (shares.estimate <= shares.high).all()
    assert (shares.low.diff() >= 0).all()
    for point, low in zip(points[2:5].tolist(), shares.low[2:5].tolist(), strict=True):
        assert found.count(high=point).low == pytest.approx(900 * low)
    with pytest.raises(ValueError, match=r"points must be a vector, got shape \(\)"):
        found.distribution(torch.tensor(0.1))
    with pytest.raises(ValueError, match="points must be numbers, got nan"):
        found.distribution(torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="grid must be numbers, got nan"):
        found.evaluate(torch.tensor([0.0, math.nan]), 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_counts_do_not_depend_on_the_scale(scale: float, dtype: torch.dtype) -> None:
    values = like_a_network(400, 3)
    found, scaled = (
        density(diagonal(factor * values, dtype), num_steps=30) for factor in (1.0, scale)
    )
    for threshold in (0.02, 0.5, 40.0):
        one, other = found.count(low=threshold), scaled.count(low=scale * threshold)
        exact = int((values > threshold).sum())
        assert one.low <= exact <= one.high
        assert other.low <= exact <= other.high
        assert abs(one.low - other.low) + abs(one.high - other.high) <= 0.05 * exact + 2


@pytest.mark.parametrize("num_probes", [1, 2, 3])
def test_counts_of_tiny_matrices_hold(num_probes: int) -> None:
    for values in ([2.0], [1.0, 1.0], [-1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]):
        exact = torch.tensor(values, dtype=torch.float64)
        matrix = matrix_with(exact)
        for num_steps in range(1, len(values) + 1):
            found = density(matrix, num_probes=num_probes, num_steps=num_steps)
            for threshold in (-3.0, -0.5, 0.5, 3.0, 9.0):
                count = found.count(low=threshold)
                assert count.low <= int((exact > threshold).sum()) <= count.high

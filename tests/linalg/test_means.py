"""Intervals for moments and smoothed densities, against known spectra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta

from hesspipe.linalg import means
from hesspipe.linalg.density import density
from hesspipe.linalg.operator import random_normal, symmetric_product
from hesspipe.linalg.spectral_density import Density
from hesspipe.seeding import generator


def spectrum_of(kind: str, size: int = 60) -> torch.Tensor:
    """Eigenvalues of many kinds; a diagonal matrix is as good as any for random directions."""
    draw = torch.Generator().manual_seed(len(kind))
    normal = torch.randn(size, generator=draw, dtype=torch.float64)
    return {
        "normal": normal,
        "outliers": torch.cat([1e-3 * normal[5:], torch.logspace(0, 2, 5).double()]),
        "one": torch.nn.functional.one_hot(torch.tensor(3), size).double(),
        "halves": (torch.arange(size) % 2).double(),
        "negative": -normal.abs() - 1,
        "decades": normal.sign() * 10 ** (6 * normal),
        "equal": torch.full((size,), 2.5, dtype=torch.float64),
        "zeros": torch.zeros(size, dtype=torch.float64),
        "1e-150": 1e-150 * normal,
    }[kind]


KINDS = ["normal", "outliers", "one", "halves", "negative", "decades", "equal", "zeros", "1e-150"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_probes", "num_steps"), [(1, 20), (3, 10)])
def test_intervals_hold_the_moments_and_smoothed_densities(
    kind: str, num_probes: int, num_steps: int
) -> None:
    values, misses, width = spectrum_of(kind), torch.zeros(2), 0.1
    scale = float(values.abs().max()) or 1.0
    grid = scale * torch.tensor([-1.2, -0.3, 0.0, 0.5, 1.0], dtype=torch.float64)
    distances = (grid.unsqueeze(1) - values) / (width * scale)
    exact = torch.exp(-distances.square() / 2).mean(1) / (width * scale * math.sqrt(2 * math.pi))
    for seed in range(3):
        matrix = torch.diag(values)
        found = density(matrix, num_probes=num_probes, num_steps=num_steps, seed=seed)
        for number, confidence in enumerate((0.9, 0.999)):
            for power in (0, 1, 2, 3):
                if kind == "1e-150" and power > 1:
                    continue  # underflows
                moment = found.moment(power, confidence=confidence)
                assert moment.low <= moment.estimate <= moment.high
                truth, slack = float((values**power).sum()), 1e-12 * scale**power
                misses[number] += not moment.low - slack <= truth <= moment.high + slack
            curve = found.evaluate(grid, width * scale, confidence=confidence)
            slack = 1e-12 / scale
            is_held = (curve.low - slack <= exact) & (exact <= curve.high + slack)
            misses[number] += int((~is_held).sum())
    # 27 intervals each, up to 9 of them of one draw.
    assert misses[0] <= 11
    assert misses[1] == 0


def sample_of(values: torch.Tensor, num_steps: int, seed: int) -> tuple[Density, torch.Tensor]:
    """A density of two probes, and the true shares of each eigenvalue in them."""
    matrix = torch.diag(values)
    found = density(matrix, num_probes=2, num_steps=num_steps, seed=seed)
    rows = [
        random_normal(symmetric_product(matrix), generator(seed, f"density probe {probe}"))
        for probe in range(2)
    ]
    squares = torch.stack(rows).square()
    return found, squares.sum(0) / squares.sum()


@pytest.mark.parametrize("kind", ["normal", "outliers", "halves", "decades"])
@pytest.mark.parametrize(("relative_width", "num_steps"), [(1e-3, 12), (0.03, 25), (0.3, 4)])
def test_gaussian_shares_hold_the_quadratic_form_of_every_probe(
    kind: str, relative_width: float, num_steps: int
) -> None:
    values = spectrum_of(kind)
    width = relative_width * float(values.max() - values.min() or 1.0)
    ends = float(values.min()), float(values.max())
    centers = np.concatenate([values[::15].numpy(), np.linspace(ends[0] - width, ends[1], 4)])
    for seed in range(2):
        found, shares = sample_of(values, num_steps, seed)
        distances = (torch.from_numpy(centers).unsqueeze(1) - values) / width
        exact = (torch.exp(-distances.square() / 2) @ shares).numpy()
        least, most = means.gaussian_shares(found.sample, centers, width, ends)
        assert (least - 1e-10 <= exact).all()
        assert (exact <= most + 1e-10).all()
        certain = means.converged_share(found.sample, centers, width)
        assert (certain <= torch.exp(-distances.square() / 2).mean(1).numpy() + 1e-10).all()


def test_gaussian_shares_are_sharp_for_wide_gaussians_and_next_to_outliers() -> None:
    values = spectrum_of("outliers")
    found, _ = sample_of(values, 20, 0)
    for center, width, largest in ((0.0, 60.0, 1e-8), (100.0, 1.0, 0.3)):
        least, most = means.gaussian_shares(found.sample, np.array([center]), width, (-1.0, 100.0))
        assert most[0] - least[0] <= largest * most[0]
    certain = means.converged_share(found.sample, np.array([100.0]), 1.0)
    assert certain[0] == pytest.approx(1 / 60, rel=0.02)


@pytest.mark.parametrize("num_probes", [1, 3, 20])
@pytest.mark.parametrize("risk", [1e-3, 0.1])
def test_invert_mean_holds_the_exact_interval_of_a_share(num_probes: int, risk: float) -> None:
    """Of functions with values 0 and 1, the law is that of Beta itself."""
    dim, average = 200, np.array([1e-6, 0.003, 0.2, 0.5, 0.97])
    low, high = means.invert_mean(average, average, dim, num_probes, risk)
    degrees = num_probes * dim / 2
    for end, tail in ((low, beta.sf), (high, beta.cdf)):
        chance = tail(average, degrees * end, degrees * (1 - end))
        # A mean that is excluded has a chance below the risk, and not one much below, but for
        # less than half an eigenvalue.
        assert (chance <= risk / 2).all()
        assert (chance[1:] >= risk / 20).all()
    assert (low < average).all()
    assert (average < high).all()


@pytest.mark.parametrize("kind", KINDS[:6])
@pytest.mark.parametrize("num_steps", [4, 10, 30])
def test_eigenvalue_range_holds_all_eigenvalues(kind: str, num_steps: int) -> None:
    values = spectrum_of(kind)
    for seed in range(5):
        found = density(torch.diag(values), num_probes=2, num_steps=num_steps, seed=seed)
        low, high = means.eigenvalue_range(found.sample, 1e-3)
        assert low <= values.min()
        assert values.max() <= high
    if num_steps == 30:
        assert high - low <= 1.2 * float(values.max() - values.min()) + found.resolution * 4


def test_moment_says_nothing_of_eigenvalues_that_few_steps_may_miss() -> None:
    found = density(torch.diag(spectrum_of("normal")), num_probes=1, num_steps=2)
    assert (found.moment(1).low, found.moment(1).high) == (-math.inf, math.inf)
    assert (found.moment(2).low, found.moment(2).high) == (0.0, math.inf)
    assert (found.moment(0).low, found.moment(0).high) == (60.0, 60.0)
    for confidence in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
            found.moment(1, confidence=confidence)
        with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
            found.evaluate(torch.zeros(1), 1.0, confidence=confidence)

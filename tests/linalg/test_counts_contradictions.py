"""Numbers at two thresholds that cannot both be exact: then neither is used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hesspipe.linalg.counts import Sample
from hesspipe.linalg.density import density
from hesspipe.linalg.operator import SymmetricProduct


def sample_of(copies: tuple[int, int, int], num_probes: int, explained: list[int]) -> Sample:
    """Three eigenvalues with copies, of which Lanczos finds one each, in every probe.

    The overlaps with the Ritz vectors claim that what the other probes have of eigenvalue i is
    explained by the one Ritz vector `explained[i]`: this is wrong, and hides the copies.
    """
    values = torch.tensor([-9.0, 1.0, 7.0], dtype=torch.float64)
    every = values.repeat_interleave(torch.tensor(copies))
    product = SymmetricProduct(
        lambda vector: every * vector, len(every), torch.float64, torch.device("cpu")
    )
    found = density(product, num_probes=num_probes, num_steps=3)
    assert torch.allclose(found.nodes, values.expand(num_probes, 3))
    claimed = torch.zeros(num_probes - 1, 3, dtype=torch.float64)
    for column, ritz in enumerate(explained):
        if ritz >= 0:
            claimed[:, ritz] += found.weights[:-1, column]
    return replace(found, overlaps=claimed.sqrt()).sample


# The upper two eigenvalues seem to be single, seen from above, and the lower two from below: there
# would be `sum(copies) - 2` eigenvalues up to the first gap, and 2 up to the second one.
CONTRADICTING = [1, 1, 2]


@pytest.mark.parametrize("copies", [(1, 2, 1), (2, 2, 1), (1, 1, 3), (100, 100, 104)])
@pytest.mark.parametrize("num_probes", [2, 3, 6])
def test_anchors_that_contradict_each_other_are_not_used(
    num_probes: int, copies: tuple[int, int, int]
) -> None:
    sample = sample_of(copies, num_probes, CONTRADICTING)
    gaps, masses = sample._gaps
    assert sample._exact_numbers(gaps, masses, 1e-3).tolist() == [sum(copies) - 2, 2]
    anchors, numbers, shares = sample._anchors(1e-3)
    assert anchors.tolist() == [-np.inf, np.inf]
    assert numbers.tolist() == [0, sum(copies)]
    assert all(share.tolist() == [[0, 1]] * num_probes for share in shares)


@pytest.mark.parametrize("num_probes", [2, 3])
def test_anchors_that_agree_are_used(num_probes: int) -> None:
    """The guard of the test above: without a contradiction the same claims are believed."""
    sample = sample_of((50, 60, 70), num_probes, [0, 1, -1])
    anchors, numbers, _ = sample._anchors(1e-3)
    assert anchors.tolist() == pytest.approx([-np.inf, -4, 4, np.inf])
    assert numbers.tolist() == [0, 1, 2, 180]


@pytest.mark.parametrize("num_probes", [2, 3, 6])
def test_numbers_between_contradicting_gaps_are_intervals(num_probes: int) -> None:
    sample = sample_of((100, 100, 104), num_probes, CONTRADICTING)
    points = np.linspace(-10, 8, 37)
    below = sample.masses(points)
    low, high = sample._numbers_by_shares(points, below, 1e-3)
    exact = 100 * (points >= -9) + 100 * (points >= 1) + 104 * (points >= 7)
    assert (low <= high).all()
    assert ((low <= exact) & (exact <= high)).all()

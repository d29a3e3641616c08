"""Sampled spiked models against dense matrices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from hesspipe.random_matrices.sampling import largest_eigenpair, sample_largest, sample_spectra


@pytest.mark.parametrize(("num_parameters", "num_samples"), [(5, 12), (8, 8), (12, 5)])
@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_bidiagonal_draws_are_distributed_as_dense_ones(
    strength: float, num_parameters: int, num_samples: int
) -> None:
    rng = np.random.default_rng(1)
    draws = np.array(
        [largest_eigenpair(strength, num_parameters, num_samples, rng) for _ in range(1500)]
    )
    entries = rng.standard_normal((1500, num_parameters, num_samples))
    entries[:, 0] *= np.sqrt(strength)
    values, vectors = np.linalg.eigh(entries @ entries.transpose(0, 2, 1) / num_samples)
    assert ks_2samp(draws[:, 0], values[:, -1]).pvalue > 1e-3
    assert ks_2samp(draws[:, 1], vectors[:, 0, -1] ** 2).pvalue > 1e-3
    # The test detects a sample of another size.
    other = values[:, -1] * (num_samples / (num_samples + 1))
    assert ks_2samp(draws[:, 0], other).pvalue < ks_2samp(draws[:, 0], values[:, -1]).pvalue


class _Recorded(np.random.Generator):
    """Chi-square numbers that do not depend on how many are drawn."""

    def chisquare(self, freedoms):
        streams = [np.random.default_rng([int(freedom), 7]) for freedom in freedoms]
        return np.array([rng.chisquare(d) for rng, d in zip(streams, freedoms, strict=True)])


@pytest.mark.parametrize("strength", [1.0, 2.0, 2.2, 4.0])
def test_rows_that_are_left_out_do_not_matter(strength: float) -> None:
    rng = _Recorded(np.random.PCG64(0))
    full = largest_eigenpair(strength, 1000, 1000, rng, num_rows=1000)
    kept = largest_eigenpair(strength, 1000, 1000, rng)
    np.testing.assert_allclose(kept, full, rtol=1e-12, atol=1e-15)
    few = largest_eigenpair(strength, 1000, 1000, rng, num_rows=3)
    assert abs(few[0] - full[0]) > 1e-3


def test_equal_seeds_give_equal_draws_and_others_do_not() -> None:
    settings = {"strengths": [1.0], "num_samples": [20], "aspect_ratio": 2.0, "num_repeats": 3}
    one, same, other = (sample_largest(**settings, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert not np.isin(other["eigenvalue"], one["eigenvalue"]).any()
    assert set(one["num_parameters"]) == {40}


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_samples_refuse_impossible_strengths(strength: float) -> None:
    rng = np.random.default_rng(0)
    spectra = {"num_parameters": 3, "num_samples": 4, "num_repeats": 1, "seed": 0}
    largest = {"num_samples": [4], "aspect_ratio": 1.0, "num_repeats": 1, "seed": 0}
    with pytest.raises(ValueError, match="strengths must be at least 0 and finite"):
        largest_eigenpair(strength, 3, 4, rng)
    with pytest.raises(ValueError, match="strengths must be at least 0 and finite"):
        sample_spectra(strengths=[1.0, strength], **spectra)
    with pytest.raises(ValueError, match="strengths must be at least 0 and finite"):
        sample_largest(strengths=[strength], **largest)


def test_samples_refuse_impossible_sizes() -> None:
    rng = np.random.default_rng(0)
    for sizes in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="must be at least 1, got"):
            largest_eigenpair(1.0, *sizes, rng)
    with pytest.raises(ValueError, match="num_rows must be at least 1, got 0"):
        largest_eigenpair(1.0, 4, 4, rng, num_rows=0)
    with pytest.raises(ValueError, match="at most P = 2 and num_repeats at least 1, got 3 and 1"):
        sample_spectra(
            strengths=[1.0, 2.0, 3.0], num_parameters=2, num_samples=9, num_repeats=1, seed=0
        )
    with pytest.raises(ValueError, match="alpha N, rounded"):
        sample_largest(strengths=[1.0], num_samples=[4], aspect_ratio=0.1, num_repeats=1, seed=0)

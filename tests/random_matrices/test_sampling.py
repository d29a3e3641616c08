"""Sampled spiked models against dense matrices, and their tables against what was put in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from hesspipe.random_matrices.sampling import largest_eigenpair, sample_largest, sample_spectra
from hesspipe.random_matrices.tracy_widom import tracy_widom_cdf
from hesspipe.tables.laws import fluctuation_table, spike_table, spiked_spectra_table


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
    # The test can tell a sample of another size.
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


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return sample_largest(
        strengths=[1.0, 4.0], num_samples=[100, 6400], aspect_ratio=1.0, num_repeats=400, seed=0
    )


def test_largest_eigenvalues_agree_with_theorem_1_at_the_expected_rate(
    samples: pd.DataFrame,
) -> None:
    table = spike_table(samples).set_index(["num_samples", "strength"])
    for size in (100, 6400):
        assert not table.loc[(size, 1.0), "separates"]
        edge, outlier = table.loc[(size, 1.0)], table.loc[(size, 4.0)]
        gap = edge["predicted"] - edge["mean"]
        assert abs(gap - edge["finite_size_error"]) < 4 * edge["standard_error"] + 4 / size
        assert abs(outlier["mean"] - outlier["predicted"]) < 4 * outlier["standard_error"]
        for row in (edge, outlier):
            assert row["deviation"] == pytest.approx(row["deviation_predicted"], rel=0.15)
        assert outlier["overlap"] == pytest.approx(2 / 3, abs=5 / np.sqrt(400 * size) + 2 / size)
    # Sixty-four times the size: an edge 16 times closer, an outlier 8 times sharper.
    small, large = table.loc[100], table.loc[6400]
    gaps = (4 - small.loc[1.0, "mean"]) / (4 - large.loc[1.0, "mean"])
    assert gaps == pytest.approx(16, rel=0.15)
    assert small.loc[4.0, "deviation"] / large.loc[4.0, "deviation"] == pytest.approx(8, rel=0.15)
    assert large.loc[1.0, "p_value"] > 0.01
    assert large.loc[4.0, "p_value"] > 0.01
    assert large.loc[4.0, "other_distance"] > 0.9


def test_fluctuations_are_those_of_the_largest_size_in_order(samples: pd.DataFrame) -> None:
    table = fluctuation_table(samples, [1.0, 4.0])
    assert list(table["law"].unique()) == ["tracy_widom", "gaussian"]
    for _, group in table.groupby("strength"):
        assert len(group) == 400
        assert (np.diff(group["standardized"]) >= 0).all()
        ranks = np.arange(1, 401) / 400
        assert np.abs(group["cdf"] - ranks).max() < 1.63 / 20  # 1 % point
    below = table[table["strength"] == 1.0]
    exact = tracy_widom_cdf(below["standardized"][::40])
    np.testing.assert_allclose(below["cdf"][::40], exact, atol=1e-5)


def test_spectra_agree_with_theorem_2() -> None:
    entry = {"strengths": [8.0, 0.05], "num_repeats": 10, "seed": 0}
    tables = []
    for name, sizes in {"few": (60, 240), "many": (120, 60)}.items():
        sizes = dict(zip(("num_parameters", "num_samples"), sizes, strict=True))
        spectra = sample_spectra(**entry, **sizes)
        spectra.attrs = {"name": name, **entry, **sizes}
        tables.append(spectra)
    table = spiked_spectra_table(tables)
    parts = table.groupby("name", sort=False)["part"].agg(list)
    assert parts["few"] == ["zeros", "left_outlier", "lower_edge", "upper_edge", "right_outlier"]
    assert parts["many"] == ["zeros", "lower_edge", "upper_edge", "right_outlier"]
    zeros = table[table["part"] == "zeros"]
    assert list(zeros["mean"]) == list(zeros["predicted"]) == [0, 60]
    outliers = table[table["part"].str.endswith("outlier")]
    size = outliers["num_samples"]
    error = 4 * outliers["standard_error"] + 10 / size * outliers["predicted"]
    assert (np.abs(outliers["mean"] - outliers["predicted"]) < error).all()


def test_equal_seeds_give_equal_draws_and_others_do_not() -> None:
    settings = {"strengths": [1.0], "num_samples": [20], "aspect_ratio": 2.0, "num_repeats": 3}
    one, same, other = (sample_largest(**settings, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert not np.isin(other["eigenvalue"], one["eigenvalue"]).any()
    assert set(one["num_parameters"]) == {40}

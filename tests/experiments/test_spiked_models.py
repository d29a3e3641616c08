"""Sampled spiked models against Theorems 1 and 2, and their results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.experiments.spiked_models import (
    compare_positions,
    sample_spiked_spectra,
    sample_spikes,
    standardize_largest,
)
from hesspipe.random_matrices.sampling import sample_largest
from hesspipe.random_matrices.tracy_widom import tracy_widom_cdf
from hesspipe.tables import spiked_spectra, spikes
from hesspipe.tables.store import read_result, write_result


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return sample_largest(
        strengths=[1.0, 4.0], num_samples=[100, 6400], aspect_ratio=1.0, num_repeats=400, seed=0
    )


def test_largest_eigenvalues_agree_with_theorem_1_at_the_expected_rate(
    samples: pd.DataFrame,
) -> None:
    table = compare_positions(samples).set_index(["num_samples", "strength"])
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
    table = standardize_largest(samples)
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
    results = []
    for name, sizes in {"few": (60, 240), "many": (120, 60)}.items():
        sizes = dict(zip(("num_parameters", "num_samples"), sizes, strict=True))
        results += sample_spiked_spectra(name=name, entry=entry | sizes | {"kind": "any"})
    table = spiked_spectra.make_table(results, {})
    parts = table.groupby("name", sort=False)["part"].agg(list)
    assert parts["few"] == ["zeros", "left_outlier", "lower_edge", "upper_edge", "right_outlier"]
    assert parts["many"] == ["zeros", "lower_edge", "upper_edge", "right_outlier"]
    zeros = table[table["part"] == "zeros"]
    assert list(zeros["mean"]) == list(zeros["predicted"]) == [0, 60]
    outliers = table[table["part"].str.endswith("outlier")]
    size = outliers["num_samples"]
    error = 4 * outliers["standard_error"] + 10 / size * outliers["predicted"]
    assert (np.abs(outliers["mean"] - outliers["predicted"]) < error).all()


def test_results_can_be_stored_and_are_those_of_their_own_draws(tmp_path) -> None:
    entry = {"kind": "spikes", "strengths": [1.0, 3.0], "num_samples": [10, 20],
             "aspect_ratio": 1.0, "num_repeats": 10, "seed": 1}  # fmt: skip
    results = [*sample_spikes(name="one", entry=entry)]
    results += sample_spiked_spectra(
        name="two",
        entry={"kind": "spiked_spectra", "strengths": [5.0], "num_parameters": 8,
               "num_samples": 20, "num_repeats": 2, "seed": 1},
    )  # fmt: skip
    assert [result.kind for result in results] == [
        "spikes", "positions", "fluctuations", "spiked_spectra", "parts",
    ]  # fmt: skip
    for result in results:
        path = tmp_path / f"{result.kind}.parquet"
        write_result(result, path)
        pd.testing.assert_frame_equal(read_result(path, result.kind).table, result.table)
    draws, positions, fluctuations = (result.table for result in results[:3])
    pd.testing.assert_frame_equal(spikes.make_table(results[:3], {}), positions)
    assert len(positions) == 4
    means = draws.groupby(["num_samples", "strength"])["eigenvalue"].mean()
    np.testing.assert_allclose(positions["mean"], means, rtol=1e-14)
    # Every strength, at the largest size.
    assert fluctuations.groupby("strength").size().to_dict() == {1.0: 10, 3.0: 10}

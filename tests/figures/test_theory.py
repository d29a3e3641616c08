"""Figure 10, Theorems 1 and 2: data, marks and labels in the Figure object."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from figure_marks import verticals

from hesspipe.figures import bulks, spiked_spectra, spikes
from hesspipe.tables.store import Result


def marked(axes, marker: str) -> list[float]:
    """Abscissas of the points with a marker, ascending."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return sorted(float(x) for line in lines for x in np.atleast_1d(line.get_xdata()))


def bulk() -> list[Result]:
    about = {"name": "one", "num_zero": 4, "num_parameters": 8, "num_samples": 4,
             "entry": {"model": "softmax"}}  # fmt: skip
    histogram = pd.DataFrame(
        {
            "lower": [1.0, 1.5, 2.0],
            "upper": [1.5, 2.0, 3.0],
            "measured": [1.0, 0.5, 0.25],
            "density": [0.8, 0.6, 0.3],
            "plain_density": [0.0, 1.0, 0.5],
        }
    )
    outliers = pd.DataFrame({"side": ["right"], "predicted": [9.61], "measured": [9.0]})
    return [Result("law_histogram", histogram, about), Result("law_outliers", outliers, about)]


def test_bulks_figure_shows_histogram_laws_and_outliers_over_the_root() -> None:
    figure = bulks.make_figure(bulk() * 3, {"num_columns": 2})
    assert len(figure.axes) == 4
    axes = figure.axes[0]
    steps = {patch.get_label(): patch for patch in axes.patches}
    for label, heights in {
        "measured": [1.0, 0.5, 0.25],
        "generalized law": [0.8, 0.6, 0.3],
        "Marchenko-Pastur": [0.0, 1.0, 0.5],
    }.items():
        data = steps[label].get_data()
        assert list(data.values) == heights
        assert list(data.edges) == [1.0, 1.5, 2.0, 3.0]
    assert [label for label, patch in steps.items() if patch.get_fill()] == ["measured"]
    assert verticals(axes, ":") == [pytest.approx(3.1)]
    assert marked(axes, "^") == [3.0]
    assert axes.get_title() == r"softmax, two blobs, $\alpha$ = 2, 4 zeros of 8"


def spike_rows() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"num_samples": size, "strength": strength, "predicted": predicted,
             "mean": predicted - 1 / size, "deviation": 0.1}
            for size in (10, 100)
            for strength, predicted in ((1.0, 4.0), (4.0, 5.25))
        ]
    )  # fmt: skip


def test_spikes_figure_shows_means_of_each_size_the_limit_and_both_laws() -> None:
    fluctuations = pd.DataFrame(
        {
            "strength": [1.0] * 3 + [4.0] * 2,
            "law": ["tracy_widom"] * 3 + ["gaussian"] * 2,
            "standardized": [-2.0, -1.0, 0.0, -0.5, 0.5],
            "cdf": [0.2, 0.6, 0.9, 0.3, 0.7],
        }
    )
    results = [Result("positions", spike_rows(), {}), Result("fluctuations", fluctuations, {})]
    left, middle, right = spikes.make_figure(results, {"below": 1.0, "above": 4.0}).axes
    limit = next(line for line in left.lines if line.get_label() == "Theorem 1")
    assert limit.get_ydata().tolist() == [4.0, 5.25]
    means = [container.lines[0].get_ydata().tolist() for container in left.containers]
    assert means == [[3.9, 5.15], [3.99, 5.24]]
    assert [text.get_text() for text in left.get_legend().get_texts()][1:] == ["N = 10", "N = 100"]
    for axes, size, law in ((middle, 3, "Tracy-Widom"), (right, 2, "Gaussian")):
        measured, expected = axes.lines
        assert measured.get_ydata().tolist() == [(n + 1) / size for n in range(size)]
        assert expected.get_label() == law
        assert list(expected.get_xdata()) == list(measured.get_xdata())


def test_spiked_spectra_figure_shows_one_spectrum_and_each_position() -> None:
    spectrum = pd.DataFrame(
        {"repeat": [0] * 5 + [1] * 5, "rank": [*range(5)] * 2,
         "eigenvalue": [0, 0.5, 1.0, 2.0, 8.0, 0, 50, 60, 70, 80]}
    )  # fmt: skip
    about = {"name": "one", "num_parameters": 5, "num_samples": 4}
    parts = pd.DataFrame(
        {
            "name": "one",
            "part": ["zeros", "lower_edge", "upper_edge", "right_outlier"],
            "predicted": [1.0, 0.4, 2.5, 9.0],
            "mean": [1.0, 0.45, 2.4, 8.9],
        }
    )
    results = [Result("spiked_spectra", spectrum, about), Result("parts", parts, about)]
    (axes,) = spiked_spectra.make_figure(results, {"num_bins": 6}).axes
    assert axes.get_xscale() == "log"
    assert sum(patch.get_height() for patch in axes.patches) == 4  # the first, without its zero
    assert verticals(axes, "--") == [0.4, 2.5]
    assert verticals(axes, ":") == [9.0]
    assert marked(axes, "^") == [8.9]
    assert "1 zeros of 5" in axes.get_title()

"""Figure 10, Theorems 1 and 2, the decomposition and the directions: what is drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.figures import style
from hesspipe.figures.bulks import bulks_figure
from hesspipe.figures.decomposition import decomposition_figure
from hesspipe.figures.directions import directions_figure
from hesspipe.figures.spiked_spectra import spiked_spectra_figure
from hesspipe.figures.spikes import spikes_figure


def marked(axes, marker: str) -> list[float]:
    """Abscissas of the points with a marker, ascending."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return sorted(float(x) for line in lines for x in np.atleast_1d(line.get_xdata()))


def verticals(axes, linestyle: str) -> list[float]:
    """Abscissas of the vertical lines of a style, ascending."""
    lines = [line for line in axes.lines if line.get_linestyle() == linestyle]
    return sorted(line.get_xdata()[0] for line in lines if len(set(line.get_xdata())) == 1)


def bulk() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    spectrum = pd.DataFrame({"rank": range(8), "eigenvalue": [0, 0, 0, 0, 1.0, 1.21, 2.25, 9.0]})
    position = np.linspace(1, 3, 50)
    law = pd.DataFrame(
        {"position": position, "density": 0.5, "cdf": 0.5, "plain_density": 0.25, "plain_cdf": 0.5}
    )
    law.attrs = {
        "num_zero_predicted": 4, "num_zero": 4, "num_features": 4, "num_parameters": 8,
        "num_samples": 4, "entry": {"model": "softmax"},
    }  # fmt: skip
    outliers = pd.DataFrame({"side": ["right"], "predicted": [9.61], "measured": [9.0]})
    return spectrum, law, outliers


def test_bulks_figure_shows_histogram_laws_and_outliers_over_the_root() -> None:
    spectrum, law, outliers = bulk()
    figure = bulks_figure([spectrum] * 3, [law] * 3, [outliers] * 3, num_columns=2, num_bins=10)
    assert len(figure.axes) == 4
    axes = figure.axes[0]
    heights = np.array([patch.get_height() for patch in axes.patches])
    widths = np.array([patch.get_width() for patch in axes.patches])
    # Four of the law's four eigenvalues: the histogram's area is 1, and so would a law's be.
    assert float(heights @ widths) == pytest.approx(1.0)
    assert float(heights[0] * widths[0]) == pytest.approx(0.5)  # roots 1 and 1.1
    curves = {line.get_label(): line for line in axes.lines}
    for label, density in (("generalized law", 0.5), ("Marchenko-Pastur", 0.25)):
        root, height = curves[label].get_data()
        np.testing.assert_allclose(height, 2 * root * density)
        assert float(np.trapezoid(height, root)) == pytest.approx(2 * density, rel=1e-3)
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
    left, middle, right = spikes_figure(spike_rows(), fluctuations, 1.0, 4.0).axes
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
    spectrum.attrs = {"name": "one", "num_parameters": 5, "num_samples": 4}
    table = pd.DataFrame(
        {
            "name": "one",
            "part": ["zeros", "lower_edge", "upper_edge", "right_outlier"],
            "predicted": [1.0, 0.4, 2.5, 9.0],
            "mean": [1.0, 0.45, 2.4, 8.9],
        }
    )
    (axes,) = spiked_spectra_figure([spectrum], table, num_bins=6).axes
    assert axes.get_xscale() == "log"
    assert sum(patch.get_height() for patch in axes.patches) == 4  # the first, without its zero
    assert verticals(axes, "--") == [0.4, 2.5]
    assert verticals(axes, ":") == [9.0]
    assert marked(axes, "^") == [8.9]
    assert "1 zeros of 5" in axes.get_title()


def test_decomposition_figure_shows_each_quantity_against_the_steps() -> None:
    steps = [0, 10, 20]
    table = pd.DataFrame(
        {
            "step": steps, "operator_ratio": [1.0, 0.5, 0.1], "frobenius_ratio": [2.0, 1.0, 0.2],
            "largest_difference": [0.3, 0.2, 0.1], "smallest_hessian": [-3.0, -2.0, -1.0],
            "smallest_residual": [-4.0, -3.0, -2.0], "num_negative_hessian": [5, 6, 7],
            "num_negative_residual": [8, 9, 10], "num_outliers": [1, 2, 3],
            "num_outliers_ggn": [2, 3, 3],
        }
    )  # fmt: skip
    ratios, ends, negatives, outliers = decomposition_figure(table, num_classes=3).axes
    for axes, columns in (
        (ratios, ["operator_ratio", "frobenius_ratio", "largest_difference"]),
        (negatives, ["num_negative_hessian", "num_negative_residual"]),
        (outliers, ["num_outliers", "num_outliers_ggn"]),
    ):
        for line, column in zip(axes.lines, columns, strict=False):
            assert list(line.get_xdata()) == steps
            assert list(line.get_ydata()) == table[column].tolist()
    assert [list(line.get_ydata()) for line in ends.lines] == [[3, 2, 1], [4, 3, 2]]
    assert outliers.lines[2].get_ydata()[0] == 3
    assert ratios.get_yscale() == ends.get_yscale() == "log"


def direction_rows(num_classes: int) -> pd.DataFrame:
    order = range(1, num_classes + 3)
    table = pd.DataFrame({"order": order, "own": 0.9, "every": 1.0, "shared": 0.5, "flat": 0.01})
    table.attrs = {"num_classes": num_classes}
    return table


def test_directions_figure_has_a_panel_a_network_with_its_number_of_classes() -> None:
    names = ["a", "b", "c", "d"]
    figure = directions_figure([direction_rows(number) for number in (2, 3, 4, 5)], names)
    panels = figure.axes[:4]
    assert [axes.get_title() for axes in panels] == names
    for axes, number in zip(panels, (2, 3, 4, 5), strict=True):
        assert [line.get_ydata()[0] for line in axes.lines[:4]] == [0.9, 1.0, 0.5, 0.01]
        assert verticals(axes, "--") == [number + 0.5]
    assert not figure.axes[4].axison


def test_theory_figures_give_equal_bytes(tmp_path) -> None:
    contents = set()
    for name in ("one", "two"):
        figure = directions_figure([direction_rows(3)], ["a"])
        style.save(figure, tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
        contents.add((tmp_path / f"{name}.pdf").read_bytes())
    assert len(contents) == 1

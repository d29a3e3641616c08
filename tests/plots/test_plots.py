"""Plots of results show their numbers, on the caller's axes or new ones, whatever the result."""

from __future__ import annotations

import sys
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

import hesspipe
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.spectral_density import Density
from hesspipe.linalg.spectrum import Spectrum

EIGENVALUES = [-2.0, -0.5, -1e-16, 0.0, 1e-16, 0.25, 3.0]


def spectrum_of(values: list[float]) -> Spectrum:
    matrix = torch.diag(torch.tensor(values, dtype=torch.float64))
    return hesspipe.spectrum(matrix)


@pytest.fixture
def small() -> Axes:
    """Axes that are drawn fast."""
    return plt.figure(figsize=(2, 2), dpi=30).add_axes((0.3, 0.3, 0.6, 0.6))


def points(axes: Axes, label: str) -> list[list[float]]:
    """The coordinates of the line whose label ends in a text."""
    (line,) = (line for line in axes.lines if str(line.get_label()).endswith(label))
    return np.asarray(line.get_xydata()).tolist()


def test_spectrum_in_order_has_each_eigenvalue_at_its_rank_in_the_color_of_its_sign() -> None:
    axes = spectrum_of(EIGENVALUES).plot()
    assert points(axes, "2 negative") == [[0, -2.0], [1, -0.5]]
    assert points(axes, "3 zero") == [[2, -1e-16], [3, 0.0], [4, 1e-16]]
    assert points(axes, "2 positive") == [[5, 0.25], [6, 3.0]]
    colors = {line.get_color() for line in axes.lines}
    assert len(colors) == 3


def test_spectrum_in_order_has_the_tolerance_as_a_band_and_as_the_linear_part() -> None:
    found = spectrum_of(EIGENVALUES)
    axes = found.plot()
    (band,) = axes.patches
    assert np.ptp(band.get_path().vertices[:, 1]) in (1.0, 2 * found.tolerance)
    low, high = band.get_extents().transformed(axes.transData.inverted()).intervaly
    assert (low, high) == pytest.approx((-found.tolerance, found.tolerance))
    assert axes.yaxis.get_transform().linthresh == found.tolerance


def test_histogram_counts_every_eigenvalue_once_and_the_zeros_in_one_bin() -> None:
    found = spectrum_of(EIGENVALUES)
    axes = found.plot(kind="histogram")
    counts, edges, _ = axes.patches[0].get_data()
    assert counts.sum() == 7
    zero = counts[(edges[:-1] < 0) & (edges[1:] > 0)]
    assert zero.tolist() == [3]
    for value in EIGENVALUES:
        assert counts[np.searchsorted(edges, value, "right") - 1] >= 1


@pytest.mark.parametrize(
    "values",
    [[1.0], [-1.0], [0.0], [0.0, 0.0], [1e-300, 1.0], [-1e9, -1.0], [2.0, 2.0, 2.0], [-5.0, 5e-12]],
)
@pytest.mark.parametrize("kind", ["ordered", "histogram"])
def test_every_spectrum_is_drawn(small: Axes, values: list[float], kind: Any) -> None:
    axes = spectrum_of(sorted(values)).plot(small, kind=kind)
    axes.figure.canvas.draw()
    if kind == "histogram":
        assert axes.patches[0].get_data().values.sum() == len(values)
    else:
        assert sum(len(line.get_xdata()) for line in axes.lines) == len(values)


def test_spectrum_without_an_error_bound_is_drawn() -> None:
    values = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    for bound in (0.0, float("nan"), float("inf")):
        found = Spectrum(values, 1, 0, 1, bound, 0.0, "mine", "products", "none")
        axes = found.plot()
        assert not axes.collections
        assert "mine" in axes.get_title(loc="left")


def pairs_of(values: list[float], num_smallest: int) -> Eigenpairs:
    found = torch.tensor(values, dtype=torch.float64)
    norms = torch.full_like(found, 1e-9)
    return Eigenpairs(found, torch.eye(9)[:, : len(values)], norms, 9, "ggn", num_smallest,
                      len(values) - num_smallest)  # fmt: skip


def test_eigenpairs_are_drawn_in_the_order_of_their_end_with_their_residual_norms() -> None:
    axes = pairs_of([-3.0, -0.5, 1.0, 7.0], 2).plot()
    assert points(axes, "2 largest") == [[1, 7.0], [2, 1.0]]
    assert points(axes, "2 smallest") == [[1, -3.0], [2, -0.5]]
    bars = [segment for bar in axes.collections for segment in bar.get_segments()]
    assert bars[0][:, 1].tolist() == [7.0 - 1e-9, 7.0 + 1e-9]


@pytest.mark.parametrize(
    ("values", "num_smallest", "scale"),
    [([], 0, "linear"), ([2.0], 0, "log"), ([-1.0], 1, "linear"), ([0.0], 0, "linear"),
     ([-1.0, 1e-4, 1.0], 1, "symlog")],
)  # fmt: skip
def test_eigenpairs_of_any_number_and_sign_are_drawn(
    small: Axes, values: list[float], num_smallest: int, scale: str
) -> None:
    axes = pairs_of(values, num_smallest).plot(small)
    axes.figure.canvas.draw()
    assert axes.get_yscale() == scale


@pytest.fixture(scope="module")
def density() -> Density:
    values = torch.linspace(-1, 2, 200, dtype=torch.float64)
    return hesspipe.density(torch.diag(values), num_steps=20)


def test_density_is_drawn_between_its_bounds(density: Density) -> None:
    axes = density.plot(width=0.1, num_points=60)
    (line,) = (line for line in axes.lines if line.get_label() == "operator")
    grid = torch.from_numpy(np.asarray(line.get_xdata()))
    curve = density.evaluate(grid, 0.1)
    assert len(grid) == 60
    assert line.get_ydata().tolist() == curve.estimate.tolist()
    (band,) = (each for each in axes.collections if isinstance(each, PolyCollection))
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert set(zip(grid.tolist(), curve.low.tolist(), strict=True)) <= corners
    assert set(zip(grid.tolist(), curve.high.tolist(), strict=True)) <= corners


def test_curve_and_distribution_are_drawn_as_they_are(density: Density) -> None:
    grid = torch.linspace(-0.93, 1.97, 7, dtype=torch.float64)
    for found in (density.evaluate(grid, 0.2), density.distribution(grid)):
        line = found.plot().lines[-1]
        assert line.get_xdata().tolist() == grid.tolist()
        assert line.get_ydata().tolist() == found.estimate.tolist()


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-12])
def test_density_of_a_single_value_is_a_peak(small: Axes, value: float) -> None:
    found = hesspipe.density(torch.eye(4, dtype=torch.float64) * value, num_steps=1)
    axes = found.plot(small)
    axes.figure.canvas.draw()
    line = axes.lines[0]
    grid, heights = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert abs(grid[heights.argmax()] - value) <= np.diff(grid)[0]


def test_outliers_are_drawn_in_another_color_above_the_cutoff() -> None:
    found = hesspipe.count_outliers([0.5, 1.0, 1.5, 8.0, 9.0])
    axes = found.plot()
    above, below, cutoff = axes.lines
    assert above.get_ydata().tolist() == [9.0, 8.0]
    assert below.get_ydata().tolist() == [1.5, 1.0, 0.5]
    assert set(cutoff.get_ydata()) == {found.cutoff}
    assert hesspipe.count_outliers([]).plot() is not axes


def test_layers_are_drawn_in_columns_and_densities_hollow(density: Density) -> None:
    found = hesspipe.LayerSpectra(
        "hessian",
        names={"first": ["0.weight"], "second": ["2.weight"], "third": ["4.weight"]},
        num_parameters={"first": 7, "second": 9, "third": 200},
        results={
            "first": spectrum_of(EIGENVALUES), "second": pairs_of([-3.0, 2.0], 1),
            "third": density,
        },
        failures={},
    )  # fmt: skip
    axes = found.plot()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["first", "second", "third"]
    drawn: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for line in axes.lines:
        for column, value in np.asarray(line.get_xydata()):
            drawn[int(column)].append(value)
            assert (line.get_fillstyle() == "none") == (column == 2)
    assert sorted(drawn[0]) == EIGENVALUES
    assert sorted(drawn[1]) == [-3.0, 2.0]
    assert sorted(drawn[2]) == sorted(density.nodes.flatten().tolist())


def test_plot_draws_on_the_axes_it_is_given_and_returns_them(density: Density) -> None:
    figure, panels = plt.subplots(2, 2, figsize=(3, 3), dpi=30)
    results = [spectrum_of(EIGENVALUES), pairs_of([1.0], 0), density,
               hesspipe.count_outliers([1.0, 2.0])]  # fmt: skip
    for axes, found in zip(panels.flat, results, strict=True):
        assert found.plot(axes) is axes
        assert axes.lines
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()


def test_plot_leaves_global_settings_as_they_are() -> None:
    before = dict(mpl.rcParams)
    spectrum_of(EIGENVALUES).plot()
    assert dict(mpl.rcParams) == before


def test_plot_refuses_what_is_no_axes_and_unknown_kinds() -> None:
    found = spectrum_of([1.0])
    with pytest.raises(TypeError, match="ax must be Axes of matplotlib, got ndarray; of several"):
        found.plot(plt.subplots(2)[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind must be 'ordered' or 'histogram', got 'pie'"):
        found.plot(kind="pie")  # type: ignore[arg-type]


def test_plot_names_a_missing_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="plot needs matplotlib, not installed here"):
        spectrum_of([1.0]).plot()

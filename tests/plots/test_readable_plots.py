"""Plots can be read: no figures without end, whole ranks, marks that stand out, text that fits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from results_of_all_kinds import examples, layers, norms, pairs, spectrum

import hesspipe

EXAMPLES = examples()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    plt.close("all")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def test_plot_opens_no_figures_without_end_and_each_can_still_be_drawn() -> None:
    mine = plt.figure(figsize=(1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        every = [norms(1.0, 0.1).plot() for _ in range(25)]
    assert len(plt.get_fignums()) <= 11
    assert plt.fignum_exists(mine.number)
    assert plt.gcf() is every[-1].figure
    every[0].figure.canvas.draw()


@pytest.mark.parametrize("number", [1, 2, 3, 12])
def test_spectrum_in_order_is_labeled_at_whole_ranks_only(number: int) -> None:
    axes = spectrum(*range(1, number + 1)).plot()
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert shown
    assert all(tick == round(tick) for tick in shown)
    assert f"{number} eigenvalue" + ("s" if number > 1 else "") in axes.get_title(loc="left")


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual", "operator"])
def test_every_plot_names_the_matrix_in_the_same_way(matrix: str) -> None:
    label = {"hessian": "Hessian", "ggn": "Gauss-Newton"}.get(matrix, matrix)
    found = [spectrum(-1.0, 2.0), pairs(-1.0, 2.0), norms(1.0, 0.1), layers()]
    for each in found:
        object.__setattr__(each, "matrix", matrix)
        assert each.plot().get_title(loc="left").startswith(f"{label}: ")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
@pytest.mark.parametrize("background", ["white", "black"])
def test_no_mark_has_the_color_of_the_background(name: str, background: str) -> None:
    for found in EXAMPLES[name][:1]:
        axes: Axes = plt.figure(figsize=(3, 3), facecolor=background).add_subplot()
        axes.set_facecolor(background)
        found.plot(axes)
        for line in axes.lines:
            distance = [abs(a - b) for a, b in zip(to_rgb(line.get_color()), to_rgb(background),
                                                   strict=True)]  # fmt: skip
            assert max(distance) > 0.2, line


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_labels_of_a_new_figure_lie_inside_it(name: str) -> None:
    axes = EXAMPLES[name][0].plot()
    require_inside(axes)


def test_layers_with_long_names_leave_room_for_the_eigenvalues() -> None:
    names = [f"transformer.blocks.{number}.attention.projection.weight" for number in range(12)]
    found = hesspipe.LayerSpectra("hessian", {name: [name] for name in names},
                                  dict.fromkeys(names, 2),
                                  {name: spectrum(-1.0, 2.0) for name in names}, {})  # fmt: skip
    axes = found.plot()
    require_inside(axes)
    assert axes.bbox.height / axes.figure.dpi > 1.5


def require_inside(axes: Any) -> None:
    """Labels and titles lie in the figure, but for a pixel."""
    axes.figure.draw_without_rendering()
    window = axes.figure.bbox
    for text in (axes.xaxis.label, axes.yaxis.label, axes._left_title):
        box = text.get_window_extent()
        if text.get_text():
            assert min(box.x0, box.y0) >= -1, text
            assert max(box.x1 - window.x1, box.y1 - window.y1) <= 1, text


def test_intervals_say_that_they_are_of_a_confidence() -> None:
    for name in ("Density", "Curve", "Distribution", "Count", "Moment"):
        axes = EXAMPLES[name][0].plot()
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert any("% confidence" in text for text in texts), texts

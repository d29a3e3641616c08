"""Figures 8 and 9 and the plane: data, marks and labels in the Figure object."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from hesspipe.figures import basins, line, plane
from hesspipe.plots import style
from hesspipe.tables.store import Result

QUANTITIES = ["train_loss", "train_accuracy", "test_loss", "test_accuracy"]


def histories() -> list[Result]:
    numbers = np.random.default_rng(0).uniform(0.1, 0.9, (6, 4))
    parts = numbers[:3], numbers[3:]
    tables = [pd.DataFrame(part, columns=QUANTITIES).assign(step=[0, 50, 100]) for part in parts]
    return [Result("history", table, {}) for table in tables]


def lines() -> list[Result]:
    numbers = np.random.default_rng(1).uniform(0.1, 0.9, (5, 4))
    table = pd.DataFrame(numbers, columns=QUANTITIES).assign(coefficient=[-0.5, 0, 0.5, 1, 1.5])
    return [Result("line", table, {})]


def plane_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    places = [(a, b) for a in (0.0, 1.0, 2.0) for b in (-1.0, 0.0, 1.0, 2.0)]
    grid = pd.DataFrame(places, columns=["first", "second"])
    grid["train_loss"] = 0.1 * 10 ** (grid["first"] + 0.1 * grid["second"])
    rows = [
        ("path", 0, 0.1, 1.5, 3.0), ("path", 200, 1.5, 0.0, 0.0), ("path", 100, 0.5, 0.3, 2.0),
        ("large batch", 100, 0.5, 0.0, 0.0), ("small batch", 200, 1.5, 0.0, 0.0),
        ("other seed", 200, 1.0, 1.0, 0.0),
    ]  # fmt: skip
    return grid, pd.DataFrame(rows, columns=["point", "step", "first", "second", "distance"])


def curves(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Data of the labeled lines of a panel."""
    return {
        str(curve.get_label()): (list(curve.get_xdata()), list(curve.get_ydata()))
        for curve in axes.lines
        if not str(curve.get_label()).startswith("_")
    }


def marks(axes: Axes) -> list[float]:
    """Places of the vertical lines over the whole height."""
    return [curve.get_xdata()[0] for curve in axes.lines if list(curve.get_ydata()) == [0, 1]]


@pytest.mark.parametrize(
    ("kind", "results", "positions"),
    [
        (basins, histories(), [0, 50, 100, 100, 150, 200]),
        (line, lines(), [-0.5, 0, 0.5, 1, 1.5]),
    ],
)
def test_both_panels_show_both_halves(kind, results, positions):
    data = pd.concat([result.table for result in results])
    found = kind.make_figure(results, {})
    for axes, quantity in zip(found.axes, ("loss", "accuracy"), strict=True):
        expected = {
            "training set": (positions, list(data[f"train_{quantity}"])),
            "test set": (positions, list(data[f"test_{quantity}"])),
        }
        assert curves(axes) == expected
    assert found.axes[0].get_yscale() == "log"
    assert "nats" in found.axes[0].get_ylabel()
    assert found.axes[1].get_ylabel() == "accuracy"
    assert found.get_figwidth() == style.TEXT_WIDTH


def test_basins_marks_the_switch_and_names_the_parts():
    found = basins.make_figure(histories(), {})
    assert [marks(axes) for axes in found.axes] == [[100], [100]]
    names = {text.get_text(): text.xy[0] for text in found.axes[0].texts}
    assert names == {"Part I, large batches": 50, "Part II, small batches": 150}
    assert "step" in found.axes[1].get_xlabel()


def test_line_marks_both_solutions():
    found = line.make_figure(lines(), {})
    for axes in found.axes:
        assert marks(axes) == [0, 1]
        assert {text.get_text(): text.xy[0] for text in axes.texts} == {"LB": 0, "SB": 1}
        assert axes.get_xlabel() == "interpolation coefficient"


def test_plane_shows_the_loss_the_points_and_the_path_in_order():
    grid, points = plane_tables()
    results = [Result("plane", grid, {}), Result("plane_points", points, {})]
    found = plane.make_figure(results, {})
    axes = found.axes[0]
    shown = curves(axes)
    assert shown["path of training, projected"] == ([1.5, 0.3, 0.0], [0.1, 0.5, 1.5])
    assert shown["LB, end of Part I"] == ([0.0], [0.5])
    assert shown["SB, end of Part II"] == ([0.0], [1.5])
    assert shown["SB of another seed, aligned"] == ([1.0], [1.0])
    assert axes.get_aspect() == 1
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1.0, 2.0), (0.0, 2.0))
    contours = axes.collections[0]
    assert contours.levels[0] == pytest.approx(grid["train_loss"].min())
    assert contours.levels[-1] == pytest.approx(grid["train_loss"].max())
    assert "nats" in found.axes[1].get_ylabel()

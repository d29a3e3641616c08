"""Records of a monitor are marked by what is known of them, in plots and in the figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from results_of_all_kinds import monitor

from hesspipe.figures.over_training import make_figure
from hesspipe.tables.store import Result

STATUS = ("certified", "estimated", "open")
MEANINGS = {"certified": "certified", "estimated": "converged by estimate", "open": "not converged"}


def records(*status: str, smallest_at: tuple[int, ...] = ()) -> Result:
    """Records of the largest eigenvalue at steps 0, 1, ..., and of the smallest at some."""
    base = monitor(every=9).result
    rows: list[dict[str, Any]] = []
    for step, each in enumerate(status):
        row = {"step": step, "residual_norm": 0.1, "num_products": 3, "status": each,
               "is_converged": each == "certified", "is_verified": each == "certified"}  # fmt: skip
        if step in smallest_at:
            rows.append(row | {"end": "smallest", "rank": 0, "eigenvalue": -1.0 - step})
        rows.append(row | {"end": "largest", "rank": 99, "eigenvalue": 2.0 + step})
    columns = base.table.columns
    table = pd.DataFrame(rows, columns=columns).astype(
        {name: kind for name, kind in base.table.dtypes.items() if name != "stability_limit"}
    )
    return Result("monitor", table, base.provenance)


def marked(axes: Axes) -> dict[str, list[float]]:
    """Steps at which each kind of mark is drawn, without those of the legend."""
    found: dict[str, list[float]] = {}
    for line in axes.lines:
        if line.get_linestyle() == "None" and line.get_marker() in ("o", "x"):
            is_full = line.get_fillstyle() == "full"
            name = "certified" if is_full else "estimated"
            name = "open" if line.get_marker() == "x" else name
            found[name] = [*found.get(name, []), *np.asarray(line.get_xdata()).tolist()]
    return found


def meanings(axes: Axes) -> set[str]:
    legend = axes.get_legend()
    assert legend is not None
    return {text.get_text() for text in legend.get_texts()} & set(MEANINGS.values())


SERIES = [STATUS, ("certified",) * 3, ("open",), ("estimated", "open", "estimated", "certified")]


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("is_figure", [False, True])
def test_each_value_has_the_mark_of_its_status(series: tuple[str, ...], is_figure: bool) -> None:
    result = records(*series)
    numbers = {"num_largest": 1, "num_smallest": 0}
    axes = make_figure([result], numbers).axes[0] if is_figure else result.plot()
    expected = {
        name: [float(step) for step, each in enumerate(series) if each == name]
        for name in STATUS
        if name in series
    }
    assert marked(axes) == expected
    assert meanings(axes) == {MEANINGS[name] for name in series}


def test_ends_of_different_steps_are_drawn_each_at_its_own() -> None:
    result = records("certified", "estimated", "estimated", "certified", smallest_at=(0, 3))
    largest, smallest = make_figure([result], {"num_largest": 1, "num_smallest": 1}).axes
    assert np.asarray(largest.lines[0].get_xdata()).tolist() == [0, 1, 2, 3]
    assert np.asarray(smallest.lines[0].get_xdata()).tolist() == [0, 3]
    drawn = [bar.lines[0].get_xydata().tolist() for bar in result.plot().containers]
    assert [[0.0, -1.0], [3.0, -4.0]] in drawn


def test_monitor_without_records_says_so() -> None:
    found = monitor(every=9)
    assert found.plot().get_title(loc="left") == "no records"
    assert {axes.get_title(loc="left") for axes in found.figure().axes} == {"no records"}


def test_legend_of_records_lies_above_the_axes() -> None:
    axes = records(*STATUS).plot()
    axes.figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= axes.bbox.y1 - 1
    assert legend.get_window_extent().y1 <= axes.figure.bbox.y1 + 1

"""A few numbers with their intervals on axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hesspipe.plots import style
from hesspipe.plots.axes import on_axes
from hesspipe.plots.spectra import linear_part, scale_both_sides


@on_axes
def plot_estimates(
    axes: Axes, names: Sequence[str], values: Sequence[float],
    bounds: Sequence[tuple[float, float]], what: str, unit: str, title: str = "",
) -> None:  # fmt: skip
    """Plot numbers below each other, each on its interval.

    Parameters
    ----------
    axes : Axes
    names : sequence of str
    values : sequence of float
    bounds : sequence of (float, float)
        Lower and upper ends of the intervals; one that is not finite is not drawn.
    what : str
        What the intervals are.
    unit : str
        Label of the axis of the numbers.
    title : str
    """
    rows, is_dark = np.arange(len(names))[::-1], style.is_dark(axes)
    color, bar = ("white", "#777777") if is_dark else (style.OTHER_COLOR, style.NEUTRAL_COLOR)
    every = np.array([*values, *(end for ends in bounds for end in ends)], dtype=np.float64)
    every = every[np.isfinite(every)]
    for row, (low, high) in zip(rows, bounds, strict=True):
        if np.isfinite((low, high)).all():
            axes.plot(
                (low, high), (row, row), color=bar, linewidth=4,
                solid_capstyle="butt", label=what if row == rows[0] else None, zorder=1,
            )  # fmt: skip
            for end in (low, high):
                axes.plot(end, row, marker="|", markersize=8, color=color)
    axes.plot(
        values, rows, linestyle="none", marker="o", markersize=4, color=color,
        label="estimate",
    )  # fmt: skip
    scale_both_sides(axes, "x", every, linear_part(every, 0.0))
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left")
    axes.legend()

"""The loss on lines and planes between solutions, and barriers, on axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hesspipe.plots import style
from hesspipe.plots.axes import fits_logarithmic, on_axes

Floats = NDArray[np.float64]

_COLORS = "cividis"  # made for the color-blind
_NUM_LEVELS = 14
# Losses that differ by less are shown on a linear scale.
_LEAST_RATIO = 100.0


@on_axes
def plot_line(axes: Axes, places: Floats, halves: dict[str, Floats]) -> None:
    """Plot losses (n,) of the training and of the test set against the coefficient (n,)."""
    order = np.argsort(places, kind="stable")
    for half, losses in halves.items():
        axes.plot(
            places[order], losses[order], marker=".", markersize=4,
            color=style.HALF_COLORS[half], label=style.HALF_LABELS[half],
        )  # fmt: skip
    _mark_ends(axes)
    finite = np.concatenate([each[np.isfinite(each)] for each in halves.values()])
    if len(finite) and _is_logarithmic(float(finite.min()), float(finite.max())):
        axes.set_yscale("log")
    axes.set_ylabel("loss")
    axes.legend()


@on_axes
def plot_barrier(axes: Axes, places: Floats, losses: Floats, height: float, place: float) -> None:
    """Plot losses (n,) between the ends of a line, and the largest rise above the straight line."""
    axes.plot(places, losses, marker=".", markersize=4, color=style.HALF_COLORS["train"],
              label="loss")  # fmt: skip
    if len(losses):
        ends = losses[[0, -1]]
        axes.plot((0, 1), ends, color=style.NEUTRAL_COLOR, linestyle="--", zorder=0)
        low = ends[0] + place * (ends[1] - ends[0])
        axes.plot(
            (place, place), (low, low + height), color=style.OUTLIER_COLOR, linewidth=2,
            label=f"barrier: {height:.3g}",
        )  # fmt: skip
    _mark_ends(axes)
    axes.set_ylabel("loss")
    axes.legend()


def _is_logarithmic(low: float, high: float) -> bool:
    return high > _LEAST_RATIO * low and fits_logarithmic(low, high)


def _mark_ends(axes: Axes) -> None:
    for place in (0.0, 1.0):
        axes.axvline(place, color=style.NEUTRAL_COLOR, linewidth=0.6, linestyle=":", zorder=0)
    axes.set_xlabel("coefficient: 0 at the first point, 1 at the second")


@on_axes
def plot_plane(axes: Axes, first: Floats, second: Floats, losses: Floats) -> None:
    """Plot losses (n,) at points with two coordinates, each (n,), as filled contours.

    Points on one line, or fewer than three, are marked in the color of their loss.
    """
    low, high = float(losses.min(initial=0.0)), float(losses.max(initial=0.0))
    low = float(losses.min()) if len(losses) else low
    is_wide = len(np.unique(first)) > 1 and len(np.unique(second)) > 1 and high > low
    size = max(abs(low), abs(high))
    is_wide &= fits_logarithmic(size, size)  # contours of others overflow
    is_log = _is_logarithmic(low, high)
    norm = style.color_norm(low, high, is_log=is_log)
    drawn: Any
    if is_wide:
        levels = (
            np.geomspace(low, high, _NUM_LEVELS) if is_log else np.linspace(low, high, _NUM_LEVELS)
        )
        drawn = axes.tricontourf(first, second, losses, levels=levels, norm=norm, cmap=_COLORS)
    else:
        drawn = axes.scatter(first, second, c=losses, norm=norm, cmap=_COLORS)
    figure = axes.get_figure()
    if isinstance(figure, Figure):
        figure.colorbar(drawn, ax=axes, label="training loss")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("first coordinate (units of the parameters)")
    axes.set_ylabel("second coordinate")

"""Extreme eigenvalues through training on axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hesspipe.plots import style
from hesspipe.plots.axes import on_axes
from hesspipe.plots.spectra import linear_part, scale_both_sides

Floats: TypeAlias = NDArray[np.float64]
# Steps, eigenvalues, residual norms and status, each of shape (n,).
Line: TypeAlias = tuple[Floats, Floats, Floats, NDArray[np.str_]]

# Marks of what is known of an eigenvalue, and what they mean in a legend.
_MARKS: dict[str, dict[str, Any]] = {
    "certified": {"marker": "o", "fillstyle": "full", "markersize": 3.5},
    "estimated": {"marker": "o", "fillstyle": "none", "markersize": 3.5},
    "open": {"marker": "x", "markersize": 4},
}
_MEANINGS = {
    "certified": "certified",
    "estimated": "converged by estimate",
    "open": "not converged",
}


@on_axes
def plot_training(
    axes: Axes, lines: Mapping[tuple[str, int], Line], limits: tuple[Floats, Floats]
) -> None:
    """Plot eigenvalues against the steps of training, with residual norms as error bars.

    Parameters
    ----------
    axes : Axes
    lines : mapping of (str, int) to Line
        By end ("largest" or "smallest") and order from that end, from 1: steps, eigenvalues,
        residual norms, and what is known of each ("certified", "estimated" or "open").
    limits : two arrays, each of shape (n,)
        Steps, and the largest eigenvalues up to which the optimizer is stable.
    """
    colors = {"largest": style.SIGN_COLORS["positive"], "smallest": style.SIGN_COLORS["negative"]}
    names = {"largest": "largest", "smallest": "most negative"}
    for (end, order), (steps, values, norms, status) in lines.items():
        look: dict[str, Any] = {"color": colors[end], "alpha": max(0.3, 1.0 - 0.2 * (order - 1))}
        label = names[end] if order == 1 else None
        axes.errorbar(steps, values, yerr=norms, elinewidth=0.6, label=label, **look)
        draw_marks(axes, steps, values, status, look)
    if len(limits[0]):
        axes.plot(
            *limits, color=style.matrix_color("", axes), linestyle="--", linewidth=0.6,
            label="stability limit", marker="." if len(limits[0]) == 1 else None,
        )  # fmt: skip
    every = [values for _, values, *_ in lines.values()]
    values = np.concatenate([np.zeros(0), *every, limits[1]])
    noise = max((float(norms.max(initial=0.0)) for *_, norms, _ in lines.values()), default=0.0)
    least = float(np.abs(values[values != 0]).min()) if values.any() else 0.0
    scale_both_sides(axes, "y", values, max(noise, linear_part(values, least / 2)))
    axes.axhline(0.0, color=style.NEUTRAL_COLOR, linewidth=0.6, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step of training")
    axes.set_ylabel(r"eigenvalue $\lambda$ (units of the loss)")
    if not lines:
        axes.set_title("no records", loc="left")
    else:
        handles, _ = axes.get_legend_handles_labels()
        every_status = np.concatenate([status for *_, status in lines.values()])
        axes.legend(
            handles=[*handles, *legend_of_marks(every_status, axes)], ncols=3,
            loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2,
        )  # fmt: skip


def draw_marks(
    axes: Axes, steps: Floats, values: Floats, status: NDArray[np.str_], look: Mapping[str, Any]
) -> None:
    """Mark eigenvalues by what is known of them."""
    for name, marks in _MARKS.items():
        chosen = status == name
        if chosen.any():
            axes.plot(steps[chosen], values[chosen], linestyle="none", **marks, **look)


def legend_of_marks(status: NDArray[np.str_], axes: Axes) -> list[Line2D]:
    """Explain the marks that occur."""
    color = style.matrix_color("", axes)
    return [
        Line2D([], [], linestyle="none", color=color, label=_MEANINGS[name], **marks)
        for name, marks in _MARKS.items()
        if (status == name).any()
    ]

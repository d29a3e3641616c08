"""The training loss on the plane through three solutions, with the path of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator

from hesspipe.plots import style
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result

# Paul Tol's "iridescent" is not in matplotlib; cividis is made for the color-blind, too.
_COLORS = "cividis"
_LABELS = {
    "large batch": "LB, end of Part I",
    "small batch": "SB, end of Part II",
    "other seed": "SB of another seed, aligned",
}


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the loss as contours, with the solutions and the projected path of training.

    The first coordinate is the vertical one, because the figure is wider than high and the
    solution of another seed is farther away than the two parts of one training are from each
    other.

    Parameters
    ----------
    results : sequence of Result
        A plane, with every first coordinate at every second one, and its points.
    settings : mapping
        The figure's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    Figure
        Both axes in the same scale, so that angles and distances are those of the plane.
    """
    (plane,), (points,) = of_kind(results, "plane"), of_kind(results, "plane_points")
    grid = plane.table
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.9))
        axes = figure.subplots()
        draw_contours(axes, grid, style.loss_label(plane.provenance))
        draw_points(axes, points.table)
        axes.set_aspect("equal")
        axes.set_xlim(grid["second"].min(), grid["second"].max())
        axes.set_ylim(grid["first"].min(), grid["first"].max())
        axes.set_xlabel("distance from the line through LB and SB (units of the parameters)")
        axes.set_ylabel("distance along it")
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def draw_contours(axes: Axes, grid: pd.DataFrame, label: str) -> None:
    """Draw the loss with its color bar, on a logarithmic scale if it is positive."""
    table = grid.pivot_table(index="first", columns="second", values="train_loss")
    low, high = float(grid["train_loss"].min()), float(grid["train_loss"].max())
    shares = [number / 14 for number in range(15)]
    is_log = low > 0
    norm = LogNorm(low, high) if is_log else Normalize(low, high)
    levels = [
        low * (high / low) ** share if is_log else low + (high - low) * share for share in shares
    ]
    filled = axes.contourf(
        table.columns, table.index, table.to_numpy(), levels=levels, norm=norm, cmap=_COLORS
    )
    figure = axes.get_figure()
    if isinstance(figure, Figure):
        unit = " (nats)" if "nats" in label else ""
        bar = figure.colorbar(filled, ax=axes, label=f"training loss{unit}")
        if is_log:
            bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        bar.ax.yaxis.set_major_formatter("{x:.3g}")


def draw_points(axes: Axes, points: pd.DataFrame) -> None:
    """Mark the three solutions, and the projected path of training."""
    path = points[points["point"] == "path"].sort_values("step", kind="stable")
    axes.plot(
        path["second"], path["first"], color="white", marker=".", markersize=3,
        label="path of training, projected",
        path_effects=[withStroke(linewidth=2.2, foreground="black")],
    )  # fmt: skip
    for number, (name, label) in enumerate(_LABELS.items()):
        place = points[points["point"] == name]
        axes.plot(
            place["second"], place["first"], linestyle="none", markeredgecolor="black",
            **style.network_line(number) | {"markersize": 6}, label=label,
        )  # fmt: skip

"""Gallery: smoothed spectral densities of several matrices, between bounds that hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.plots import style
from hesspipe.plots.densities import draw_density, finish_density_axes
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the smoothed density of each matrix in the band of its intervals.

    Parameters
    ----------
    results : sequence of Result
        The figure's curves; see `hesspipe.experiments.curves.smooth_densities`.
    settings : mapping
        The figure's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    Figure
        As wide as the text; one color per matrix, densities on a logarithmic axis that ends a
        decade below the peak of a single eigenvalue.
    """
    (curves,) = of_kind(results, "curves")
    table = curves.table
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        axes = figure.subplots()
        for matrix, curve in table.groupby("matrix", sort=False):
            draw_curve(axes, curve, style.MATRIX_COLORS[str(matrix)])
            axes.lines[-1].set_label(style.MATRIX_LABELS[str(matrix)])
        finish_axes(axes, table)
        axes.set_xlabel(r"eigenvalue $\lambda$ (units of the loss)")
        axes.set_ylabel(r"density $\phi$ (1 / units of the loss)")
        axes.legend()
    return figure


def draw_curve(axes: Axes, curve: pd.DataFrame, color: str) -> None:
    """Draw one smoothed density in the band between its bounds, each of which holds at 99.9 %."""
    value, density, low, high = (
        curve[name].to_numpy() for name in ("value", "density", "low", "high")
    )
    draw_density(axes, value, density, (low, high), color)


def finish_axes(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the peak of a single eigenvalue, and leave a decade below it and above the density."""
    single, highest = float(table["one_eigenvalue"].min()), float(table["density"].max())
    finish_density_axes(axes, single, highest)

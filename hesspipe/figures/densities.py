"""Gallery: spectral densities with error bars, of several matrices over each other."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def densities_figure(table: pd.DataFrame) -> Figure:
    """Draw the smoothed density of each matrix with a band of one standard error.

    Parameters
    ----------
    table : DataFrame
        matrix, value, density, standard_error, one_eigenvalue; see
        `hesspipe.tables.densities.smooth_density`.

    Returns
    -------
    Figure
        As wide as the text; one color per matrix, densities on a logarithmic axis that ends a
        decade below the peak of a single eigenvalue.
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        axes = figure.subplots()
        for matrix, curve in table.groupby("matrix", sort=False):
            draw_density(axes, curve, style.MATRIX_COLORS[str(matrix)])
            axes.lines[-1].set_label(style.MATRIX_LABELS[str(matrix)])
        finish_density_axes(axes, table)
        axes.set_xlabel(r"eigenvalue $\lambda$ (units of the loss)")
        axes.set_ylabel(r"density $\phi$ (1 / units of the loss)")
        axes.legend()
    return figure


def draw_density(axes: Axes, curve: pd.DataFrame, color: str) -> None:
    """Draw one smoothed density, and a band of one standard error to both sides of it."""
    axes.fill_between(
        curve["value"],
        curve["density"] - curve["standard_error"],
        curve["density"] + curve["standard_error"],
        color=color,
        alpha=0.3,
        linewidth=0,
    )
    axes.plot(curve["value"], curve["density"], color=color)


def finish_density_axes(axes: Axes, table: pd.DataFrame) -> None:
    """Mark how high one eigenvalue alone would stand, and leave a decade to both sides."""
    single = float(table["one_eigenvalue"].min())
    axes.axhline(
        single,
        color=style.NEUTRAL_COLOR,
        linewidth=0.6,
        linestyle="--",
        zorder=0,
        label="peak of a single eigenvalue",
    )
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(single / 10, 10 * float(table["density"].max()))

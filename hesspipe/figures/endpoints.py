"""Figure 1: all eigenvalues in order, at the first and at the last step of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from hesspipe.figures import style


def endpoints_figure(table: pd.DataFrame, num_largest: int) -> Figure:
    """Lay out one row of panels per step: the whole spectrum, and its right edge.

    Parameters
    ----------
    table : DataFrame
        step, rank (0 = smallest), eigenvalue.
    num_largest : int
        Eigenvalues in the right column.

    Returns
    -------
    Figure
        As wide as the text.
    """
    steps = list(dict.fromkeys(table["step"]))
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.75 * len(steps) + 0.2))
        rows = figure.subplots(len(steps), 2, squeeze=False, width_ratios=[3, 2])
        for (left, right), step in zip(rows, steps, strict=True):
            spectrum = table[table["step"] == step]
            draw_spectrum(left, spectrum)
            draw_spectrum(right, spectrum.nlargest(num_largest, "rank"))
            is_first = step == steps[0]
            left.set_title(_title(step, is_first, len(spectrum)), loc="left")
            right.set_title(f"the {num_largest} largest", loc="left")
            left.set_ylabel(r"eigenvalue $\lambda$ (nats)")
        for axes in rows[-1]:
            axes.set_xlabel("rank of the eigenvalue")
    return figure


def draw_spectrum(axes: Axes, spectrum: pd.DataFrame) -> None:
    """Mark each eigenvalue at its rank, over a line at zero."""
    axes.axhline(0.0, color=style.NEUTRAL_COLOR, linewidth=0.6, zorder=0)
    axes.plot(
        spectrum["rank"],
        spectrum["eigenvalue"],
        linestyle="none",
        marker=".",
        markersize=3,
        color=style.MATRIX_COLORS["hessian"],
    )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)


def _title(step: int, is_first: bool, num_parameters: int) -> str:
    where = "random initial point" if is_first and step == 0 else f"after {step:,} steps"
    return f"{where}, all {num_parameters:,} eigenvalues"

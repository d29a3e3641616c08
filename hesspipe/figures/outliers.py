"""Gallery: the largest eigenvalues, and where each rule cuts them off."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hesspipe.figures import style


def outliers_figure(table: pd.DataFrame, counts: pd.DataFrame) -> Figure:
    """Lay out one panel per rule: the same eigenvalues, its cutoff, and what lies above it.

    Parameters
    ----------
    table : DataFrame
        order (1 = largest), eigenvalue; of one matrix at one step.
    counts : DataFrame
        rule, num_outliers, cutoff; one row per panel, in their order.

    Returns
    -------
    Figure
        As wide as the text, on one logarithmic axis.
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.6))
        panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
        for axes, (_, count) in zip(panels, counts.iterrows(), strict=True):
            draw_outliers(axes, table, float(count["cutoff"]))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.set_title(f"{count['rule']}: {int(count['num_outliers'])} above the cutoff")
        panels[0].set_yscale("log", nonpositive="clip")
        panels[0].set_ylabel(r"eigenvalue $\lambda$ (units of the loss)")
        figure.supxlabel(
            "order of the largest eigenvalues", fontsize=style.RC_PARAMS["axes.labelsize"]
        )
    return figure


def draw_outliers(axes: Axes, table: pd.DataFrame, cutoff: float) -> None:
    """Mark eigenvalues above and below a cutoff in two colors, and the cutoff."""
    is_outlier = table["eigenvalue"] > cutoff
    for part, color in (
        (is_outlier, style.OUTLIER_COLOR),
        (~is_outlier, style.MATRIX_COLORS["hessian"]),
    ):
        axes.plot(
            table["order"][part],
            table["eigenvalue"][part],
            linestyle="none",
            marker=".",
            markersize=3,
            color=color,
        )
    axes.axhline(cutoff, color=style.OUTLIER_COLOR, linewidth=0.6, linestyle="--")

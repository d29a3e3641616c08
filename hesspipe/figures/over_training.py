"""Gallery: how both ends of a spectrum move as training goes on."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def over_training_figure(table: pd.DataFrame) -> Figure:
    """Draw a line for each of the extreme eigenvalues against the steps of training.

    Parameters
    ----------
    table : DataFrame
        step, end ("largest" or "smallest"), order (1 = most extreme), eigenvalue; of one
        matrix at several steps.

    Returns
    -------
    Figure
        As wide as the text: the largest eigenvalues on a logarithmic axis, the smallest on a
        linear one; lines grow lighter with their order.
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        left, right = figure.subplots(1, 2)
        draw_lines(left, table[table["end"] == "largest"])
        draw_lines(right, table[table["end"] == "smallest"])
        left.set_yscale("log", nonpositive="clip")
        right.axhline(0.0, color=style.NEUTRAL_COLOR, linewidth=0.6, zorder=0)
        right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
        left.set_ylabel(r"eigenvalue $\lambda$ (units of the loss)")
        for axes, end in ((left, "largest"), (right, "smallest")):
            num_lines = table.loc[table["end"] == end, "order"].max()
            axes.set_title(f"the {num_lines} {end}", loc="left")
            axes.set_xlabel("step of training")
    return figure


def draw_lines(axes: Axes, part: pd.DataFrame) -> None:
    """Draw the eigenvalues of each order through the steps, the most extreme one darkest."""
    num_lines = part["order"].max()
    for order, line in part.sort_values("step").groupby("order"):
        axes.plot(
            line["step"],
            line["eigenvalue"],
            color=style.MATRIX_COLORS["hessian"],
            marker=".",
            markersize=3,
            alpha=1.0 - 0.7 * (int(str(order)) - 1) / num_lines,
        )

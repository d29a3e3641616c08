"""H = G + R through training: whether the residual fades."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def decomposition_figure(table: pd.DataFrame, num_classes: int) -> Figure:
    """Draw the size of the residual, the negative ends, and the count of outliers.

    Parameters
    ----------
    table : DataFrame
        What `hesspipe.tables.decomposition.decomposition_table` gives.
    num_classes : int
        The count that the paper expects.

    Returns
    -------
    Figure
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 4.2))
        panels = figure.subplots(2, 2)
        draw_ratios(panels[0, 0], table)
        draw_negative_ends(panels[0, 1], table)
        draw_negative_counts(panels[1, 0], table)
        draw_outliers(panels[1, 1], table, num_classes)
        for axes in panels.ravel():
            axes.set_xlabel("step of training")
            axes.legend()
    return figure


def draw_ratios(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the residual's norms relative to the Hessian's, and how far H and G are apart."""
    for number, (column, label) in enumerate(
        {
            "operator_ratio": r"$\|R\| / \|H\|$, operator",
            "frobenius_ratio": r"$\|R\| / \|H\|$, Frobenius",
            "largest_difference": r"$|\lambda(H) - \lambda(G)|$, top",
        }.items()
    ):
        axes.plot(table["step"], table[column], label=label, **style.network_line(number))
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylabel("ratio")


def draw_negative_ends(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the magnitude of the most negative eigenvalues of H and R."""
    for number, matrix in enumerate(("hessian", "residual")):
        axes.plot(
            table["step"], -table[f"smallest_{matrix}"], color=style.MATRIX_COLORS[matrix],
            marker=style.NETWORK_MARKERS[number], markersize=2.5,
            label=style.MATRIX_LABELS[matrix],
        )  # fmt: skip
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylabel(r"$-\lambda_{\min}$ (nats)")


def draw_negative_counts(axes: Axes, table: pd.DataFrame) -> None:
    """Mark how many eigenvalues of H and R are negative."""
    for number, matrix in enumerate(("hessian", "residual")):
        axes.plot(
            table["step"], table[f"num_negative_{matrix}"], color=style.MATRIX_COLORS[matrix],
            marker=style.NETWORK_MARKERS[number], markersize=2.5,
            label=style.MATRIX_LABELS[matrix],
        )  # fmt: skip
    axes.set_ylabel("negative eigenvalues")


def draw_outliers(axes: Axes, table: pd.DataFrame, num_classes: int) -> None:
    """Mark the count of outliers of H and G, and the number of classes."""
    for number, (column, matrix) in enumerate(
        {"num_outliers": "hessian", "num_outliers_ggn": "ggn"}.items()
    ):
        axes.plot(
            table["step"], table[column], color=style.MATRIX_COLORS[matrix],
            marker=style.NETWORK_MARKERS[number], markersize=2.5,
            label=style.MATRIX_LABELS[matrix],
        )  # fmt: skip
    axes.axhline(num_classes, color=style.NEUTRAL_COLOR, zorder=0, label="classes")
    axes.set_ylabel("outliers")

"""H = G + R through training: the residual, negative eigenvalues and outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.curvature.matrix import Matrix
from hesspipe.plots import style
from hesspipe.tables.decomposition import make_table
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result

# G has no negative eigenvalues.
_WITH_NEGATIVE = (Matrix.HESSIAN, Matrix.RESIDUAL)


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the size of the residual, the negative eigenvalues, and the outlier counts.

    Parameters
    ----------
    results : sequence of Result
        One decomposition; see `hesspipe.tables.decomposition.decompose`.
    settings : mapping
        rule.

    Returns
    -------
    Figure
    """
    (decomposition,) = of_kind(results, "decomposition")
    table, num_classes = make_table(results, settings), decomposition.provenance["num_classes"]
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 4.2))
        panels = figure.subplots(2, 2)
        draw_ratios(panels[0, 0], table)
        draw_most_negative(panels[0, 1], table)
        draw_negative_counts(panels[1, 0], table)
        draw_outliers(panels[1, 1], table, num_classes)
        for axes in panels.ravel():
            axes.set_xlabel("step of training")
            axes.legend()
    return figure


def draw_ratios(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the norms of the residual, and the distance between H and G, relative to H."""
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


def draw_most_negative(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the magnitude of the most negative eigenvalues of H and R."""
    values = {matrix: -table[f"smallest_{matrix}"] for matrix in _WITH_NEGATIVE}
    draw_by_matrix(axes, table["step"], values)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylabel(r"$-\lambda_{\min}$ (nats)")


def draw_negative_counts(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the number of negative eigenvalues of H and R."""
    values = {matrix: table[f"num_negative_{matrix}"] for matrix in _WITH_NEGATIVE}
    draw_by_matrix(axes, table["step"], values)
    axes.set_ylabel("negative eigenvalues")


def draw_outliers(axes: Axes, table: pd.DataFrame, num_classes: int) -> None:
    """Mark the number of outliers of H and G, and the number of classes."""
    values = {Matrix.HESSIAN: table["num_outliers"], Matrix.GGN: table["num_outliers_ggn"]}
    draw_by_matrix(axes, table["step"], values)
    axes.axhline(num_classes, color=style.NEUTRAL_COLOR, zorder=0, label="classes")
    axes.set_ylabel("outliers")


def draw_by_matrix(axes: Axes, steps: pd.Series, values: Mapping[Matrix, pd.Series]) -> None:
    """Draw a curve for each of two matrices against the steps of training."""
    for number, (matrix, column) in enumerate(values.items()):
        axes.plot(
            steps, column, color=style.MATRIX_COLORS[matrix],
            marker=style.NETWORK_MARKERS[number], markersize=2.5,
            label=style.MATRIX_LABELS[matrix],
        )  # fmt: skip

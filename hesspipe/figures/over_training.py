"""Gallery: the largest and the most negative eigenvalues through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.curvature.matrix import Matrix
from hesspipe.plots import style
from hesspipe.tables.monitor import by_step
from hesspipe.tables.queries import extreme_eigenvalues, of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw a line for each of the extreme eigenvalues against the steps of training.

    Parameters
    ----------
    results : sequence of Result
        Spectra, or eigenpairs, of one matrix at several steps, or the table of a monitor.
        Eigenvalues that count as zero are left out.
    settings : mapping
        num_largest, num_smallest.

    Returns
    -------
    Figure
        As wide as the text: magnitudes of the largest and of the most negative eigenvalues on
        logarithmic axes; lines grow lighter with their order. An end of 0 eigenvalues has no axes.
    """
    found = of_kind(results, "spectrum", "eigenpairs", "monitor")
    spectra = [part for result in found for part in by_step(result)]
    table = extreme_eigenvalues(spectra, settings["num_largest"], settings["num_smallest"])
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        panels = [("largest", 1.0, "largest"), ("smallest", -1.0, "most negative")]
        panels = [panel for panel in panels if settings[f"num_{panel[0]}"] > 0]
        every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (end, sign, title) in zip(every_axes, panels, strict=True):
            part = table[table["end"] == end]
            draw_lines(axes, part, sign)
            axes.set_yscale("log")
            axes.set_title(f"the {part['order'].max()} {title}", loc="left")
            axes.set_xlabel("step of training")
        every_axes[0].set_ylabel(r"magnitude $|\lambda|$ (units of the loss)")
    return figure


def draw_lines(axes: Axes, part: pd.DataFrame, sign: float) -> None:
    """Draw the eigenvalues of each order that have this sign, the most extreme one darkest."""
    num_lines = part["order"].max()
    for order, line in part.sort_values("step").groupby("order"):
        of_sign = line[sign * line["eigenvalue"] > line["uncertainty"]]
        axes.plot(
            of_sign["step"],
            sign * of_sign["eigenvalue"],
            color=style.MATRIX_COLORS[Matrix.HESSIAN],
            marker=".",
            markersize=3,
            alpha=1.0 - 0.7 * (int(str(order)) - 1) / num_lines,
        )

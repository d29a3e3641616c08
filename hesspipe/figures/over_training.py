"""Gallery: the largest and the most negative eigenvalues through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.curvature.matrix import Matrix
from hesspipe.plots import style
from hesspipe.plots.training import draw_marks, legend_of_marks
from hesspipe.tables.monitor import by_step
from hesspipe.tables.queries import extreme_eigenvalues, of_kind
from hesspipe.tables.store import Result

_NOTHING = pd.DataFrame(columns=["step", "end", "order", "eigenvalue", "uncertainty", "status"])


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
        Records of a monitor have marks that tell which of them converged.
    """
    found = of_kind(results, "spectrum", "eigenpairs", "monitor")
    spectra = [part for result in found for part in by_step(result)]
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        panels = [("largest", 1.0, "largest"), ("smallest", -1.0, "most negative")]
        panels = [panel for panel in panels if settings[f"num_{panel[0]}"] > 0]
        every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (end, sign, title) in zip(every_axes, panels, strict=True):
            part = select(spectra, end, settings[f"num_{end}"])
            draw_lines(axes, part, sign)
            axes.set_yscale("log")
            number = part["order"].max() if len(part) else 0
            axes.set_title(f"the {number} {title}" if number else "no records", loc="left")
            axes.set_xlabel("step of training")
        every_axes[0].set_ylabel(r"magnitude $|\lambda|$ (units of the loss)")
    return figure


def select(spectra: Sequence[Result], end: str, number: int) -> pd.DataFrame:
    """Select the eigenvalues of one end; records of a monitor need not have it."""
    known = [
        result
        for result in spectra
        if "status" not in result.table or (result.table["end"] == end).any()
    ]
    numbers = (number, 0) if end == "largest" else (0, number)
    return extreme_eigenvalues(known, *numbers) if known else _NOTHING


def draw_lines(axes: Axes, part: pd.DataFrame, sign: float) -> None:
    """Draw the eigenvalues of each order that have this sign, the most extreme one darkest."""
    num_lines, is_record = part["order"].max(), part["status"].notna().any()
    marks = []
    for order, line in part.sort_values("step").groupby("order"):
        of_sign = line[sign * line["eigenvalue"] > line["uncertainty"]]
        look = {
            "color": style.MATRIX_COLORS[Matrix.HESSIAN],
            "alpha": 1.0 - 0.7 * (int(str(order)) - 1) / num_lines,
        }
        steps, values = of_sign["step"].to_numpy(), sign * of_sign["eigenvalue"].to_numpy()
        axes.plot(steps, values, marker=None if is_record else ".", markersize=3, **look)
        marks.append((steps, values, of_sign["status"].to_numpy(str), look))
    if is_record:
        for each in marks:
            draw_marks(axes, *each)
        axes.legend(handles=legend_of_marks(part["status"].to_numpy(str), axes))

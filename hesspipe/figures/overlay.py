"""Gallery: the largest and the most negative eigenvalues of H, G and R."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hesspipe.plots import style
from hesspipe.plots.spectra import draw_end
from hesspipe.tables.queries import extreme_eigenvalues, of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the extreme eigenvalues of several matrices: the largest, and the most negative.

    Parameters
    ----------
    results : sequence of Result
        Spectra, or eigenpairs, of several matrices at one step. Eigenvalues that count as zero
        are left out.
    settings : mapping
        num_largest, num_smallest.

    Returns
    -------
    Figure
        As wide as the text; two panels on one logarithmic axis of magnitudes.
    """
    spectra = of_kind(results, "spectrum", "eigenpairs")
    table = extreme_eigenvalues(spectra, settings["num_largest"], settings["num_smallest"])
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        left, right = figure.subplots(1, 2, sharey=True)
        for matrix, part in table.groupby("matrix", sort=False):
            draw_sign(left, part[part["end"] == "largest"], 1.0, str(matrix))
            draw_sign(right, part[part["end"] == "smallest"], -1.0, str(matrix))
        left.set_yscale("log", nonpositive="mask")
        left.set_ylabel(r"magnitude $|\lambda|$ (units of the loss)")
        left.set_title("largest", loc="left")
        right.set_title("most negative", loc="left")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set_xlabel("order of the largest")
        right.set_xlabel("order of the most negative")
        left.legend()
    return figure


def draw_sign(axes: Axes, part: pd.DataFrame, sign: float, matrix: str) -> None:
    """Mark the eigenvalues of one matrix that have the sign of this end."""
    of_sign = part[sign * part["eigenvalue"] > part["uncertainty"]].sort_values("order")
    magnitudes = sign * of_sign["eigenvalue"].to_numpy()
    draw_end(axes, of_sign["order"].to_numpy(), magnitudes, matrix)

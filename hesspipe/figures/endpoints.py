"""Figure 1: all eigenvalues in order, at the first and at the last step of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from hesspipe.curvature.matrix import Matrix
from hesspipe.plots import style
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Lay out one row of panels for each step: the whole spectrum, and its right edge.

    Parameters
    ----------
    results : sequence of Result
        One spectrum for each step.
    settings : mapping
        num_largest, the number of eigenvalues in the right column.

    Returns
    -------
    Figure
        As wide as the text.
    """
    spectra, num_largest = of_kind(results, "spectrum"), settings["num_largest"]
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.75 * len(spectra) + 0.2))
        rows = figure.subplots(len(spectra), 2, squeeze=False, width_ratios=[3, 2])
        for number, ((left, right), spectrum) in enumerate(zip(rows, spectra, strict=True)):
            draw_spectrum(left, spectrum.table)
            draw_spectrum(right, spectrum.table.nlargest(num_largest, "rank"))
            title = _title(spectrum.provenance["step"], number == 0, len(spectrum.table))
            left.set_title(title, loc="left")
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
        color=style.MATRIX_COLORS[Matrix.HESSIAN],
    )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)


def _title(step: int, is_first: bool, num_parameters: int) -> str:
    where = "random initial point" if is_first and step == 0 else f"after {step:,} steps"
    return f"{where}, all {num_parameters:,} eigenvalues"

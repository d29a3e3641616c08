"""Gallery: the largest eigenvalues, and the cutoff of each rule for outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hesspipe.plots import style
from hesspipe.plots.spectra import draw_outliers
from hesspipe.tables.queries import extreme_eigenvalues, of_kind, outlier_rows
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Lay out one panel for each rule: the same eigenvalues, and the rule's cutoff.

    Parameters
    ----------
    results : sequence of Result
        One spectrum, or one table of eigenpairs, and the outlier counts of the run.
    settings : mapping
        step, matrix; num_largest, the number of eigenvalues.

    Returns
    -------
    Figure
        As wide as the text, on one logarithmic axis.
    """
    spectra, (outliers,) = of_kind(results, "spectrum", "eigenpairs"), of_kind(results, "outliers")
    largest = extreme_eigenvalues(spectra, settings["num_largest"], 0)
    counts = outlier_rows(outliers, settings["step"], settings["matrix"])
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.6))
        panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
        for axes, (_, count) in zip(panels, counts.iterrows(), strict=True):
            values = largest["eigenvalue"].to_numpy()
            draw_outliers(axes, largest["order"].to_numpy(), values, float(count["cutoff"]))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.set_title(f"{count['rule']}: {int(count['num_outliers'])} above the cutoff")
        panels[0].set_yscale("log", nonpositive="clip")
        panels[0].set_ylabel(r"eigenvalue $\lambda$ (units of the loss)")
        figure.supxlabel(
            "order of the largest eigenvalues", fontsize=style.RC_PARAMS["axes.labelsize"]
        )
    return figure

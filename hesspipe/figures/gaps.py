"""Figure 2: the largest eigenvalues in order, and the gap below the outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.plots import style
from hesspipe.plots.spectra import draw_outliers
from hesspipe.tables.queries import of_kind, of_same_run, outlier_row
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Lay out one panel for each experiment, side by side, on one logarithmic axis.

    Parameters
    ----------
    results : sequence of Result
        One spectrum for each panel, and the outlier counts of the same runs.
    settings : mapping
        rule; num_largest, the number of eigenvalues in each panel.

    Returns
    -------
    Figure
        As wide as the text.
    """
    spectra, outliers = of_kind(results, "spectrum"), of_kind(results, "outliers")
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.6))
        panels = figure.subplots(1, len(spectra), sharey=True, squeeze=False)[0]
        for axes, spectrum in zip(panels, spectra, strict=True):
            provenance = spectrum.provenance
            count = outlier_row(
                of_same_run(spectrum, outliers),
                provenance["step"],
                provenance["matrix"],
                settings["rule"],
            )
            largest = spectrum.table.nlargest(settings["num_largest"], "rank")
            draw_gap(axes, largest, count, provenance["num_classes"])
        panels[0].set_yscale("log", nonpositive="clip")
        panels[0].set_ylabel(r"eigenvalue $\lambda$ (nats)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        figure.supxlabel("rank of the eigenvalue", fontsize=style.RC_PARAMS["axes.labelsize"])
    return figure


def draw_gap(axes: Axes, spectrum: pd.DataFrame, count: pd.Series, num_classes: int) -> None:
    """Mark eigenvalues above and below the cutoff, and the k largest."""
    ranks, eigenvalues = spectrum["rank"].to_numpy(), spectrum["eigenvalue"].to_numpy()
    draw_outliers(axes, ranks, eigenvalues, float(count["cutoff"]))
    last = spectrum["rank"].max()
    axes.axvline(
        last + 0.5 - num_classes,
        color=style.NEUTRAL_COLOR,
        linewidth=0.8,
        zorder=0,
        label="$k$ eigenvalues to its right",
    )
    axes.set_title(f"$k = {num_classes}$\n{int(count['num_outliers'])} above the gap")
    axes.set_xticks([spectrum["rank"].min(), last], [f"{spectrum['rank'].min():,}", f"{last:,}"])

"""Figure 10: spectra of linear models with the laws that predict them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.plots import style
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result

_TITLES = {"logistic": "logistic, one blob", "softmax": "softmax, two blobs"}


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw one panel per model: histogram, both laws, outliers.

    The laws are drawn as their mass in each bin of the histogram: their supports may have
    pieces far narrower than a bin, which hold single eigenvalues. The abscissa is the root of
    the eigenvalue, so that both a bulk that piles up at zero and outliers far to the right are
    visible; the exact zeros are counted in the title.

    Parameters
    ----------
    results : sequence of Result
        "law_histogram" and "law_outliers" of each model, in the same order, from
        `hesspipe.experiments.laws.compare_with_laws`.
    settings : mapping
        num_columns.

    Returns
    -------
    Figure
    """
    histograms = of_kind(results, "law_histogram")
    outliers = of_kind(results, "law_outliers")
    num_columns = settings["num_columns"]
    num_rows = -(-len(histograms) // num_columns)
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.7 * num_rows + 0.4))
        panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes, histogram, found in zip(panels, histograms, outliers, strict=False):
            draw_bulk(axes, histogram.table)
            draw_outliers(axes, found.table)
            axes.set_title(_title(histogram.provenance))
        for axes in panels[-num_columns:]:
            axes.set_xlabel(r"root of the eigenvalue $\sqrt{\lambda}$")
        for axes in panels[::num_columns]:
            axes.set_ylabel(r"density of $\sqrt{\lambda}$")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def draw_bulk(axes: Axes, histogram: pd.DataFrame) -> None:
    """Mark one model's eigenvalues that are not exactly zero, and what the laws predict."""
    ends = np.append(histogram["lower"], histogram["upper"].iloc[-1])
    axes.stairs(histogram["measured"], ends, fill=True, color=style.NEUTRAL_COLOR, label="measured")
    axes.stairs(
        histogram["plain_density"], ends,
        color=style.MATRIX_COLORS["residual"], linestyle="--", label="Marchenko-Pastur",
    )  # fmt: skip
    axes.stairs(
        histogram["density"], ends,
        color=style.MATRIX_COLORS["hessian"], label="generalized law",
    )  # fmt: skip


def draw_outliers(axes: Axes, outliers: pd.DataFrame) -> None:
    """Mark the predicted outliers as lines and the measured ones as triangles."""
    for predicted in outliers["predicted"]:
        axes.axvline(np.sqrt(predicted), color=style.OUTLIER_COLOR, linestyle=":")
    for measured in outliers["measured"]:
        axes.plot(np.sqrt(measured), 0, marker="^", color=style.OUTLIER_COLOR, clip_on=False)


def _title(about: Mapping[str, Any]) -> str:
    alpha = about["num_parameters"] / about["num_samples"]
    return (
        rf"{_TITLES[about['entry']['model']]}, $\alpha$ = {alpha:g}, "
        f"{about['num_zero']} zeros of {about['num_parameters']}"
    )

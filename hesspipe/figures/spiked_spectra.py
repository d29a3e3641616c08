"""Theorem 2: zeros, bulk, and outliers on both sides."""

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


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw one panel per model: its first spectrum, the edges of the bulk, the outliers.

    Parameters
    ----------
    results : sequence of Result
        "spiked_spectra" and "parts" of each model, in the same order, from
        `hesspipe.experiments.spiked_models.sample_spiked_spectra`.
    settings : mapping
        num_bins.

    Returns
    -------
    Figure
    """
    spectra, parts = of_kind(results, "spiked_spectra"), of_kind(results, "parts")
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.6))
        panels = figure.subplots(1, len(spectra), squeeze=False)[0]
        for axes, spectrum, found in zip(panels, spectra, parts, strict=True):
            draw_spectrum(axes, spectrum.table, found.table, settings["num_bins"])
            axes.set_title(_title(spectrum.provenance, found.table))
            axes.set_xlabel(r"eigenvalue $\lambda$")
        panels[0].set_ylabel("number of eigenvalues")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def draw_spectrum(axes: Axes, spectrum: pd.DataFrame, parts: pd.DataFrame, num_bins: int) -> None:
    """Mark the eigenvalues of the first repeat that are not zero, and each predicted position."""
    first = spectrum[(spectrum["repeat"] == 0) & (spectrum["rank"] >= _num_zeros(parts))]
    # A logarithmic axis separates outliers on both sides.
    values = first["eigenvalue"]
    bins = np.geomspace(values.min(), values.max(), num_bins + 1)
    axes.hist(values, bins=bins.tolist(), color=style.NEUTRAL_COLOR, label="one spectrum")
    axes.set_xscale("log")
    edges = parts[parts["part"].isin(["lower_edge", "upper_edge"])]["predicted"]
    for number, edge in enumerate(edges):
        axes.axvline(
            edge, color=style.MATRIX_COLORS["hessian"], linestyle="--",
            label="edges of the bulk" if number == 0 else None,
        )  # fmt: skip
    outliers = parts[parts["part"].isin(["left_outlier", "right_outlier"])]
    for number, predicted in enumerate(outliers["predicted"]):
        axes.axvline(
            predicted, color=style.OUTLIER_COLOR, linestyle=":",
            label="predicted outliers" if number == 0 else None,
        )  # fmt: skip
    axes.plot(
        outliers["mean"], np.zeros(len(outliers)), "^", color=style.OUTLIER_COLOR,
        label="their mean", clip_on=False,
    )  # fmt: skip


def _num_zeros(parts: pd.DataFrame) -> int:
    return int(parts[parts["part"] == "zeros"]["predicted"].iloc[0])


def _title(about: Mapping[str, Any], parts: pd.DataFrame) -> str:
    alpha = about["num_parameters"] / about["num_samples"]
    return rf"$\alpha$ = {alpha:g}, {_num_zeros(parts)} zeros of {about['num_parameters']}"

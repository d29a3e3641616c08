"""Theorem 2: zeros, bulk, and outliers on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def spiked_spectra_figure(
    spectra: Sequence[pd.DataFrame], table: pd.DataFrame, num_bins: int
) -> Figure:
    """Draw a panel for each model: its first spectrum, the bulk's edges, the outliers.

    Parameters
    ----------
    spectra : sequence of DataFrame
        repeat, rank, eigenvalue, with the model's name in `attrs`.
    table : DataFrame
        What `hesspipe.tables.laws.spiked_spectra_table` gives.
    num_bins : int

    Returns
    -------
    Figure
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.6))
        panels = figure.subplots(1, len(spectra), squeeze=False)[0]
        for axes, spectrum in zip(panels, spectra, strict=True):
            name = spectrum.attrs["name"]
            draw_spectrum(axes, spectrum, table[table["name"] == name], num_bins)
            axes.set_xlabel(r"eigenvalue $\lambda$")
        panels[0].set_ylabel("number of eigenvalues")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def draw_spectrum(axes: Axes, spectrum: pd.DataFrame, table: pd.DataFrame, num_bins: int) -> None:
    """Mark the first repeat's eigenvalues that are not zero, and each predicted position."""
    about = spectrum.attrs
    num_zeros = int(table[table["part"] == "zeros"]["predicted"].iloc[0])
    first = spectrum[(spectrum["repeat"] == 0) & (spectrum["rank"] >= num_zeros)]["eigenvalue"]
    # A logarithmic axis, so that outliers on both sides can be told apart.
    bins = np.geomspace(first.min(), first.max(), num_bins + 1)
    axes.hist(first, bins=bins.tolist(), color=style.NEUTRAL_COLOR, label="one spectrum")
    axes.set_xscale("log")
    edges = table[table["part"].isin(["lower_edge", "upper_edge"])]["predicted"]
    for number, edge in enumerate(edges):
        axes.axvline(
            edge, color=style.MATRIX_COLORS["hessian"], linestyle="--",
            label="edges of the bulk" if number == 0 else None,
        )  # fmt: skip
    outliers = table[table["part"].isin(["left_outlier", "right_outlier"])]
    for number, predicted in enumerate(outliers["predicted"]):
        axes.axvline(
            predicted, color=style.OUTLIER_COLOR, linestyle=":",
            label="predicted outliers" if number == 0 else None,
        )  # fmt: skip
    axes.plot(
        outliers["mean"], np.zeros(len(outliers)), "^", color=style.OUTLIER_COLOR,
        label="their mean", clip_on=False,
    )  # fmt: skip
    alpha = about["num_parameters"] / about["num_samples"]
    axes.set_title(rf"$\alpha$ = {alpha:g}, {num_zeros} zeros of {about['num_parameters']}")

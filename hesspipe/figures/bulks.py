"""Figure 10: spectra of linear models with the laws that predict them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style

_TITLES = {"logistic": "logistic, one blob", "softmax": "softmax, two blobs"}


def bulks_figure(
    spectra: Sequence[pd.DataFrame],
    laws: Sequence[pd.DataFrame],
    outliers: Sequence[pd.DataFrame],
    num_columns: int,
    num_bins: int,
) -> Figure:
    """Draw a panel for each model: histogram, both laws, outliers.

    The abscissa is the root of the eigenvalue, so that a bulk that piles up at zero and outliers
    far to the right can both be seen; the exact zeros are counted in the title.

    Parameters
    ----------
    spectra : sequence of DataFrame
        rank, eigenvalue.
    laws, outliers : sequence of DataFrame
        What `hesspipe.experiments.laws.compare_with_laws` gives, with its summary in `attrs`.
    num_columns, num_bins : int

    Returns
    -------
    Figure
    """
    num_rows = -(-len(spectra) // num_columns)
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.7 * num_rows + 0.4))
        panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes, spectrum, law, found in zip(panels, spectra, laws, outliers, strict=False):
            draw_bulk(axes, spectrum, law, found, num_bins)
        for axes in panels[-num_columns:]:
            axes.set_xlabel(r"root of the eigenvalue $\sqrt{\lambda}$")
        for axes in panels[::num_columns]:
            axes.set_ylabel(r"density of $\sqrt{\lambda}$")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def draw_bulk(
    axes: Axes, spectrum: pd.DataFrame, law: pd.DataFrame, outliers: pd.DataFrame, num_bins: int
) -> None:
    """Mark one model's eigenvalues that are not exactly zero, and what was predicted of them."""
    about = law.attrs
    nonzero = np.sqrt(spectrum["eigenvalue"].to_numpy()[about["num_zero_predicted"] :])
    num_features = about["num_features"]
    # Both per eigenvalue of the law, zeros included, so that the areas can be compared.
    axes.hist(
        nonzero,
        bins=num_bins,
        weights=np.full(len(nonzero), num_bins / (np.ptp(nonzero) * num_features)),
        color=style.NEUTRAL_COLOR,
        label="measured",
    )
    root = np.sqrt(law["position"])
    axes.plot(
        root, 2 * root * law["plain_density"],
        color=style.MATRIX_COLORS["residual"], linestyle="--", label="Marchenko-Pastur",
    )  # fmt: skip
    axes.plot(
        root, 2 * root * law["density"],
        color=style.MATRIX_COLORS["hessian"], label="generalized law",
    )  # fmt: skip
    for predicted in outliers["predicted"]:
        axes.axvline(np.sqrt(predicted), color=style.OUTLIER_COLOR, linestyle=":")
    for measured in outliers["measured"]:
        axes.plot(np.sqrt(measured), 0, marker="^", color=style.OUTLIER_COLOR, clip_on=False)
    alpha = about["num_parameters"] / about["num_samples"]
    axes.set_title(
        rf"{_TITLES[about['entry']['model']]}, $\alpha$ = {alpha:g}, "
        f"{about['num_zero']} zeros of {about['num_parameters']}"
    )

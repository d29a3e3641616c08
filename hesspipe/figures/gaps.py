"""Figure 2: the top of the ordered spectrum, and the gap below the outliers."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def gaps_figure(spectra: pd.DataFrame, outliers: pd.DataFrame, num_largest: int) -> Figure:
    """Lay out one panel per experiment, side by side, on one logarithmic axis.

    Parameters
    ----------
    spectra : DataFrame
        experiment, rank (0 = smallest), eigenvalue.
    outliers : DataFrame
        experiment, num_classes, num_outliers, cutoff; one row per panel, in their order.
    num_largest : int
        Eigenvalues in each panel.

    Returns
    -------
    Figure
        As wide as the text.
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.6))
        panels = figure.subplots(1, len(outliers), sharey=True, squeeze=False)[0]
        for axes, (_, count) in zip(panels, outliers.iterrows(), strict=True):
            spectrum = spectra[spectra["experiment"] == count["experiment"]]
            draw_gap(axes, spectrum.nlargest(num_largest, "rank"), count)
        panels[0].set_yscale("log", nonpositive="clip")
        panels[0].set_ylabel(r"eigenvalue $\lambda$ (nats)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        figure.supxlabel("rank of the eigenvalue", fontsize=style.RC_PARAMS["axes.labelsize"])
    return figure


def draw_gap(axes: Axes, spectrum: pd.DataFrame, count: pd.Series) -> None:
    """Mark eigenvalues above and below the cutoff, the cutoff, and where k would end."""
    is_outlier = spectrum["eigenvalue"] > count["cutoff"]
    for part, color in (
        (is_outlier, style.OUTLIER_COLOR),
        (~is_outlier, style.MATRIX_COLORS["hessian"]),
    ):
        axes.plot(
            spectrum["rank"][part],
            spectrum["eigenvalue"][part],
            linestyle="none",
            marker=".",
            markersize=3,
            color=color,
        )
    last = spectrum["rank"].max()
    num_classes, num_outliers = int(count["num_classes"]), int(count["num_outliers"])
    axes.axhline(
        count["cutoff"], color=style.OUTLIER_COLOR, linewidth=0.6, linestyle="--", label="cutoff"
    )
    axes.axvline(
        last + 0.5 - num_classes,
        color=style.NEUTRAL_COLOR,
        linewidth=0.8,
        zorder=0,
        label="$k$ eigenvalues to its right",
    )
    axes.set_title(f"$k = {num_classes}$\n{num_outliers} above the gap")
    axes.set_xticks([spectrum["rank"].min(), last], [f"{spectrum['rank'].min():,}", f"{last:,}"])

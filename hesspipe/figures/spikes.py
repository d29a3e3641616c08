"""Theorem 1: where the largest eigenvalue of a spiked model lies, and how it fluctuates."""

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
    """Draw the position against the strength, and two distributions at the largest size.

    Parameters
    ----------
    results : sequence of Result
        "positions" and "fluctuations" of one spiked model, from
        `hesspipe.experiments.spiked_models.sample_spikes`.
    settings : mapping
        below, above: the strengths of the two distributions.

    Returns
    -------
    Figure
    """
    (positions,) = of_kind(results, "positions")
    fluctuations = of_kind(results, "fluctuations")[0].table
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.4))
        left, middle, right = figure.subplots(1, 3)
        draw_positions(left, positions.table)
        for axes, strength in ((middle, settings["below"]), (right, settings["above"])):
            draw_fluctuations(axes, fluctuations[fluctuations["strength"] == strength])
            axes.set_title(rf"$l$ = {strength:g}")
        middle.set_ylabel("share of the draws below")
    return figure


def draw_positions(axes: Axes, table: pd.DataFrame) -> None:
    """Mark the mean position for each size, and its limit."""
    for number, (num_samples, group) in enumerate(table.groupby("num_samples")):
        axes.errorbar(
            group["strength"], group["mean"], yerr=group["deviation"], linestyle="none",
            label=f"N = {num_samples:,}", **style.network_line(number),
        )  # fmt: skip
    limit = table.drop_duplicates("strength")
    axes.plot(limit["strength"], limit["predicted"], color="black", zorder=0, label="Theorem 1")
    axes.set_xlabel(r"strength $l$ of the spike")
    axes.set_ylabel(r"largest eigenvalue")
    axes.legend()


def draw_fluctuations(axes: Axes, fluctuations: pd.DataFrame) -> None:
    """Mark the distribution of the standardized draws and of the law that they should follow."""
    (name,) = set(fluctuations["law"])
    size = len(fluctuations)
    axes.plot(
        fluctuations["standardized"], np.arange(1, size + 1) / size,
        color=style.MATRIX_COLORS["hessian"], drawstyle="steps-post", label="measured",
    )  # fmt: skip
    axes.plot(
        fluctuations["standardized"], fluctuations["cdf"],
        color="black", linestyle="--", label=_LAWS[name],
    )  # fmt: skip
    axes.set_xlabel("standardized eigenvalue")
    axes.legend()


_LAWS = {"gaussian": "Gaussian", "tracy_widom": "Tracy-Widom"}

"""Gallery: a whole spectrum in order, with one color for each sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from hesspipe.figures import style
from hesspipe.tables.queries import join_spectra, of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the magnitude of every eigenvalue at its rank, one panel for each step.

    A logarithmic axis shows bulk and outliers together, over all their decades. Eigenvalues that
    count as zero are left out, so that there is a gap at their ranks.

    Parameters
    ----------
    results : sequence of Result
        Spectra of one matrix at several steps.
    settings : mapping
        The figure's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    Figure
        As wide as the text.
    """
    table = join_spectra(of_kind(results, "spectrum"))
    steps = list(dict.fromkeys(table["step"]))
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.2 * len(steps) + 0.4))
        rows = figure.subplots(len(steps), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for axes, step in zip(rows, steps, strict=True):
            spectrum = table[table["step"] == step]
            draw_magnitudes(axes, spectrum)
            negative, zero = (int(spectrum[key].iloc[0]) for key in ("num_negative", "num_zero"))
            signs = f"{negative:,} negative, {zero:,} zero"
            axes.set_title(f"step {step:,}: {len(spectrum):,} eigenvalues, {signs}", loc="left")
            axes.set_ylabel(r"magnitude $|\lambda|$ (units of the loss)")
        rows[0].set_yscale("log")
        rows[0].legend()
        rows[-1].set_xlabel("rank of the eigenvalue")
    return figure


def draw_magnitudes(axes: Axes, spectrum: pd.DataFrame) -> None:
    """Mark the magnitude of each eigenvalue that is not zero, in one color for each sign."""
    is_negative = spectrum["rank"] < spectrum["num_negative"]
    is_positive = spectrum["rank"] >= spectrum["num_negative"] + spectrum["num_zero"]
    for is_part, label, color in (
        (is_positive, "positive", style.SIGN_COLORS["positive"]),
        (is_negative, "negative", style.SIGN_COLORS["negative"]),
    ):
        axes.plot(
            spectrum["rank"][is_part],
            spectrum["eigenvalue"][is_part].abs(),
            linestyle="none",
            marker=".",
            markersize=3,
            color=color,
            label=label,
        )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))

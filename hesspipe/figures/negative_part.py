"""Figures 5 and 6: the negative eigenvalues of several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures.networks import draw_networks
from hesspipe.plots import style
from hesspipe.tables.queries import join_spectra, of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the negative eigenvalues of several networks over each other.

    The rank is in percent of the number of parameters, so that networks of different sizes can
    be compared.

    Parameters
    ----------
    results : sequence of Result
        Spectra.
    settings : mapping
        labels, one for each experiment.

    Returns
    -------
    Figure
        One color and marker for each experiment, one line for each seed.
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        axes = figure.subplots()
        spectra = join_spectra(of_kind(results, "spectrum"))
        draw_networks(axes, spectra, settings["labels"], draw_negative_part)
        axes.axhline(0.0, color=style.NEUTRAL_COLOR, linewidth=0.6, zorder=0)
        axes.set_xlabel("order of the negative eigenvalues (% of the parameters)")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    return figure


def draw_negative_part(axes: Axes, spectrum: pd.DataFrame, **line: Any) -> None:
    """Mark the negative eigenvalues of one spectrum in increasing order."""
    negative = spectrum.nsmallest(int(spectrum["num_negative"].iloc[0]), "rank")
    num_parameters = negative["num_parameters"].iloc[0] if len(negative) else 1
    axes.plot(
        100 * (negative["rank"] + 1) / num_parameters,
        negative["eigenvalue"],
        markevery=0.07,
        **line,
    )

"""Figures 3 and 4: the largest eigenvalues of several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures.networks import draw_networks
from hesspipe.plots import style
from hesspipe.tables.queries import join_spectra, of_kind
from hesspipe.tables.store import Result


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw the largest eigenvalues of several networks over each other.

    Parameters
    ----------
    results : sequence of Result
        Spectra.
    settings : mapping
        num_largest, the number of eigenvalues of each network; labels, one for each experiment.

    Returns
    -------
    Figure
        One color and marker for each experiment, one line for each seed.
    """
    num_largest = settings["num_largest"]
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        axes = figure.subplots()
        draw_networks(
            axes,
            join_spectra(of_kind(results, "spectrum")),
            settings["labels"],
            partial(draw_right_edge, num_largest=num_largest),
        )
        axes.set_yscale("log", nonpositive="clip")
        axes.set_xlabel(f"order of the {num_largest} largest eigenvalues")
    return figure


def draw_right_edge(axes: Axes, spectrum: pd.DataFrame, *, num_largest: int, **line: Any) -> None:
    """Mark the largest eigenvalues of one spectrum in increasing order."""
    largest = spectrum.nlargest(num_largest, "rank").sort_values("rank")
    axes.plot(range(1, len(largest) + 1), largest["eigenvalue"], markevery=8, **line)

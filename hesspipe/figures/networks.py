"""Curves of several networks in one panel, a line for each seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes

from hesspipe.plots import style


def draw_networks(
    axes: Axes,
    spectra: pd.DataFrame,
    labels: Sequence[str],
    draw_spectrum: Callable[..., None],
) -> None:
    """Draw a curve for each spectrum, with one color and marker for each network.

    Parameters
    ----------
    axes : Axes
    spectra : DataFrame
        See `hesspipe.tables.queries.join_spectra`.
    labels : sequence of str
        One for each experiment, in their order in the table.
    draw_spectrum : callable
        Draws one spectrum, as `draw_spectrum(axes, spectrum, **line)`.
    """
    for number, (_, of_network) in enumerate(spectra.groupby("experiment", sort=False)):
        for index, (_, spectrum) in enumerate(of_network.groupby("seed")):
            label = labels[number] if index == 0 else None
            draw_spectrum(axes, spectrum, label=label, **style.network_line(number))
    axes.set_ylabel(r"eigenvalue $\lambda$ (nats)")
    axes.legend()

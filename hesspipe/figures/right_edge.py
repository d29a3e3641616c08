"""Figure 3: the right edge of the spectrum as the network grows."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def right_edge_figure(spectra: pd.DataFrame, num_largest: int) -> Figure:
    """Draw the largest eigenvalues of several networks over each other.

    Parameters
    ----------
    spectra : DataFrame
        experiment, seed, num_parameters, rank (0 = smallest), eigenvalue.
    num_largest : int
        Eigenvalues of each network.

    Returns
    -------
    Figure
        One color and marker per experiment, one line per seed.
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        axes = figure.subplots()
        for number, name in enumerate(dict.fromkeys(spectra["experiment"])):
            draw_right_edge(axes, spectra[spectra["experiment"] == name], num_largest, number)
        axes.set_yscale("log", nonpositive="clip")
        axes.set_xlabel(f"order of the {num_largest} largest eigenvalues")
        axes.set_ylabel(r"eigenvalue $\lambda$ (nats)")
        axes.legend(title="parameters")
    return figure


def draw_right_edge(axes: Axes, spectra: pd.DataFrame, num_largest: int, number: int) -> None:
    """Mark one network's largest eigenvalues in increasing order, a line for each seed."""
    for index, (_, spectrum) in enumerate(spectra.groupby("seed")):
        largest = spectrum.nlargest(num_largest, "rank").sort_values("rank")
        axes.plot(
            range(1, len(largest) + 1),
            largest["eigenvalue"],
            color=style.NETWORK_COLORS[number],
            marker=style.NETWORK_MARKERS[number],
            markersize=2.5,
            markevery=8,
            label=f"{largest['num_parameters'].iloc[0]:,}" if index == 0 else None,
        )

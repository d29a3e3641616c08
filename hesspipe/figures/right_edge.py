"""Figures 3 and 4: the right edge of several spectra, over each other."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def right_edge_figure(spectra: pd.DataFrame, num_largest: int, labels: Sequence[str]) -> Figure:
    """Draw the largest eigenvalues of several networks over each other.

    Parameters
    ----------
    spectra : DataFrame
        experiment, seed, rank (0 = smallest), eigenvalue.
    num_largest : int
        Eigenvalues of each network.
    labels : sequence of str
        One for each experiment, in their order in the table.

    Returns
    -------
    Figure
        One color and marker per experiment, one line per seed.
    """
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.8))
        axes = figure.subplots()
        for number, (_, spectrum) in enumerate(spectra.groupby("experiment", sort=False)):
            draw_right_edge(axes, spectrum, num_largest, number, labels[number])
        axes.set_yscale("log", nonpositive="clip")
        axes.set_xlabel(f"order of the {num_largest} largest eigenvalues")
        axes.set_ylabel(r"eigenvalue $\lambda$ (nats)")
        axes.legend()
    return figure


def draw_right_edge(
    axes: Axes, spectra: pd.DataFrame, num_largest: int, number: int, label: str
) -> None:
    """Mark one network's largest eigenvalues in increasing order, a line for each seed."""
    for index, (_, spectrum) in enumerate(spectra.groupby("seed")):
        largest = spectrum.nlargest(num_largest, "rank").sort_values("rank")
        axes.plot(
            range(1, len(largest) + 1),
            largest["eigenvalue"],
            markevery=8,
            label=label if index == 0 else None,
            **style.network_line(number),
        )

"""Figures 5 and 6: the negative eigenvalues against their percentage."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style


def negative_part_figure(spectra: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw the negative eigenvalues of several networks over each other.

    The rank is in percent of the number of parameters, so that networks of different sizes can
    be compared.

    Parameters
    ----------
    spectra : DataFrame
        experiment, seed, num_parameters, num_negative, rank (0 = smallest), eigenvalue.
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
            draw_negative_part(axes, spectrum, number, labels[number])
        axes.axhline(0.0, color=style.NEUTRAL_COLOR, linewidth=0.6, zorder=0)
        axes.set_xlabel("order of the negative eigenvalues (% of the parameters)")
        axes.set_ylabel(r"eigenvalue $\lambda$ (nats)")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
        axes.legend()
    return figure


def draw_negative_part(axes: Axes, spectra: pd.DataFrame, number: int, label: str) -> None:
    """Mark one network's negative eigenvalues in increasing order, a line for each seed."""
    for index, (_, spectrum) in enumerate(spectra.groupby("seed")):
        negative = spectrum.nsmallest(int(spectrum["num_negative"].iloc[0]), "rank")
        num_parameters = negative["num_parameters"].iloc[0] if len(negative) else 1
        axes.plot(
            100 * (negative["rank"] + 1) / num_parameters,
            negative["eigenvalue"],
            markevery=0.07,
            label=label if index == 0 else None,
            **style.network_line(number),
        )

"""Overlaps of the leading eigenvectors with class-mean gradients of the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.plots import style
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result

_SPANS = {
    "own": "own output",
    "every": "every output",
    "shared": "mean over the classes",
    "flat": "sum of the outputs",
}
_NUM_COLUMNS = 3


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Draw a panel for each network: squared overlaps of its leading eigenvectors.

    Parameters
    ----------
    results : sequence of Result
        Directions, one for each network.
    settings : mapping
        labels, one for each network.

    Returns
    -------
    Figure
    """
    networks = of_kind(results, "directions")
    num_rows = -(-len(networks) // _NUM_COLUMNS)
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.6 * num_rows + 0.5))
        panels = figure.subplots(num_rows, _NUM_COLUMNS, squeeze=False, sharey=True).ravel()
        for axes, network, label in zip(panels, networks, settings["labels"], strict=False):
            draw_overlaps(axes, network.table, network.provenance["num_classes"])
            axes.set_title(label)
        for axes in panels[len(networks) :]:
            axes.set_axis_off()
        for axes in panels[len(networks) - _NUM_COLUMNS : len(networks)]:
            axes.set_xlabel("order, 1 = largest")
        for axes in panels[::_NUM_COLUMNS]:
            axes.set_ylabel("squared overlap")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def draw_overlaps(axes: Axes, table: pd.DataFrame, num_classes: int) -> None:
    """Mark one network's overlaps with each span, and the number of classes."""
    for number, (span, label) in enumerate(_SPANS.items()):
        axes.plot(table["order"], table[span], label=label, **style.network_line(number))
    axes.axvline(num_classes + 0.5, color=style.NEUTRAL_COLOR, linestyle="--", zorder=0)
    axes.set_ylim(-0.03, 1.03)

"""What the outliers are: leading eigenvectors against class-mean gradients of the outputs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hesspipe.figures import style

_SPANS = {
    "own": "own output",
    "every": "every output",
    "shared": "mean over the classes",
    "flat": "sum of the outputs",
}
_NUM_COLUMNS = 3


def directions_figure(tables: Sequence[pd.DataFrame], labels: Sequence[str]) -> Figure:
    """Draw a panel for each network: squared overlaps of its leading eigenvectors.

    Parameters
    ----------
    tables : sequence of DataFrame
        Tables of `hesspipe.experiments.directions.directions_table`, with provenance in `attrs`.
    labels : sequence of str
        One for each table.

    Returns
    -------
    Figure
    """
    num_rows = -(-len(tables) // _NUM_COLUMNS)
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.6 * num_rows + 0.5))
        panels = figure.subplots(num_rows, _NUM_COLUMNS, squeeze=False, sharey=True).ravel()
        for axes, table, label in zip(panels, tables, labels, strict=False):
            draw_overlaps(axes, table)
            axes.set_title(label)
        for axes in panels[len(tables) :]:
            axes.set_axis_off()
        for axes in panels[len(tables) - _NUM_COLUMNS : len(tables)]:
            axes.set_xlabel("order, 1 = largest")
        for axes in panels[::_NUM_COLUMNS]:
            axes.set_ylabel("squared overlap")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def draw_overlaps(axes: Axes, table: pd.DataFrame) -> None:
    """Mark one network's overlaps with each span, and the number of classes."""
    for number, (span, label) in enumerate(_SPANS.items()):
        axes.plot(table["order"], table[span], label=label, **style.network_line(number))
    axes.axvline(
        table.attrs["num_classes"] + 0.5, color=style.NEUTRAL_COLOR, linestyle="--", zorder=0
    )
    axes.set_ylim(-0.03, 1.03)

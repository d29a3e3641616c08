"""Gallery: smoothed spectral densities of a network and of its parts, a panel for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from hesspipe.figures.densities import draw_curve, finish_axes
from hesspipe.plots import style
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result

_NUM_COLUMNS = 2


def make_figure(results: Sequence[Result], settings: Mapping[str, Any]) -> Figure:
    """Lay out a panel of a smoothed density for each group of parameters.

    The panels do not share their axes, because the curvature of the layers of one network
    differs by decades in scale.

    Parameters
    ----------
    results : sequence of Result
        The figure's curves, of one matrix; see `hesspipe.experiments.curves.smooth_densities`.
    settings : mapping
        titles, from each group to its title.

    Returns
    -------
    Figure
        As wide as the text, two panels in a row.
    """
    (curves,) = of_kind(results, "curves")
    table, titles = curves.table, settings["titles"]
    groups = list(dict.fromkeys(table["group"]))
    num_rows = -(-len(groups) // _NUM_COLUMNS)
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.6 * num_rows + 0.4))
        panels = figure.subplots(num_rows, _NUM_COLUMNS, squeeze=False).flat
        for group, axes in zip(groups, panels, strict=False):
            curve = table[table["group"] == group]
            draw_curve(axes, curve, style.MATRIX_COLORS[str(curve["matrix"].iloc[0])])
            finish_axes(axes, curve)
            size = int(curve["num_parameters"].iloc[0])
            axes.set_title(f"{titles[group]} ({size:,})", loc="left")
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)
        for axes in list(panels):
            axes.set_axis_off()
        size = style.RC_PARAMS["axes.labelsize"]
        figure.supxlabel(r"eigenvalue $\lambda$ (units of the loss)", fontsize=size)
        figure.supylabel(r"density $\phi$ (1 / units of the loss)", fontsize=size)
    return figure

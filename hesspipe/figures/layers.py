"""Gallery: the spectral densities of the whole network and of its parts, a panel each."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hesspipe.figures import style
from hesspipe.figures.densities import draw_density, finish_density_axes

_NUM_COLUMNS = 2


def layers_figure(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Lay out a panel of a smoothed density for each group of parameters.

    The panels have axes of their own, because the layers of one network differ by decades in
    the scale of their curvature.

    Parameters
    ----------
    table : DataFrame
        group, num_parameters, value, density, standard_error, one_eigenvalue; of one matrix.
    titles : dict
        From each group to its title.

    Returns
    -------
    Figure
        As wide as the text, two panels in a row.
    """
    groups = list(dict.fromkeys(table["group"]))
    num_rows = -(-len(groups) // _NUM_COLUMNS)
    with style.context():
        figure = Figure(figsize=(style.TEXT_WIDTH, 1.6 * num_rows + 0.4))
        panels = figure.subplots(num_rows, _NUM_COLUMNS, squeeze=False).flat
        for group, axes in zip(groups, panels, strict=False):
            curve = table[table["group"] == group]
            draw_density(axes, curve, style.MATRIX_COLORS[str(curve["matrix"].iloc[0])])
            finish_density_axes(axes, curve)
            size = int(curve["num_parameters"].iloc[0])
            axes.set_title(f"{titles[group]} ({size:,})", loc="left")
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)
        for axes in list(panels):
            axes.set_axis_off()
        size = style.RC_PARAMS["axes.labelsize"]
        figure.supxlabel(r"eigenvalue $\lambda$ (units of the loss)", fontsize=size)
        figure.supylabel(r"density $\phi$ (1 / units of the loss)", fontsize=size)
    return figure

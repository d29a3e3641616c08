"""The axes that a plot is drawn on."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from hesspipe.plots import style


def axes_for(ax: Axes | None) -> Axes:
    """Return the caller's axes, or those of a new figure of pyplot, which a notebook shows.

    Raises
    ------
    TypeError
        If the argument is something else, such as the array of axes of `plt.subplots`.
    """
    if ax is None:
        with style.context():
            return plt.subplots(figsize=(style.TEXT_WIDTH, 2.8))[1]
    if not isinstance(ax, Axes):
        raise TypeError(
            f"ax must be Axes of matplotlib, got {type(ax).__name__}; of several, pass one"
        )
    return ax

"""The axes that a plot is drawn on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from hesspipe.plots import style

Arguments = ParamSpec("Arguments")

# matplotlib leaves room of a twentieth of the decades on both sides, and float64 ends at 1e308.
_LEAST, _MOST = 1e-250, 1e250


def fits_logarithmic(low: float, high: float) -> bool:
    """Tell whether a logarithmic axis can show positive numbers from low to high."""
    return _LEAST < low <= high < _MOST


def on_axes(
    draw: Callable[Concatenate[Axes, Arguments], None],
) -> Callable[Concatenate[Axes | None, Arguments], Axes]:
    """Let a function draw on the caller's axes in the caller's style, or on those of a new figure.

    A new one has the style of the paper's figures, and is made by pyplot, so that a notebook shows
    it.

    Raises
    ------
    TypeError
        If the axes are something else, such as the array of axes of `plt.subplots`.
    """

    @functools.wraps(draw)
    def plot(ax: Axes | None, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Axes:
        if ax is None:
            with style.context():
                axes: Axes = plt.subplots(figsize=(style.TEXT_WIDTH, 2.8))[1]
                draw(axes, *args, **kwargs)
                return axes
        if not isinstance(ax, Axes):
            raise TypeError(
                f"ax must be Axes of matplotlib, got {type(ax).__name__}; of several, pass one"
            )
        draw(ax, *args, **kwargs)
        return ax

    return plot

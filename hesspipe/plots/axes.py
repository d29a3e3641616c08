"""The axes that a plot is drawn on."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.registry import BackendFilter, backend_registry
from matplotlib.figure import Figure

from hesspipe.plots import style

Arguments = ParamSpec("Arguments")

# matplotlib leaves room of a twentieth of the decades on both sides, and float64 ends at 1e308.
_LEAST, _MOST = 1e-250, 1e250
_HEIGHT = 2.8
# Inches below which axes have small text, and which long labels must leave new axes.
_SMALL, _LEAST_HEIGHT = 1.6, 2.1
# Figures that pyplot keeps of ours where there is no screen.
_MOST_OPEN = 10

_opened: list[weakref.ReferenceType[Figure]] = []


def fits_logarithmic(low: float, high: float) -> bool:
    """Tell whether a logarithmic axis can show positive numbers from low to high."""
    return _LEAST < low <= high < _MOST


def on_axes(
    draw: Callable[Concatenate[Axes, Arguments], None],
) -> Callable[Concatenate[Axes | None, Arguments], Axes]:
    """Let a function draw on the caller's axes in the caller's style, or on those of a new figure.

    A new one has the style of the paper's figures, and is made by pyplot, so that a notebook shows
    it. Without a screen pyplot keeps the last ten of them. Small axes have small text.

    Raises
    ------
    TypeError
        If the axes are something else, such as the array of axes of `plt.subplots`.
    """

    @functools.wraps(draw)
    def plot(ax: Axes | None, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Axes:
        if ax is None:
            with style.context():
                axes = _new_axes()
                draw(axes, *args, **kwargs)
                _make_room(axes)
                return axes
        if not isinstance(ax, Axes):
            raise TypeError(
                f"ax must be Axes of matplotlib, got {type(ax).__name__}; of several, pass one"
            )
        draw(ax, *args, **kwargs)
        _fit_text(ax)
        return ax

    return plot


def _new_axes() -> Axes:
    """Make a figure, and let pyplot forget our oldest ones, which can still be drawn and saved."""
    with mpl.rc_context({"figure.max_open_warning": 0}):
        figure, axes = plt.subplots(figsize=(style.TEXT_WIDTH, _HEIGHT))
    _opened.append(weakref.ref(figure))
    registry: Any = backend_registry  # its methods have no types
    if mpl.get_backend().lower() in registry.list_builtin(BackendFilter.NON_INTERACTIVE):
        for each in _opened[:-_MOST_OPEN]:
            if (old := each()) is not None:
                plt.close(old)
    del _opened[:-_MOST_OPEN]
    return axes


def _make_room(axes: Axes) -> None:
    """Make a new figure higher where its labels are rotated and long."""
    labels, figure = axes.get_xticklabels(), axes.figure
    if isinstance(figure, Figure) and labels and labels[0].get_rotation():
        figure.draw_without_rendering()
        height = axes.bbox.height / figure.dpi
        figure.set_figheight(figure.get_figheight() + max(0.0, _LEAST_HEIGHT - height))


def _fit_text(axes: Axes) -> None:
    """Make the text of small axes small, and break their labels before the unit."""
    if min(axes.bbox.size) / axes.figure.dpi >= _SMALL:
        return
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize="x-small")
    axes.set_xlabel(axes.get_xlabel().replace(" (", "\n("), fontsize="x-small")
    axes.set_ylabel(axes.get_ylabel().replace(" (", "\n("), fontsize="x-small")
    axes.tick_params(labelsize="x-small")
    if (legend := axes.get_legend()) is not None:
        for text in legend.get_texts():
            text.set_fontsize("xx-small")

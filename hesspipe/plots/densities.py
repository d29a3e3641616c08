"""Smoothed densities and distribution functions on axes, in the bands of their intervals."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from hesspipe.plots import style
from hesspipe.plots.axes import fits_logarithmic, on_axes

Floats = NDArray[np.float64]

# A Gaussian falls without end, and what is so far below its peak says nothing.
_SHOWN_RANGE = 1e6
_EIGENVALUE = r"eigenvalue $\lambda$ (units of the loss)"


@on_axes
def plot_density(
    axes: Axes, values: Floats, density: Floats, band: tuple[Floats, Floats],
    confidence: float, matrix: str = "", single: float | None = None, title: str = "",
) -> None:  # fmt: skip
    """Plot a smoothed density (n,) on a grid (n,) in the band between its bounds.

    Parameters
    ----------
    axes : Axes
    values, density : array, shape (n,)
    band : (array, array), each of shape (n,)
    confidence : float
        Of the interval at each point.
    matrix : str
    single : float, optional
        Height of the peak of a single eigenvalue, which ends the axis; see `finish_density_axes`.
    title : str
    """
    color = style.matrix_color(matrix, axes)
    draw_density(axes, values, density, band, color)
    axes.lines[-1].set_label(style.matrix_label(matrix or "estimate"))
    axes.collections[-1].set_label(f"{style.interval_label(confidence)} at each point")
    highest = float(max(density.max(), band[1].max()))
    if fits_logarithmic(highest, highest):
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(highest / _SHOWN_RANGE, 2 * highest)
    axes.set_xlabel(_EIGENVALUE)
    axes.set_ylabel(r"density $\phi$ (1 / units of the loss)")
    axes.set_title(title, loc="left")
    if single is not None:
        finish_density_axes(axes, single, highest)
    axes.legend()


@on_axes
def plot_distribution(
    axes: Axes, points: Floats, share: Floats, band: tuple[Floats, Floats], confidence: float
) -> None:
    """Plot the share of the eigenvalues (n,) up to some points (n,) between its bounds."""
    order = np.argsort(points, kind="stable")
    low, high = band
    color = style.matrix_color("", axes)
    draw_density(axes, points[order], share[order], (low[order], high[order]), color)
    axes.lines[-1].set_label("estimate")
    axes.collections[-1].set_label(f"{style.interval_label(confidence)} at each point")
    axes.set_xlabel(_EIGENVALUE)
    axes.set_ylabel("share of the eigenvalues below")
    axes.legend()


def draw_density(
    axes: Axes, values: Floats, heights: Floats, band: tuple[Floats, Floats], color: str
) -> None:
    """Draw a curve in the band between its bounds."""
    axes.fill_between(values, *band, color=color, alpha=0.3, linewidth=0)
    axes.plot(values, heights, color=color, marker="." if len(values) == 1 else None)


def finish_density_axes(axes: Axes, single: float, highest: float) -> None:
    """Mark the peak of a single eigenvalue, and leave a decade below it and above the density.

    Parameters
    ----------
    axes : Axes
    single : float
        Height of the peak of a single eigenvalue.
    highest : float
        Of the density.
    """
    axes.axhline(
        single,
        color=style.NEUTRAL_COLOR,
        linewidth=0.6,
        linestyle="--",
        zorder=0,
        label="peak of a single eigenvalue",
    )
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(single / 10, 10 * highest)

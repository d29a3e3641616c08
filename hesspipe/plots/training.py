"""Extreme eigenvalues through training on axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hesspipe.plots import style
from hesspipe.plots.axes import on_axes
from hesspipe.plots.spectra import linear_part, scale_both_sides

Floats = NDArray[np.float64]


@on_axes
def plot_training(
    axes: Axes,
    lines: Mapping[tuple[str, int], tuple[Floats, Floats, Floats]],
    limits: tuple[Floats, Floats],
) -> None:
    """Plot eigenvalues against the steps of training, with residual norms as error bars.

    Parameters
    ----------
    axes : Axes
    lines : mapping of (str, int) to three arrays, each of shape (n,)
        By end ("largest" or "smallest") and order from that end, from 1: steps, eigenvalues and
        residual norms.
    limits : two arrays, each of shape (n,)
        Steps, and the largest eigenvalues up to which the optimizer is stable.
    """
    colors = {"largest": style.SIGN_COLORS["positive"], "smallest": style.SIGN_COLORS["negative"]}
    for (end, order), (steps, values, norms) in lines.items():
        axes.errorbar(
            steps, values, yerr=norms, color=colors[end], marker=".", markersize=4,
            alpha=max(0.3, 1.0 - 0.2 * (order - 1)), label=end if order == 1 else None,
        )  # fmt: skip
    if len(limits[0]):
        axes.plot(
            *limits, color=style.OTHER_COLOR, linestyle="--", linewidth=0.6,
            label="stability limit",
        )  # fmt: skip
    every = [values for _, values, _ in lines.values()]
    values = np.concatenate([np.zeros(0), *every, limits[1]])
    noise = max((float(norms.max(initial=0.0)) for *_, norms in lines.values()), default=0.0)
    least = float(np.abs(values[values != 0]).min()) if values.any() else 0.0
    scale_both_sides(axes, "y", values, max(noise, linear_part(values, least / 2)))
    axes.axhline(0.0, color=style.NEUTRAL_COLOR, linewidth=0.6, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step of training")
    axes.set_ylabel(r"eigenvalue $\lambda$ (units of the loss)")
    if lines:
        axes.legend()

"""Eigenvalues on axes: in order, counted in bins, at both ends, and with a cutoff of outliers.

Axes of eigenvalues of both signs are logarithmic on each side of a linear piece around zero. In
whole spectra that piece is the band in which an eigenvalue counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from hesspipe.plots import style
from hesspipe.plots.axes import fits_logarithmic, on_axes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_EIGENVALUE = r"eigenvalue $\lambda$ (units of the loss)"
# Bins of a histogram for each decade of magnitudes, if they are not more than the most of a side.
_BINS_PER_DECADE = 8
_MOST_BINS = 120
# Of an axis with two sides: decades for each of half the linear piece, and labels of both sides.
_SHARE_OF_LINEAR = 14.0
_MOST_LABELS = 8
# Fewer are shown on a linear axis.
_FEWEST_DECADES = 2.0


@on_axes
def plot_in_order(
    axes: Axes, eigenvalues: Floats, signs: tuple[int, int, int], tolerance: float,
    error_bound: float, matrix: str,
) -> None:  # fmt: skip
    """Plot all eigenvalues (P,), ascending, at their ranks, with the band of zeros.

    Parameters
    ----------
    axes : Axes
    eigenvalues : array, shape (P,)
    signs : tuple of int
        Numbers of negative, zero and positive eigenvalues, in this order.
    tolerance : float
        Half the width of the band in which they count as zero.
    error_bound : float
        Of every eigenvalue; drawn as a band along them if it is finite and not zero.
    matrix : str
    """
    num_negative, num_zero, _ = signs
    ranks = np.arange(len(eigenvalues))
    draw_by_sign(axes, ranks, eigenvalues, num_negative, num_zero)
    for line, number in zip(axes.lines[-2:], (signs[2], num_negative), strict=True):
        line.set_label(f"{number:,} {line.get_label()}")
    zeros = slice(num_negative, num_negative + num_zero)
    axes.plot(
        ranks[zeros], eigenvalues[zeros], linestyle="none", marker=".", markersize=3,
        color=style.ink(axes), label=f"{num_zero:,} zero",
    )  # fmt: skip
    axes.axhspan(-tolerance, tolerance, color=style.NEUTRAL_COLOR, alpha=0.5, zorder=0, linewidth=0)
    if math.isfinite(error_bound) and error_bound > 0:
        below, above = eigenvalues - error_bound, eigenvalues + error_bound
        axes.fill_between(ranks, below, above, color=style.ink(axes), alpha=0.2, linewidth=0)
    scale_both_sides(axes, "y", eigenvalues, linear_part(eigenvalues, tolerance))
    axes.set_xlabel("rank of the eigenvalue")
    axes.set_ylabel(_EIGENVALUE)
    steps = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=steps, integer=True, min_n_ticks=1))
    if len(eigenvalues) == 1:
        axes.set_xlim(-0.5, 0.5)
    size = _counted(len(eigenvalues))
    axes.set_title(f"{style.matrix_label(matrix)}: {size}", loc="left")
    axes.legend()


@on_axes
def plot_histogram(
    axes: Axes, eigenvalues: Floats, num_zero: int, tolerance: float, matrix: str
) -> None:
    """Plot the numbers of eigenvalues in bins of equal ratio, and of zeros in one bin.

    Parameters
    ----------
    axes : Axes
    eigenvalues : array, shape (P,)
        Ascending.
    num_zero : int
    tolerance : float
        Half the width of the bin of zeros.
    matrix : str
    """
    threshold = linear_part(eigenvalues, tolerance)
    edges = _edges(eigenvalues, threshold)
    counts = np.histogram(eigenvalues, edges)[0]
    color = style.matrix_color(matrix, axes)
    axes.stairs(counts, edges, fill=True, color=color, baseline=0.5)
    axes.axvspan(-tolerance, tolerance, color=style.NEUTRAL_COLOR, alpha=0.5, zorder=0, linewidth=0)
    scale_both_sides(axes, "x", eigenvalues, threshold)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(bottom=0.5)
    axes.set_xlabel(_EIGENVALUE)
    axes.set_ylabel("number of eigenvalues")
    size = _counted(len(eigenvalues))
    axes.set_title(f"{style.matrix_label(matrix)}: {size}, {num_zero:,} zero", loc="left")


@on_axes
def plot_ends(
    axes: Axes, eigenvalues: Floats, residual_norms: Floats, num_smallest: int, matrix: str
) -> None:
    """Plot the eigenvalues at both ends of a spectrum, with residual norms as error bars.

    Parameters
    ----------
    axes : Axes
    eigenvalues, residual_norms : array, shape (k,)
        Ascending: first the num_smallest, then the largest.
    num_smallest : int
    matrix : str
    """
    ends = (
        ("largest", eigenvalues[num_smallest:][::-1], residual_norms[num_smallest:][::-1]),
        ("smallest", eigenvalues[:num_smallest], residual_norms[:num_smallest]),
    )
    for (name, values, errors), filling in zip(ends, ("full", "none"), strict=True):
        if len(values) == 0:
            continue
        orders = np.arange(1, len(values) + 1)
        draw_end(axes, orders, values, matrix)
        line = axes.lines[-1]
        line.set(fillstyle=filling, label=f"{len(values):,} {name}")
        axes.errorbar(orders, values, yerr=errors, fmt="none", ecolor=line.get_color())
    noise = float(residual_norms.max()) if len(residual_norms) else 0.0
    if (
        len(eigenvalues)
        and eigenvalues.min() > noise
        and fits_logarithmic(float(eigenvalues.min()), float(eigenvalues.max()))
    ):
        axes.set_yscale("log")
    else:
        # Nothing is known below a residual norm, and nothing is to be seen below all magnitudes.
        threshold = max(noise, linear_part(eigenvalues, 0.0))
        scale_both_sides(axes, "y", eigenvalues, threshold)
        axes.axhline(0.0, color=style.NEUTRAL_COLOR, linewidth=0.6, zorder=0)
    _number_axis(axes, max((len(values) for _, values, _ in ends), default=0))
    axes.set_xlabel("order from the end of the spectrum")
    axes.set_ylabel(_EIGENVALUE)
    axes.set_title(f"{style.matrix_label(matrix)}: extreme eigenvalues", loc="left")
    if len(eigenvalues):
        axes.legend()


@on_axes
def plot_outliers(axes: Axes, largest: Floats, cutoff: float, num_outliers: int, rule: str) -> None:
    """Plot the largest eigenvalues (n,), descending, and the cutoff of a rule for outliers."""
    draw_outliers(axes, np.arange(1, len(largest) + 1), largest, cutoff)
    named = (("above the cutoff", largest > cutoff), ("not above", largest <= cutoff))
    for line, (what, chosen) in zip(axes.lines[-3:-1], named, strict=True):
        line.set(markersize=6, label=what if chosen.any() else None)
    if len(largest) and fits_logarithmic(min(largest[-1], cutoff), max(largest[0], cutoff)):
        axes.set_yscale("log", nonpositive="clip")
    _number_axis(axes, len(largest))
    axes.set_xlabel("order of the largest eigenvalues")
    axes.set_ylabel(_EIGENVALUE)
    axes.set_title(f"{rule}: {num_outliers:,} above the cutoff", loc="left")
    axes.legend()


@on_axes
def plot_groups(axes: Axes, groups: Mapping[str, tuple[Floats, float, str]], matrix: str) -> None:
    """Plot the eigenvalues of several groups of parameters, a column for each.

    Parameters
    ----------
    axes : Axes
    groups : mapping of str to (array (n,), float, str)
        Of each group: its values, the size below which the sign of one is not known, and what the
        values are, for the legend.
    matrix : str
    """
    labeled: set[str] = set()
    for column, (values, noise, what) in enumerate(groups.values()):
        for is_part, color in (
            (values > noise, style.SIGN_COLORS["positive"]),
            (values < -noise, style.SIGN_COLORS["negative"]),
            (np.abs(values) <= noise, style.ink(axes)),
        ):
            part = values[is_part]
            label = None if what in labeled or len(part) == 0 else what
            labeled |= {what} if len(part) else set()
            axes.plot(
                np.full(len(part), column), part, linestyle="none", marker="o", markersize=3,
                fillstyle="full" if what == "eigenvalues" else "none", color=color, label=label,
            )  # fmt: skip
    values = np.concatenate([np.zeros(0), *(each[0] for each in groups.values())])
    noise = max((each[1] for each in groups.values()), default=0.0)
    scale_both_sides(axes, "y", values, linear_part(values, noise))
    axes.axhspan(-noise, noise, color=style.NEUTRAL_COLOR, alpha=0.5, zorder=0, linewidth=0)
    axes.set_xticks(range(len(groups)), list(groups), rotation=45, ha="right")
    axes.set_xlim(-0.5, max(len(groups), 1) - 0.5)
    axes.set_ylabel(_EIGENVALUE)
    axes.set_title(
        f"{style.matrix_label(matrix)}: {len(groups):,} groups of parameters", loc="left"
    )
    if len(values):
        axes.legend()


def draw_by_sign(
    axes: Axes, ranks: Integers, heights: Floats, num_negative: int, num_zero: int
) -> None:
    """Mark a height for each eigenvalue that is not zero, in one color for each sign.

    Parameters
    ----------
    axes : Axes
    ranks : array of int, shape (P,)
    heights : array, shape (P,)
        In ascending order of the eigenvalues.
    num_negative, num_zero : int
    """
    for part, label in (
        (ranks >= num_negative + num_zero, "positive"),
        (ranks < num_negative, "negative"),
    ):
        axes.plot(
            ranks[part], heights[part], linestyle="none", marker=".", markersize=3,
            color=style.SIGN_COLORS[label], label=label,
        )  # fmt: skip
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def draw_end(axes: Axes, orders: Integers, heights: Floats, matrix: str) -> None:
    """Mark eigenvalues of one end of a spectrum in their order, joined by a line."""
    axes.plot(
        orders, heights, markersize=2.5, label=style.matrix_label(matrix),
        marker=style.MATRIX_MARKERS.get(matrix, "D"),
        color=style.matrix_color(matrix, axes),
    )  # fmt: skip


def draw_outliers(axes: Axes, positions: Integers, eigenvalues: Floats, cutoff: float) -> None:
    """Mark eigenvalues above and below a cutoff in two colors, and the cutoff."""
    is_outlier = eigenvalues > cutoff
    for part, color in (
        (is_outlier, style.OUTLIER_COLOR),
        (~is_outlier, style.MATRIX_COLORS["hessian"]),
    ):
        axes.plot(
            positions[part], eigenvalues[part], linestyle="none", marker=".", markersize=3,
            color=color,
        )  # fmt: skip
    axes.axhline(cutoff, color=style.OUTLIER_COLOR, linewidth=0.6, linestyle="--", label="cutoff")


def linear_part(eigenvalues: Floats, tolerance: float) -> float:
    """Choose where the linear piece of an axis ends: at the tolerance, or below all magnitudes."""
    if 0 < tolerance < math.inf:
        return tolerance
    magnitudes = np.abs(eigenvalues[eigenvalues != 0])
    return float(magnitudes.min()) / 2 if len(magnitudes) else 1.0


def scale_both_sides(
    axes: Axes, direction: Literal["x", "y"], eigenvalues: Floats, threshold: float
) -> None:
    """Scale an axis logarithmically on both sides of a linear piece, unless that shows no more."""
    sides = [float((sign * eigenvalues).max(initial=0.0)) for sign in (-1.0, 1.0)]
    if not fits_logarithmic(threshold, max(threshold, *sides)):
        return
    decades = [math.log10(max(side / threshold, 1.0)) for side in sides]
    if sum(decades) < _FEWEST_DECADES:
        return
    # The linear piece, without labels but zero, takes an eighth of the axis, or a decade.
    linscale = max(1.0, sum(decades) / _SHARE_OF_LINEAR)
    set_scale = axes.set_xscale if direction == "x" else axes.set_yscale
    set_scale("symlog", linthresh=threshold, linscale=linscale)
    axis = axes.xaxis if direction == "x" else axes.yaxis
    stride = max(1, math.ceil(sum(decades) / _MOST_LABELS))
    ticks = [0.0]
    for sign, side, number in zip((-1.0, 1.0), sides, decades, strict=True):
        last = math.floor(math.log10(side)) if number > 0 else 0
        powers = range(last, last - math.floor(number), -stride)
        ticks += [sign * 10.0**power for power in powers if 10.0**power > threshold]
    axis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.set_minor_locator(NullLocator())


def _number_axis(axes: Axes, most: int) -> None:
    """Label whole numbers from 1 on."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if most <= 1:
        axes.set_xlim(0.5, 1.5)


def _counted(number: int) -> str:
    return f"{number:,} eigenvalue" if number == 1 else f"{number:,} eigenvalues"


def _edges(eigenvalues: Floats, threshold: float) -> Floats:
    """Edges of bins: of equal ratio on both sides of the bin from -threshold to threshold."""
    # An eigenvalue at the threshold counts as zero.
    inner = float(np.nextafter(threshold, np.inf))
    sides = []
    for sign in (-1.0, 1.0):
        farthest = float((sign * eigenvalues).max(initial=0.0))
        if farthest <= threshold:
            sides.append(np.array([inner]))
            continue
        decades = math.log10(farthest) - math.log10(threshold)
        number = min(max(1, math.ceil(_BINS_PER_DECADE * decades)), _MOST_BINS)
        side = np.geomspace(inner, farthest, number + 1)
        side[-1] = np.nextafter(farthest, np.inf)
        sides.append(side)
    negative, positive = sides
    negative = negative.copy()
    negative[0] = threshold
    return np.concatenate([-negative[::-1], positive])

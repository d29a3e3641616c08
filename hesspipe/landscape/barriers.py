"""Loss barriers: the rise of the loss on a line between its two end points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hesspipe.plots.plotted import Plotted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Barrier(Plotted):
    """The rise of a loss on a line between its two end points.

    `plot` draws the losses, the straight line between those at its ends, and the largest rise.

    Attributes
    ----------
    height : float
        Largest rise above the straight line between the loss at coefficients 0 and 1; at least 0.
    place : float
        Coefficient in [0, 1] of that rise; 0 if there is none.
    rise : float
        Largest rise above the higher end point; at least 0, at most `height`.
    coefficients, losses : array, shape (n,)
        From 0 to 1, ascending.
    """

    height: float
    place: float
    rise: float
    coefficients: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros(0), repr=False, compare=False
    )
    losses: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros(0), repr=False, compare=False
    )

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.landscape import plot_barrier

        return plot_barrier(ax, self.coefficients, self.losses, self.height, self.place)


def find_barrier(coefficients: Sequence[float], losses: Sequence[float]) -> Barrier:
    """Find the barrier between the end points of a line.

    Parameters
    ----------
    coefficients : sequence of float, or Tensor
        Distinct, in any order, including 0 and 1; those outside [0, 1] are ignored.
    losses : sequence of float, or Tensor
        At the coefficients; finite.

    Raises
    ------
    TypeError
        If something is not a sequence of real numbers.
    ValueError
        If 0 or 1 is not among the coefficients, a coefficient occurs twice, something is not
        finite, or the lengths differ.

    References
    ----------
    Frankle, Dziugaite, Roy, Carbin (2020), Linear mode connectivity and the lottery ticket
    hypothesis, Section 2, with the straight line between the end values in place of their mean.

    Examples
    --------
    >>> find_barrier([0.0, 0.25, 0.5, 1.0], [1.0, 4.0, 4.5, 2.0])
    Barrier(height=3.0, place=0.5, rise=2.5)
    """
    places, values = _numbers(coefficients, "coefficients"), _numbers(losses, "losses")
    _check(places, values)
    order = np.argsort(places)
    places, values = places[order], values[order]
    is_between = (places >= 0) & (places <= 1)
    places, values = places[is_between], values[is_between]
    left, right = values[0], values[-1]
    # In this form the end points are exact, and a constant loss has no rise from rounding.
    with np.errstate(over="ignore", invalid="ignore"):
        rises = values - (left + places * (right - left))
    if not np.isfinite(rises).all():
        raise ValueError(
            "differences of losses must be finite, got an overflow; divide the losses by a number"
        )
    rises[[0, -1]] = 0.0
    top = int(rises.argmax())
    return Barrier(
        height=float(rises[top]),
        place=float(places[top]),
        rise=float(max(values.max() - max(left, right), 0.0)),
        coefficients=places,
        losses=values,
    )


def _numbers(values: Any, name: str) -> NDArray[np.float64]:
    """Copy real numbers, or tensors, to an array."""
    if hasattr(values, "detach"):  # a tensor, without loading torch
        values = values.detach().cpu().double()
    elif not isinstance(values, np.ndarray):
        try:
            values = [
                value.detach().cpu().double() if hasattr(value, "detach") else value
                for value in values
            ]
        except TypeError:
            raise TypeError(f"{name} must be a sequence, got {type(values).__name__}") from None
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):  # of different lengths
        found = np.zeros(0, dtype=object)
    if found.dtype.kind == "c":
        raise ValueError("coefficients and losses must be real, got complex numbers")
    if found.dtype.kind not in "biuf" and found.size:
        raise TypeError(f"{name} must be real numbers, got an array of {found.dtype}")
    if found.dtype.kind == "O":
        raise ValueError(f"{name} must be a vector of real numbers, got parts of different shapes")
    return found.astype(np.float64)


def _check(places: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    if places.ndim != 1 or places.shape != values.shape:
        raise ValueError(
            "coefficients and losses must be two vectors of equal length, got shapes "
            f"{places.shape} and {values.shape}"
        )
    for name, array in (("coefficients", places), ("losses", values)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    if not {0.0, 1.0} <= set(places.tolist()):
        raise ValueError(f"coefficients must hold 0 and 1, got {places.tolist()}")
    if len(np.unique(places)) < len(places):
        raise ValueError(f"coefficients must be distinct, got {np.sort(places).tolist()}")

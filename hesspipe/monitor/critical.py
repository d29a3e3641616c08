"""The critical step: the smallest one along an update at which the loss is not below its start.

On a quadratic with L(s) = L(0) - a s + b s^2 / 2 it is 2 a / b, so that 2 / (critical step) is the
curvature along the update in units of its slope. It takes forward passes only.

References
----------
Kalra, Gagnon-Audet, Gromov, Mediratta, Niu, Miller, Shvartsman (2026), A scalable measure of loss
landscape curvature for analyzing the training dynamics of LLMs, Section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

# Steps from 2^-20 to 2^20 guesses are tried, and the root is found to this relative precision.
_MOST_DOUBLINGS = 20
_PRECISION = 1e-3
_MOST_REFINEMENTS = 40


def critical_step(loss: Callable[[float], float], guess: float = 1.0) -> float | None:
    """Find the smallest s > 0 with L(s) = L(0), in multiples of an update.

    It is bracketed by doubling or halving a guess, so that a smaller root between two of these is
    not seen. The mean slope (L(s) - L(0)) / s, linear for a quadratic, is then set to zero.

    Parameters
    ----------
    loss : callable (s) -> float
        The loss at s updates from the start.
    guess : float

    Returns
    -------
    float or None
        None if the loss does not decrease along the update, or decreases at every step tried.

    Examples
    --------
    >>> critical_step(lambda s: 1 - s + 0.2 * s**2)
    5.0
    """
    start = loss(0.0)

    def slope(step: float) -> float:
        value = loss(step)
        return (value - start) / step if math.isfinite(value) else math.inf

    low, high = _bracket(slope, guess)
    if low is None or high is None:
        return None
    (below, low_slope), (above, high_slope) = low, high
    for _ in range(_MOST_REFINEMENTS):
        if above - below <= _PRECISION * below:
            break
        middle = (below + above) / 2
        if math.isfinite(high_slope):
            middle = below - low_slope * (above - below) / (high_slope - low_slope)
        found = slope(middle)
        if abs(found) <= _PRECISION * min(abs(low_slope), abs(high_slope)):
            return middle
        if found < 0:  # the Illinois rule: an end that stays counts half
            below, low_slope, high_slope = middle, found, high_slope / 2
        else:
            above, high_slope, low_slope = middle, found, low_slope / 2
    return (below + above) / 2


_End = tuple[float, float] | None


def _bracket(slope: Callable[[float], float], guess: float) -> tuple[_End, _End]:
    """Find neighboring doublings of a guess with a decrease and without one, and their slopes."""
    step, found = guess, slope(guess)
    low: _End = (step, found) if found < 0 else None
    high: _End = None if found < 0 else (step, found)
    for _ in range(_MOST_DOUBLINGS):
        if low is not None and high is not None:
            break
        step = step / 2 if low is None else step * 2
        found = slope(step)
        if found < 0:
            low = (step, found)
        else:
            high = (step, found)
    return low, high

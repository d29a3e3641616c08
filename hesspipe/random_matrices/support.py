"""The support of the law of a sample covariance: where its eigenvalues lie, piece by piece.

Outside the support, and only there, the equations of `hesspipe.random_matrices.generalized`
have a real solution with a'(z) > 0. In v = -1 / a and w = z / b they read

    s = mean_d[d / (d - v)] = alpha mean_t[t / (t - w)],   z = -s v w

and a' > 0 is A B < s^2 with A = alpha mean_t[t^2 / (t - w)^2] and B = mean_d[d^2 / (d - v)^2].
Between two neighboring poles, v and w increase with s. So a pair of intervals between poles, one of
each kind, holds one curve s -> z, and on it at most one gap of the support, because the share of
eigenvalues above a gap follows from the pair alone. The gap's ends are the critical points of z.

Nothing is scanned: by the Cauchy-Schwarz inequality A B < s^2 needs B < alpha mean[t > 0] and
A < mean[d > 0], which few intervals between poles satisfy anywhere, and A and B are convex there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

# Parts of a curve in the search for a gap on it: what they miss is narrower than rounding.
_MAX_NUM_PARTS = 400
_EPS = float(np.finfo(np.float64).eps)


class Piece(NamedTuple):
    """An interval of the support, and the share of all eigenvalues that lie in it."""

    lower: float
    upper: float
    mass: float


class _Arc(NamedTuple):
    """An interval between two neighboring poles, or through infinity.

    Its coordinate is v (or w), or on the arc through infinity, from the largest pole to 0 from
    below, a = -1 / v. The sum s increases with it.

    Attributes
    ----------
    is_outer : bool
        Whether it goes through infinity.
    low, high : float
        Ends of the coordinates at which the second moment is below its limit.
    bottom : float
        Where the second moment is smallest.
    share : float
        Mass of the poles above the arc.
    """

    is_outer: bool
    low: float
    high: float
    bottom: float
    share: float


@dataclass(frozen=True)
class _Side:
    """One of the two sums over poles.

    Attributes
    ----------
    poles, masses : ndarray
        Distinct, positive and ascending, the largest 1; the masses' sum may be any.
    limit : float
        Of the second moment, wherever there may be a gap.
    """

    poles: Real
    masses: Real
    limit: float

    @property
    def total(self) -> float:
        """The sum of the masses."""
        return float(self.masses.sum())

    def sum(self, arc: _Arc, x: float) -> float:
        """Evaluate s."""
        return float(np.sum(self.masses * self._terms(arc, x)))

    def second(self, arc: _Arc, x: float) -> float:
        """Evaluate the second moment, A or B."""
        return float(np.sum(self.masses * self._terms(arc, x) ** 2))

    def ratio(self, x: float) -> float:
        """Evaluate second / sum^2 on the arc through infinity, where it falls with x."""
        terms = self.poles / (1 + self.poles * x)
        return float(np.sum(self.masses * terms**2) / np.sum(self.masses * terms) ** 2)

    def factor(self, arc: _Arc, x: float) -> float:
        """Evaluate -s v, which is finite where v is not."""
        if arc.is_outer:
            return float(np.sum(self.masses * self.poles / (1 + self.poles * x)))
        return -self.sum(arc, x) * x

    def inverse(self, arc: _Arc, s: float) -> float:
        """Find the coordinate at which the sum is s."""
        if s == 0 and arc.is_outer:
            return 0.0
        if len(self.poles) == 1:
            pole, mass = float(self.poles[0]), float(self.masses[0])
            return s / (mass - s) / pole if arc.is_outer else pole * (s - mass) / s
        return _root(lambda x: self.sum(arc, x) - s, arc.low, arc.high)

    def arcs(self) -> Iterator[_Arc]:
        """List the arcs on which the second moment is below its limit somewhere."""
        poles, masses = self.poles, self.masses
        # Closer to a pole, its term alone is too large.
        radii = poles * np.maximum(np.sqrt(masses / self.limit), 4 * _EPS)
        outer, inner = (_Arc(is_outer, 0.0, 0.0, 0.0, self.total) for is_outer in (True, False))
        low = self._boundary(outer, -1 / float(poles[-1] + radii[-1]), 0.0)
        yield _Arc(True, low, self._end_of_outer(outer), 0.0, 0.0)
        if self.total < self.limit:
            end = max(0.0, float(poles[0] - radii[0]))
            yield inner._replace(high=self._boundary(inner, end, 0.0))
        above = self.total - np.cumsum(masses)
        starts, stops = poles[:-1] + radii[:-1], poles[1:] - radii[1:]
        # What the terms of the two neighbors are together, at least.
        least = (radii[:-1] ** (2 / 3) + radii[1:] ** (2 / 3)) ** 3 / np.diff(poles) ** 2
        for index in np.flatnonzero((starts < stops) & (least < 1)):
            ends = float(starts[index]), float(stops[index])
            bottom = _root(self._slope, *ends)
            if self._excess(inner, bottom) < 0:
                low, high = (self._boundary(inner, end, bottom) for end in ends)
                yield _Arc(False, low, high, bottom, float(above[index]))

    def _terms(self, arc: _Arc, x: float) -> Real:
        if arc.is_outer:
            return self.poles * x / (1 + self.poles * x)
        return self.poles / (self.poles - x)

    def _excess(self, arc: _Arc, x: float) -> float:
        return self.second(arc, x) - self.limit

    def _boundary(self, arc: _Arc, end: float, inside: float) -> float:
        """Where the limit is met between two coordinates; the first if it is not met there."""
        if self._excess(arc, end) < 0:
            return end
        return _root(partial(self._excess, arc), end, inside)

    def _slope(self, x: float) -> float:
        """Half the derivative of the second moment between two poles."""
        return float(np.sum(self.masses * self.poles**2 / (self.poles - x) ** 3))

    def _end_of_outer(self, outer: _Arc) -> float:
        """Where the limit is met for v < 0, or a v so small that nothing changes any more."""
        far = 1 / float(self.poles[0])
        while self._excess(outer, far) < 0 and far * float(self.poles[0]) < 1 / _EPS:
            far *= 2
        return self._boundary(outer, far, 0.0)


@dataclass(frozen=True)
class _Curve:
    """The curve s -> z of a pair of arcs, as a function of the first arc's coordinate."""

    samples: _Side
    population: _Side
    first: _Arc
    second: _Arc

    def other(self, x: float) -> float:
        """Find the second arc's coordinate."""
        return self.population.inverse(self.second, self.samples.sum(self.first, x))

    def position(self, x: float) -> float:
        """Evaluate z."""
        y = self.other(x)
        if self.second.is_outer and self.first.is_outer:
            return -self.samples.factor(self.first, x) / y
        if self.first.is_outer:
            return self.samples.factor(self.first, x) * y
        return x * self.population.factor(self.second, y)

    def excess(self, x: float) -> float:
        """Evaluate A B / s^2 - 1, negative in a gap."""
        y = self.other(x)
        if self.first.is_outer:
            return self.samples.ratio(x) * self.population.second(self.second, y) - 1
        second = self.samples.second(self.first, x)
        if self.second.is_outer:
            return second * self.population.ratio(y) - 1
        s = self.samples.sum(self.first, x)
        return second * self.population.second(self.second, y) / s**2 - 1 if s else math.inf

    def least(self, low: float, high: float) -> float:
        """Bound the excess from below between two coordinates."""
        start, stop = self.other(low), self.other(high)
        x = min(max(self.first.bottom, low), high)
        y = min(max(self.second.bottom, start), stop)
        if self.first.is_outer:
            return self.samples.ratio(high) * self.population.second(self.second, y) - 1
        second = self.samples.second(self.first, x)
        if self.second.is_outer:
            return second * self.population.ratio(stop) - 1
        square = max(self.samples.sum(self.first, end) ** 2 for end in (low, high))
        return second * self.population.second(self.second, y) / square - 1

    def domain(self) -> tuple[float, float] | None:
        """Find the coordinates at which both arcs have the same sum and z is positive."""
        sides = (self.samples, self.first), (self.population, self.second)
        lows = [side.sum(arc, arc.low) for side, arc in sides]
        highs = [side.sum(arc, arc.high) for side, arc in sides]
        if (self.first.is_outer and self.second.is_outer) or self._is_inner:
            highs = [min(high, 0.0) for high in highs]
        if max(lows) >= min(highs) or (self._is_inner and self._is_lowest):
            return None
        low, high = self.first.low, self.first.high
        if lows[0] < lows[1]:
            low = self.samples.inverse(self.first, lows[1])
        if highs[0] >= highs[1]:
            high = self.samples.inverse(self.first, highs[1])
        return (low, high) if low < high else None

    def gap(self) -> tuple[float, float] | None:
        """Find the gap on the curve, from its lower to its upper end."""
        ends = self.domain()
        inside = self._search(*ends) if ends else None
        if ends is None or inside is None:
            return None
        low, high = (
            end if self.excess(end) < 0 else _root(self.excess, end, inside) for end in ends
        )
        # The gap next to 0, and that above everything.
        lower = 0.0 if self._is_lowest and low == ends[0] else self.position(low)
        return lower, math.inf if self.first.is_outer and high == 0 else self.position(high)

    @property
    def _is_inner(self) -> bool:
        return not (self.first.is_outer or self.second.is_outer)

    @property
    def _is_lowest(self) -> bool:
        return any(not arc.is_outer and arc.low == 0 for arc in (self.first, self.second))

    def _search(self, low: float, high: float) -> float | None:
        """Find a coordinate in the gap, by branch and bound; None if there is no gap."""
        center = min(max(self.first.bottom, low), high)
        for x in (low, high, center):
            if self.excess(x) < 0:
                return x
        parts = [(self.least(low, high), low, high)]
        for _ in range(_MAX_NUM_PARTS):
            if not parts or parts[0][0] >= 0:
                return None
            _, low, high = heappop(parts)
            middle = _middle(low, high)
            if self.excess(middle) < 0:
                return middle
            for part in ((low, middle), (middle, high)):
                if part[0] < part[1]:
                    heappush(parts, (self.least(*part), *part))
        # The gap is about to open or has just closed: the least excess is nearly 0.
        from scipy.optimize import minimize_scalar

        bounds = min(part[1] for part in parts), max(part[2] for part in parts)
        found = minimize_scalar(
            self.excess, bounds=bounds, method="bounded", options={"xatol": 0.0, "maxiter": 200}
        )
        return float(found.x) if found.fun < 0 else None


def find_support(aspect_ratio: float, weights: Real, population: Real) -> tuple[Piece, ...]:
    """Find all pieces of the support but the point 0, and the mass in each.

    Parameters
    ----------
    aspect_ratio : float
        alpha = P / N.
    weights, population : ndarray
        As in `hesspipe.random_matrices.generalized.GeneralizedLaw`.

    Returns
    -------
    tuple of Piece
        Ascending. Edges are accurate to rounding; pieces that rounding does not separate are one.

    References
    ----------
    Silverstein, Choi (1995), for one kind of weights; Couillet, Hachem (2014), for both; Bai,
    Silverstein (1999), for the masses.
    """
    unit = float(weights.max()) * float(population.max())
    (d, d_masses), (t, t_masses) = map(_atoms, (weights, population))
    samples = _Side(d, d_masses, float(aspect_ratio * t_masses.sum()))
    others = _Side(t, aspect_ratio * t_masses, float(d_masses.sum()))
    rank = min(others.total, samples.total) / aspect_ratio
    gaps = [(0.0, 0.0, rank)]
    for first, second in product(samples.arcs(), others.arcs()):
        gap = _Curve(samples, others, first, second).gap()
        if gap is not None and gap[0] < gap[1]:
            gaps.append((unit * gap[0], unit * gap[1], (first.share + second.share) / aspect_ratio))
    gaps.sort()
    pieces = []
    for low, high in pairwise(gaps):
        lower, upper = sorted((low[1], high[0]))
        if upper > 0:
            pieces.append(Piece(lower, upper, low[2] - high[2]))
    return tuple(pieces)


def _atoms(values: Real) -> tuple[Real, Real]:
    """The distinct positive values over the largest one, ascending, and their shares."""
    distinct, counts = np.unique(values[values > 0] / values.max(), return_counts=True)
    return distinct[distinct > 0], counts[distinct > 0] / len(values)


def _middle(low: float, high: float) -> float:
    """A point between two, on a logarithmic scale where they are far apart."""
    if low < 0 < high:
        return 0.0
    if low == 0 or high == 0:
        return (low + high) / 16
    if max(abs(low), abs(high)) > 4 * min(abs(low), abs(high)):
        return math.copysign(math.sqrt(low * high), low)
    return (low + high) / 2


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find a root between two points; the nearer end if rounding leaves no change of sign."""
    from scipy.optimize import brentq

    ends = function(low), function(high)
    if ends[0] == 0 or ends[1] == 0 or (ends[0] > 0) == (ends[1] > 0):
        return low if abs(ends[0]) <= abs(ends[1]) else high
    return float(brentq(function, low, high, xtol=1e-300, rtol=4 * _EPS, maxiter=2000))

"""Numbers of eigenvalues up to a threshold, as intervals that hold with a stated confidence.

Let v be a random unit vector and m the number of eigenvalues up to t. The share of v's square in
their eigenvectors is not only m / P on average: its law is Beta(m / 2, (P - m) / 2), whatever the
matrix. Two errors are therefore bounded, one after the other, and neither is estimated:

quadrature    The share of each probe lies between two bounds (`hesspipe.linalg.radau`).
few probes    The Beta law is inverted, as Clopper and Pearson do for the binomial one. Weighted by
              the squared lengths of the Gaussian vectors that the probes are directions of, the
              average of k probes has the law Beta(k m / 2, k (P - m) / 2), exactly.

Between outliers the number is known exactly. Let Y be the Ritz vectors of one probe beyond t, all
converged. If further eigenvectors lay beyond t, as copies of a multiple eigenvalue that a Krylov
space of one vector never has, then the start vectors of the other probes would have a share in
them. It is at most what their own quadratures have beyond t less what Y explains:

    (upper bound of the share beyond t)  -  |Y^T v|^2.

A share so small is improbable, Beta(1/2, (P - 1) / 2), and the probabilities of several probes are
combined as Fisher does. If all of them together are below what the confidence allows, the number of
Ritz values is the number of eigenvalues. The thresholds for which it is known exactly also divide
the rest: between two of them, the Beta law is that of the eigenvalues between them.

The number of Ritz values beyond t never exceeds that of the eigenvalues (Cauchy), in any case.

References
----------
Clopper, Pearson (1934); Fisher (1925), Statistical Methods for Research Workers, section 21.1.
Parlett (1998), The Symmetric Eigenvalue Problem, sections 10.1 and 11.7, on Ritz values.
Bhattacharjee, Jayaram, Musco, Musco, Ray (2024), arXiv:2410.21690, on deflated Ritz values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betainc, betaincc, betainccinv, gammaincc

from hesspipe.linalg.radau import Rules
from hesspipe.plots.plotted import Plotted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Residuals above this share of the distance to the threshold are not tried for exactness.
_CONVERGED = 1e-3


@dataclass(frozen=True)
class Count(Plotted):
    """A number of eigenvalues, as an interval.

    `plot` draws it in its interval.

    Attributes
    ----------
    low, high : int
        They hold the number with the stated confidence; equal if it is known exactly.
    estimate : float
        From the quadrature, within the interval.
    confidence : float
        Probability, over the random start vectors, that the interval holds.
    """

    low: int
    high: int
    estimate: float
    confidence: float

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.estimates import plot_estimates
        from hesspipe.plots.style import interval_label

        what = interval_label(self.confidence)
        bounds = [(float(self.low), float(self.high))]
        return plot_estimates(ax, ["count"], [self.estimate], bounds, what, "number of eigenvalues")


@dataclass(frozen=True)
class Sample:
    """What the probes of a density tell of the numbers of eigenvalues.

    Attributes
    ----------
    rules : Rules
    squared_lengths : array, shape (probes,)
        Of the Gaussian vectors whose directions the probes are: chi-squared with P degrees of
        freedom, and independent of the directions.
    overlaps : array, shape (probes - 1, steps)
        Scalar products of the start vectors but the last with the Ritz vectors of the last.
    dim : int
        P.
    resolution : float
        Distance by which rounding may shift eigenvalues.
    """

    rules: Rules
    squared_lengths: Floats
    overlaps: Floats
    dim: int
    resolution: float

    def numbers_up_to(self, points: Floats, confidence: float) -> tuple[Integers, Integers]:
        """Bound the number of eigenvalues in (-inf, t].

        Parameters
        ----------
        points : array, shape (n,)
            The t; infinite ones are allowed.
        confidence : float
            Of each interval by itself.

        Returns
        -------
        low, high : array, shape (n,)
        """
        risk = 1 - confidence
        low, high = np.zeros(len(points), np.int64), np.full(len(points), self.dim)
        high[points == -np.inf], low[points == np.inf] = 0, self.dim
        inner = np.isfinite(points)
        if inner.any():
            low[inner], high[inner] = self._inner_numbers(points[inner], risk)
        return low, high

    def numbers_between(self, low: float, high: float, risk: float) -> tuple[int, int]:
        """Bound the number of eigenvalues in (low, high], both finite, by the share in it."""
        at_low, at_high = self.masses(np.array([low, high]))  # each (probes, 2)
        least = self.average(np.maximum(at_low[:, 1] - at_high[:, 0], 0))
        most = self.average(np.minimum(at_high[:, 1] - at_low[:, 0], 1))
        found = _invert(
            np.array([least]), np.array([most]), np.array([self.dim]), self.num_probes, risk
        )
        return int(found[0][0]), int(found[1][0])

    def _inner_numbers(self, points: Floats, risk: float) -> tuple[Integers, Integers]:
        masses = self.masses(points)
        below, above = self._ritz_numbers(points)
        least, most = below, self.dim - above  # Cauchy
        exact = self._exact_numbers(points, masses, risk / 4)
        low, high = self._numbers_by_shares(points, masses, risk / 2)
        is_exact = exact >= 0
        low, high = np.where(is_exact, exact, low), np.where(is_exact, exact, high)
        # What Cauchy's bounds exclude is excluded with certainty.
        return np.clip(low, least, most), np.clip(high, least, most)

    def _numbers_by_shares(
        self, points: Floats, masses: tuple[Floats, Floats], risk: float
    ) -> tuple[Integers, Integers]:
        """Invert the Beta law between the exact thresholds around each point."""
        anchors, numbers, (at_low, at_high) = self._anchors(risk)
        after = np.searchsorted(anchors, points).clip(1, len(anchors) - 1)
        start, total = numbers[after - 1], numbers[after] - numbers[after - 1]
        left_low = self.average(np.maximum(masses[0] - at_high[:, after - 1], 0))
        left_high = self.average(np.maximum(masses[1] - at_low[:, after - 1], 0))
        right_low = self.average(np.maximum(at_low[:, after] - masses[1], 0))
        right_high = self.average(np.maximum(at_high[:, after] - masses[0], 0))
        with np.errstate(invalid="ignore"):  # no share on either side: anything is possible
            least = left_low / (left_low + right_high)
            most = left_high / (left_high + right_low)
        least = np.where(left_low + right_high > 0, least, 0.0)
        most = np.where(left_high + right_low > 0, most, 1.0)
        low, high = _invert(least, most, total, self.num_probes, risk)
        return start + low, start + high

    def _anchors(self, risk: float) -> tuple[Floats, Integers, tuple[Floats, Floats]]:
        """Return thresholds with exactly known numbers up to them, and the shares there.

        The first is -inf with 0, and the last inf with P.
        """
        thresholds, masses = self._gaps
        # Every gap is tried, and any of them could be wrong.
        exact = self._exact_numbers(thresholds, masses, risk / (4 * self.rules.nodes.shape[1]))
        found = exact >= 0
        # Two wrong ones could contradict each other; then none is used. At least one eigenvalue
        # lies between two gaps.
        if (np.diff(exact[found]) <= 0).any():
            found[:] = False
        ends = [(0, 0), (1, 1)]
        low, high = (
            np.pad(mass[:, found], ends, constant_values=[(0, 0), (0, 1)]) for mass in masses
        )
        anchors = np.pad(thresholds[found], 1, constant_values=(-np.inf, np.inf))
        return anchors, np.pad(exact[found], 1, constant_values=(0, self.dim)), (low, high)

    @cached_property
    def _gaps(self) -> tuple[Floats, tuple[Floats, Floats]]:
        """Centers of the gaps next to converged nodes of the last probe, and the shares there."""
        nodes = self._last_nodes
        centers = (nodes[:-1] + nodes[1:]) / 2
        if len(centers) == 0 or self.num_probes == 1:
            return np.zeros(0), (np.zeros((self.num_probes, 0)),) * 2
        leaks = np.minimum(*(self._leaks(centers, sign) for sign in (-1, 1)))
        centers = centers[leaks < _CONVERGED]
        return centers, self.masses(centers)

    def _exact_numbers(
        self, points: Floats, masses: tuple[Floats, Floats], risk: float
    ) -> Integers:
        """Return the number up to each point where it is known exactly, else -1."""
        numbers = np.full(len(points), -1)
        if self.num_probes == 1:
            return numbers
        for sign, most in ((1, 1 - masses[0]), (-1, masses[1])):
            beyond = sign * self._last_nodes > sign * points[:, None]  # (n, steps)
            count = beyond.sum(1)
            chance = self._chance_of_more(points, most[:-1], beyond, sign, risk / 4)
            number = self.dim - count if sign == 1 else count
            numbers = np.where(chance <= risk / 4, number, numbers)
        return numbers

    def _chance_of_more(
        self, points: Floats, most: Floats, beyond: NDArray[np.bool_], sign: int, risk: float
    ) -> Floats:
        """Bound the probability of shares as small if there were more eigenvectors, (n,)."""
        count = beyond.sum(1)
        explained = self._last_overlaps[:, None, :] ** 2 * beyond  # (probes - 1, n, steps)
        leak = self._leaks(points, sign)
        # The part of Y that is not in the eigenvectors beyond t has a random share of v, too.
        rest = betainccinv(
            np.maximum(count, 1) / 2,
            np.maximum(self.dim - count, 1) / 2,
            risk / (self.num_probes - 1),
        )
        known = np.sqrt(explained.sum(2)) - np.where(count > 0, leak * np.sqrt(rest), 0.0)
        # Rounding of the operator turns the eigenvectors of the other probes by this angle.
        turn = self._turns(points, sign)
        hidden = most + 2 * np.sqrt(most) * turn - np.square(np.maximum(known, 0.0))
        shares = np.clip(hidden, np.finfo(float).eps, 1.0)
        chances = betainc(0.5, max(self.dim - 1, 1) / 2, shares)
        chance = gammaincc(len(chances), -np.log(chances).sum(0))
        result: Floats = np.where(leak < _CONVERGED, chance, 1.0)
        return result

    def _leaks(self, points: Floats, sign: int) -> Floats:
        """Bound the sine of the angle of Y to the eigenvectors beyond each point, (n,)."""
        distances = sign * (self._last_nodes - points[:, None]) - self.resolution  # (n, steps)
        residuals = np.abs(self._last_couplings) + self.resolution
        with np.errstate(divide="ignore"):
            sines = np.where(distances > 0, residuals / np.abs(distances), 1.0)
        is_beyond = sign * self._last_nodes > sign * points[:, None]
        total: Floats = np.sqrt((np.square(sines) * is_beyond).sum(1))
        return total

    def _turns(self, points: Floats, sign: int) -> Floats:
        """Return the resolution over the distance from each point to the next node beyond."""
        distances = sign * (self._last_nodes - points[:, None])
        nearest = np.where(distances > 0, distances, np.inf).min(1)
        turns: Floats = np.minimum(self.resolution / nearest, 1.0)
        return turns

    def _ritz_numbers(self, points: Floats) -> tuple[Integers, Integers]:
        """Count the Ritz values below and above each point: the most that a probe has."""
        nodes, has_weight = self.rules.nodes.numpy(), self.rules.weights.numpy() > 0
        limits = points[:, None, None]
        below = ((nodes < limits - self.resolution) & has_weight).sum(2).max(1)
        above = ((nodes > limits + self.resolution) & has_weight).sum(2).max(1)
        return below, above

    def masses(self, points: Floats) -> tuple[Floats, Floats]:
        """Bound the share of (-inf, t] of each probe, (probes, n)."""
        low = np.repeat((points == np.inf)[None].astype(float), self.num_probes, axis=0)
        high = np.repeat((points > -np.inf)[None].astype(float), self.num_probes, axis=0)
        inner = np.isfinite(points)
        if inner.any():
            found = self.rules.bounds(torch.from_numpy(points[inner]), self.resolution)
            low[:, inner], high[:, inner] = (bound.numpy() for bound in found)
        return low, high

    def average(self, shares: Floats) -> Floats:
        """Average (probes, n) over the probes, weighted by the squared lengths."""
        average: Floats = self.squared_lengths @ shares / self.squared_lengths.sum()
        return average

    @property
    def num_probes(self) -> int:
        """The number of start vectors."""
        return len(self.rules.nodes)

    @cached_property
    def _is_real(self) -> NDArray[np.bool_]:
        """Which nodes of the last probe are none that only fill the row."""
        return self.rules.weights[-1].numpy() > 0

    @property
    def _last_nodes(self) -> Floats:
        nodes: Floats = self.rules.nodes[-1].numpy()[self._is_real]
        return nodes

    @property
    def _last_couplings(self) -> Floats:
        couplings: Floats = self.rules.couplings[-1].numpy()[self._is_real]
        return couplings

    @property
    def _last_overlaps(self) -> Floats:
        return self.overlaps[:, self._is_real]


def _invert(
    least: Floats, most: Floats, total: Integers, num_probes: int, risk: float
) -> tuple[Integers, Integers]:
    """Invert the law of an average share that lies between two bounds.

    Parameters
    ----------
    least, most : array, shape (n,)
    total : array, shape (n,)
        Number M of eigenvalues that the share refers to.
    num_probes : int
    risk : float
        Half of it on each side.

    Returns
    -------
    low, high : array, shape (n,)
        Bounds of the number m of which it is the share: Beta(k m / 2, k (M - m) / 2).
    """

    def is_high_enough(number: Integers) -> NDArray[np.bool_]:
        """Whether m could have a share as large as `least`."""
        inner = np.clip(number, 1, np.maximum(total - 1, 1))
        first, second = num_probes * inner / 2, num_probes * np.maximum(total - inner, 1) / 2
        chance = betaincc(first, second, least)
        chance = np.where(number <= 0, least <= 0, np.where(number >= total, 1.0, chance))
        return (chance > risk / 2) & (number >= 0)

    def is_low_enough(number: Integers) -> NDArray[np.bool_]:
        inner = np.clip(number, 1, np.maximum(total - 1, 1))
        first, second = num_probes * inner / 2, num_probes * np.maximum(total - inner, 1) / 2
        chance = betainc(first, second, most)
        chance = np.where(number <= 0, 1.0, np.where(number >= total, most >= 1, chance))
        return chance > risk / 2

    # The smallest that is high enough, and the largest that is low enough, by bisection.
    low_out, low_in = np.full(len(total), -1), total.copy()
    high_in, high_out = np.zeros(len(total), np.int64), total + 1
    while ((low_in - low_out > 1) | (high_out - high_in > 1)).any():
        middle = (low_out + low_in) // 2
        can = is_high_enough(middle)
        low_in, low_out = np.where(can, middle, low_in), np.where(can, low_out, middle)
        middle = (high_in + high_out) // 2
        can = is_low_enough(middle)
        high_in, high_out = np.where(can, middle, high_in), np.where(can, high_out, middle)
    return low_in, high_in

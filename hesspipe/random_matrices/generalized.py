"""The law of sample covariances with a given population spectrum and given sample weights.

The outputs of a logistic model have the gradients x_n: its Gauss-Newton matrix is a sample
covariance in which each sample is weighted by the curvature of its loss. These weights determine
its spectrum, without a fit; only for equal weights is it the Marchenko-Pastur law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hesspipe.errors import NoSolutionError
from hesspipe.random_matrices.support import Piece, find_support

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

_EPS = float(np.finfo(np.float64).eps)
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-14
# Distance from the real axis at which an iteration on it starts, relative to the distance from the
# nearest edge, or outside the support relative to the position.
_NEARBY = 1e-6
# Nodes of the quadrature behind a value of the distribution function: evenly spaced in u, where
# the angle is pi (1 - exp(-exp(u))). The trapezoidal rule then converges exponentially however
# close the pieces of the support are to the position: 1e-10 or better (test_generalized).
_LAST_NODE, _NODE_STEP = 3.7, 0.4
# The smallest angle, relative to the narrowest piece of the support.
_FIRST_ANGLE = 1e-13
_LARGEST = 1e140  # so that squares are finite
_BLOCK = 2_000_000  # complex numbers at a time, 32 MB
_EDGE_MARGIN = 1e-9  # an outlier that is closer to the bulk is not told apart from it
_NEAREST_TO_ZERO = 1e-100  # in units of the lower edge


@dataclass(frozen=True)
class GeneralizedLaw:
    """Limit of the eigenvalues of S = (1/N) sum_n d_n T^(1/2) x_n x_n^T T^(1/2).

    The x_n have P independent entries of mean 0 and variance 1. With alpha = P / N, the
    paper's convention, and z above the real axis, a(z) solves

        a = alpha mean_t[t / (t b - z)],   b = mean_d[d / (1 + d a)],   m = mean_t[1 / (t b - z)]

    and m is the Stieltjes transform of the law: m(z) = integral of 1 / (x - z).

    Attributes
    ----------
    aspect_ratio : float
        alpha = P / N, positive.
    weights : ndarray, shape (any,)
        d, the weights of the samples, at least 0, each for an equal share of the samples.
    population : ndarray, shape (any,)
        t, the eigenvalues of the population covariance T, at least 0, each for an equal share
        of the parameters.

    Raises
    ------
    ValueError
        If something is negative, not finite, or zero throughout.

    References
    ----------
    Marchenko, Pastur (1967); Paul, Silverstein (2009); Couillet, Hachem (2014).

    Examples
    --------
    >>> law = GeneralizedLaw(0.25, weights=np.array([1.0]), population=np.array([1.0]))
    >>> [round(edge, 6) for edge in law.edges()]  # Marchenko-Pastur's, (1 -+ 1/2)^2
    [0.25, 2.25]
    >>> law = GeneralizedLaw(1e-4, np.array([1.0]), population=np.array([1.0, 50.0]))
    >>> [[round(number, 2) for number in piece] for piece in law.support]
    [[0.99, 1.01, 0.5], [49.3, 50.71, 0.5]]
    """

    aspect_ratio: float
    weights: Real
    population: Real

    def __post_init__(self) -> None:
        if not (self.aspect_ratio > 0 and math.isfinite(self.aspect_ratio)):
            raise ValueError(f"aspect_ratio must be positive and finite, got {self.aspect_ratio}")
        for name in ("weights", "population"):
            values = _real(getattr(self, name), name)
            object.__setattr__(self, name, values)
            if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
                raise ValueError(f"{name} must be a vector of finite numbers, got {values}")
            if values.min() < 0 or values.max() == 0:
                raise ValueError(
                    f"{name} must be at least 0 and not all 0, got {values.min()} to {values.max()}"
                )
        sizes = self.aspect_ratio, self.weights.max(), self.population.max(), self.bound
        if not all(1 / _LARGEST < size < _LARGEST for size in sizes):
            raise ValueError(
                "aspect_ratio, the largest of weights and of population, and the largest possible "
                f"eigenvalue must be between {1 / _LARGEST:g} and {_LARGEST:g}, got "
                f"{', '.join(f'{size:g}' for size in sizes)}; scale the weights"
            )

    @cached_property
    def support(self) -> tuple[Piece, ...]:
        """All pieces of the support but the point 0, ascending: lower and upper end, and mass.

        The masses are shares of all P eigenvalues; with `mass_at_zero` they add up to 1.
        """
        return find_support(self.aspect_ratio, self.weights, self.population)

    @property
    def mass_at_zero(self) -> float:
        """Share of the P eigenvalues that is exactly zero; alpha = P / N."""
        rank = min(
            float(np.mean(self.population > 0)),
            float(np.mean(self.weights > 0)) / self.aspect_ratio,
        )
        return 1 - rank

    @property
    def bound(self) -> float:
        """No eigenvalue of the bulk is larger: max t * max d * (1 + sqrt(alpha))^2."""
        root = 1 + math.sqrt(self.aspect_ratio)
        return float(self.population.max()) * float(self.weights.max()) * root * root

    def stieltjes(self, points: ArrayLike) -> Complex:
        """Evaluate m(z), the limit of (1/P) trace (S - z)^-1, for alpha = P / N.

        Parameters
        ----------
        points : array_like
            z, with positive imaginary part.

        Returns
        -------
        ndarray, complex
            Of the same shape, with positive imaginary part.

        Raises
        ------
        ValueError
            If a point is not above the real axis.
        NoSolutionError
            If the equation is not solved.
        """
        z = np.asarray(points, dtype=np.complex128)
        b = self.sample_factor(self.solve(z))
        inverses = 1 / (self.population * b[..., None] - z[..., None])  # (..., population)
        return np.asarray(np.mean(inverses, axis=-1))

    def solve(self, points: ArrayLike) -> Complex:
        """Solve for a(z), from high above the real axis, where the solution is known, down to z.

        A step of Newton's method is taken where both a and z a stay above the axis, as they must
        for eigenvalues that are not negative, and otherwise an averaged step of the fixed-point
        iteration, which keeps them there.

        Parameters
        ----------
        points : array_like
            z, with positive imaginary part.

        Returns
        -------
        ndarray, complex
            The limit of (1/N) trace T (S - z)^-1.
        """
        z = np.asarray(points, dtype=np.complex128)
        if z.size and z.imag.min() <= 0:
            raise ValueError(f"points must lie above the real axis, got {z[z.imag <= 0][0]}")
        return self._in_blocks(self._descend, z.ravel()).reshape(z.shape)

    def sample_factor(self, a: Complex) -> Complex:
        """Evaluate b = mean_d[d / (1 + d a)]."""
        return np.asarray(np.mean(self.weights / (1 + self.weights * a[..., None]), axis=-1))

    def density(self, positions: ArrayLike) -> Real:
        """Evaluate the density of the eigenvalues that are not exactly zero; alpha = P / N.

        It is pi^-1 Im m on the real axis, and 0 outside the support. Where weights are far from
        all others, the support has narrow pieces (one for each weight in the limit) with high
        peaks, which a grid of positions misses: `support` lists them.

        Parameters
        ----------
        positions : array_like
            Eigenvalues.

        Returns
        -------
        ndarray
            Of the same shape.
        """
        x = _checked(positions)
        result = np.zeros_like(x)
        room, _, _ = self._places(x)
        inside = x[room > 0]
        a = self.solve(inside + 1j * _NEARBY * room[room > 0])
        a = self._in_blocks(self._refine_on_axis, inside.astype(np.complex128), a)
        result[room > 0] = self._nonzero(inside.astype(np.complex128), a).imag / np.pi
        return result

    def cdf(self, positions: ArrayLike) -> Real:
        """Evaluate the share of the eigenvalues at or below each position, zeros included.

        The density is integrated on a half circle through the position and its negative, because
        m is smooth away from the real axis. In a gap of the support, the share is that of
        `support`.

        Parameters
        ----------
        positions : array_like
            Eigenvalues.

        Returns
        -------
        ndarray
            Of the same shape, from 0 to 1; alpha = P / N.
        """
        x = _checked(positions)
        room, lowest, highest = self._places(x)
        inside = x[room > 0]
        narrowest = min((piece.upper - piece.lower) / piece.upper for piece in self.support)
        first = math.log(_FIRST_ANGLE * max(narrowest, _EPS))
        u = np.arange(first, _LAST_NODE, _NODE_STEP)
        angles, slopes = -np.pi * np.expm1(-np.exp(u)), np.pi * np.exp(u - np.exp(u))
        z = inside[:, None] * (np.cos(angles) + 1j * np.sin(angles))  # (positions, nodes)
        m = self._nonzero(z, self.solve(z))
        area = np.sum((m * 1j * z * (slopes * _NODE_STEP)).imag, axis=-1) / -np.pi
        result = lowest.copy()
        # What the quadrature is off, by 1e-10, must not lead out of the piece's own range.
        found = self.mass_at_zero + area
        result[room > 0] = np.clip(found, lowest[room > 0], highest[room > 0])
        return result

    def edges(self) -> tuple[float, float]:
        """Give the edges of the nonzero part of the spectrum.

        Returns
        -------
        lower, upper : float
            The ends of the first and of the last piece of `support`; alpha = P / N. `lower` is 0
            if the bulk reaches down to 0.
        """
        return self.support[0].lower, self.support[-1].upper

    def _places(self, x: Real) -> tuple[Real, Real, Real]:
        """Distance from the nearest edge, and shares below and with the piece; 0 in a gap."""
        lower, upper, masses = np.transpose(self.support)
        cumulated = 1 - np.append(np.cumsum(masses[::-1])[::-1], 0.0)
        cumulated[0] = self.mass_at_zero
        number = np.searchsorted(upper, x, side="right")  # pieces that end at or below
        piece = np.minimum(number, len(upper) - 1)
        room = np.where(number < len(upper), np.minimum(x - lower[piece], upper[piece] - x), 0.0)
        below = np.where(x < 0, 0.0, cumulated[number])
        return np.maximum(room, 0.0), below, cumulated[piece + 1]

    def _nonzero(self, z: Complex, a: Complex) -> Complex:
        """Evaluate m without the part of the zeros, from what limits the rank.

        Without cancellation: for alpha much above 1, nearly all of m is that of the zeros.
        """
        if np.mean(self.weights > 0) < self.aspect_ratio * np.mean(self.population > 0):
            d = self.weights[self.weights > 0]
            sums = np.sum(1 / (1 + d * a[..., None]), axis=-1)
            return np.asarray(-sums / (len(self.weights) * self.aspect_ratio * z))
        b = self.sample_factor(a)
        t = self.population[self.population > 0]
        sums = np.sum(1 / (t * b[..., None] - z[..., None]), axis=-1)
        return np.asarray(sums / len(self.population))

    def _refine_on_axis(self, x: Complex, a: Complex) -> Complex:
        return self._refine(x, a, tolerance=_TOLERANCE)

    def _in_blocks(self, function: Callable[..., Complex], *arrays: Complex) -> Complex:
        size = max(1, _BLOCK // max(len(self.weights), len(self.population)))
        places = range(size, len(arrays[0]), size)
        parts = zip(*(np.split(array, places) for array in arrays), strict=True)
        return np.concatenate([function(*part) for part in parts])

    def _descend(self, z: Complex) -> Complex:
        height = 4 * (self.bound + float(np.abs(z).max(initial=0.0)))
        a = -self.aspect_ratio * np.mean(self.population) / (z + 1j * height)
        active = np.arange(len(z))
        while len(active):
            a[active] = self._refine(z[active] + 1j * height, a[active], tolerance=1e-2)
            height /= 2
            active = active[z[active].imag / 2 < height]
        return self._refine(z, a, tolerance=_TOLERANCE)

    def _refine(self, z: Complex, a: Complex, tolerance: float) -> Complex:
        """Solve for a, starting near the solution."""
        a = a.copy()
        active = np.arange(len(z))
        for _ in range(_MAX_ITERATIONS):
            value, slope, rounding = self._step(z[active], a[active])
            newton = a[active] - (value - a[active]) / (slope - 1)
            is_safe = (newton.imag > 0) & ((z[active] * newton).imag > 0) & np.isfinite(newton)
            new = np.where(is_safe, newton, (value + a[active]) / 2)
            # At an edge the solution is a double root: its equation holds to the last digits
            # long before they are those of the solution.
            is_moving = (np.abs(new - a[active]) > tolerance * np.abs(new)) & (
                np.abs(value - a[active]) > rounding
            )
            a[active] = new
            active = active[is_moving]
            if not len(active):
                return a
        raise NoSolutionError(
            f"no solution at {len(active)} of {len(z)} points after {_MAX_ITERATIONS} iterations, "
            f"the first z = {z[active[0]]}"
        )

    def _step(self, z: Complex, a: Complex) -> tuple[Complex, Complex, Real]:
        """Evaluate the right-hand side of the equation for a, its slope and its rounding error."""
        factors = self.weights / (1 + self.weights * a[:, None])  # (points, weights)
        b, b_slope = factors.mean(1), -(factors**2).mean(1)
        inverses = 1 / (self.population * b[:, None] - z[:, None])  # (points, population)
        resolvents = self.population * inverses
        value = self.aspect_ratio * resolvents.mean(1)
        slope = -self.aspect_ratio * b_slope * (resolvents**2).mean(1)
        growth = np.abs(resolvents) * (1 + np.abs(z[:, None] * inverses))
        return value, slope, 4 * _EPS * self.aspect_ratio * growth.mean(1)


def outlier_positions(law: GeneralizedLaw, weights: Real, projections: Real) -> tuple[Real, Real]:
    """Find the outliers that a few directions add to the bulk.

    In these directions the samples may have a mean, or the weights may depend on them, as the
    curvature of a logistic model depends on the projection on w; orthogonally to them, the
    samples are noise with the law's spectrum. With u_n the projections of sample n, the outliers
    are where

        det(z - (1/N) sum_n d_n u_n u_n^T / (1 + d_n a(z))) = 0

    outside the bulk. For one direction that the weights do not depend on, and d = 1, this is
    z = l (1 + alpha / (l - 1)) with l the mean of u_n^2: the paper's Theorem 1.

    Parameters
    ----------
    law : GeneralizedLaw
        Of the noise; alpha = P / N.
    weights : ndarray, shape (N,)
        d_n.
    projections : ndarray, shape (N, r)
        u_n, in an orthonormal basis of the r directions.

    Returns
    -------
    left, right : ndarray
        Positions that have a piece of the bulk above them, so below it or in its gaps, and those
        above all of it; ascending. An outlier is a share of 1e-9 away from the bulk.
    """
    from scipy.optimize import brentq

    weights, projections = _weighted_projections(weights, projections)

    def excess(z: float, branch: int) -> float:
        # Outside the support a is real on the axis, and that next to it differs by _NEARBY^2.
        a = law.solve(np.array([z * (1 + 1j * _NEARBY * _EDGE_MARGIN)]))[0].real
        scaled = projections * (weights / (1 + weights * a))[:, None]  # (N, r)
        return float(z - np.linalg.eigvalsh(projections.T @ scaled / len(weights))[branch])

    pieces = law.support
    lower, upper = law.edges()
    branches = range(projections.shape[1])
    start, far = upper * (1 + _EDGE_MARGIN), 2 * upper
    while any(excess(far, branch) < 0 for branch in branches):
        far *= 2
    right = [
        brentq(excess, start, far, args=(branch,), rtol=1e-10, xtol=1e-12 * upper)
        for branch in branches
        if excess(start, branch) < 0
    ]
    # a increases between two pieces, and the eigenvalues fall: a branch has one root or none.
    gaps = [
        (below.upper * (1 + _EDGE_MARGIN), above.lower * (1 - _EDGE_MARGIN))
        for below, above in pairwise(pieces)
    ]
    if lower > 0:
        gaps.insert(0, (_NEAREST_TO_ZERO * lower, lower * (1 - _EDGE_MARGIN)))
    left = [
        brentq(excess, *gap, args=(branch,), rtol=1e-10, xtol=1e-12 * gap[0])
        for gap in gaps
        for branch in branches
        if gap[0] < gap[1] and excess(gap[0], branch) < 0 < excess(gap[1], branch)
    ]
    return np.sort(left), np.array(right)


def _real(values: ArrayLike, name: str) -> Real:
    """Copy to float64, so that the law does not change with the caller's array."""
    if np.iscomplexobj(values):
        raise ValueError(f"{name} must be real, got complex numbers; pass their real parts")
    return np.array(values, dtype=np.float64)


def _checked(positions: ArrayLike) -> Real:
    x = np.asarray(positions, dtype=np.float64)
    if np.isnan(x).any():
        raise ValueError(f"positions must be numbers, got {np.isnan(x).sum()} that are nan")
    return x


def _weighted_projections(weights: Real, projections: Real) -> tuple[Real, Real]:
    weights, projections = _real(weights, "weights"), _real(projections, "projections")
    if weights.ndim != 1 or projections.shape[:1] != weights.shape or projections.ndim != 2:
        raise ValueError(
            f"projections must have a row for each of {weights.shape} weights, "
            f"got {projections.shape}"
        )
    if not len(weights):
        raise ValueError("weights must be those of at least one sample, got none")
    if not (np.isfinite(projections).all() and np.isfinite(weights).all() and weights.min() >= 0):
        raise ValueError(
            "projections and weights must be finite, and weights at least 0, got weights from "
            f"{weights.min()} to {weights.max()} and projections up to {np.abs(projections).max()}"
        )
    return weights, projections

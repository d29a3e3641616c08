"""The law of sample covariances with a given population spectrum and given sample weights.

The outputs of a logistic model have the gradients x_n: its Gauss-Newton matrix is a sample
covariance in which each sample is weighted by the curvature of its loss. These weights determine
its spectrum, without a fit; only for equal weights is it the Marchenko-Pastur law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hesspipe.errors import NoSolutionError

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

_EPS = float(np.finfo(np.float64).eps)
# Distance from the real axis at which the density is read off, relative to the largest possible
# eigenvalue. It blurs an edge, where the density is a square root, by as much.
_HEIGHT = 1e-10
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-11
# Nodes of the quadrature behind a value of the distribution function: 1e-8 or better for the
# Marchenko-Pastur law away from its edges (test_generalized).
_NUM_NODES = 40
# Where the density, times the largest possible eigenvalue, counts as that of the bulk: far above
# what _HEIGHT leaves outside, far below what matters.
_EDGE_DENSITY = 1e-5
_LOWEST = 1e-7
_BLOCK = 2_000_000  # complex numbers at a time, 32 MB
_EDGE_MARGIN = 1e-5  # an outlier must be farther from the bulk than the error of an edge


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
    """

    aspect_ratio: float
    weights: Real
    population: Real

    def __post_init__(self) -> None:
        if not (self.aspect_ratio > 0 and math.isfinite(self.aspect_ratio)):
            raise ValueError(f"aspect_ratio must be positive and finite, got {self.aspect_ratio}")
        for name in ("weights", "population"):
            values = getattr(self, name)
            if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
                raise ValueError(f"{name} must be a vector of finite numbers, got {values}")
            if values.min() < 0 or values.max() == 0:
                raise ValueError(
                    f"{name} must be at least 0 and not all 0, got {values.min()} to {values.max()}"
                )

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
        return float(
            self.population.max() * self.weights.max() * (1 + math.sqrt(self.aspect_ratio)) ** 2
        )

    @property
    def height(self) -> float:
        """Distance from the real axis at which values on it are read off."""
        return _HEIGHT * self.bound

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
        size = max(1, _BLOCK // max(len(self.weights), len(self.population)))
        blocks = np.split(z.ravel(), range(size, z.size, size))
        return np.concatenate([self._descend(block) for block in blocks]).reshape(z.shape)

    def sample_factor(self, a: Complex) -> Complex:
        """Evaluate b = mean_d[d / (1 + d a)]."""
        return np.asarray(np.mean(self.weights / (1 + self.weights * a[..., None]), axis=-1))

    def density(self, positions: ArrayLike) -> Real:
        """Evaluate the density of the eigenvalues that are not exactly zero; alpha = P / N.

        It is pi^-1 Im m at `height` above the real axis, without the part of the zeros. Where
        weights are far from all others, the support has narrow pieces (one for each weight in
        the limit) with high peaks, which a grid of positions misses; the mass between two
        positions, a difference of `cdf`, is exact for any support.

        Parameters
        ----------
        positions : array_like
            Eigenvalues, positive.

        Returns
        -------
        ndarray
            Of the same shape.
        """
        x = np.asarray(positions, dtype=np.float64)
        z = x + 1j * self.height
        return (self.stieltjes(z) + self.mass_at_zero / z).imag / np.pi

    def cdf(self, positions: ArrayLike) -> Real:
        """Evaluate the share of the eigenvalues at or below each position, zeros included.

        The density is integrated on a half circle through the position and its negative: m is
        smooth away from the real axis, and the zeros are counted without knowing their share.

        Parameters
        ----------
        positions : array_like
            Eigenvalues.

        Returns
        -------
        ndarray
            Of the same shape; alpha = P / N.
        """
        x = np.asarray(positions, dtype=np.float64)
        nodes, node_weights = np.polynomial.legendre.leggauss(_NUM_NODES)
        s = (nodes + 1) / 2
        # Nodes are dense toward the position itself, where m may be a square root.
        angles, steps = np.pi * s**2, np.pi * s * node_weights
        radii = np.where(x > 0, x, 1.0)[..., None]
        # (..., nodes)
        z = radii * np.exp(1j * angles)
        area = np.sum((self.stieltjes(z) * 1j * z * steps).imag, axis=-1) / -np.pi
        return np.where(x > 0, area, np.where(x < 0, 0.0, self.mass_at_zero))

    def edges(self, num_scanned: int = 400) -> tuple[float, float]:
        """Find the edges of the nonzero part of the spectrum.

        An edge is where the density, evaluated at `height` above the real axis, falls below a
        threshold. Next to a high density or a narrow piece of the support, the edge found is
        too far out: `upper` by up to some 1e-5 of itself; `lower` by a few percent where the
        weights are spread over decades, or even found as 0.

        Parameters
        ----------
        num_scanned : int
            Positions, evenly spaced in their logarithm, that are searched for the bulk.

        Returns
        -------
        lower, upper : float
            alpha = P / N. `lower` is 0 for a bulk that reaches below 1e-7 of the largest
            possible eigenvalue.
        """
        scanned = self.bound * np.geomspace(_LOWEST, 1.0001, num_scanned)
        inside = np.flatnonzero(self._is_in_bulk(scanned))
        if not len(inside):
            raise NoSolutionError("no position with a density; raise num_scanned")
        first, last = inside[0], inside[-1]
        lower = 0.0 if first == 0 else self._bisect(scanned[first], scanned[first - 1])
        upper = self._bisect(scanned[last], scanned[min(last + 1, num_scanned - 1)])
        return lower, upper

    def _is_in_bulk(self, positions: Real) -> NDArray[np.bool_]:
        return self.density(positions) * self.bound > _EDGE_DENSITY

    def _bisect(self, inside: float, outside: float) -> float:
        """Find an edge of the bulk by bisection."""
        for _ in range(60):
            middle = (inside + outside) / 2
            if self._is_in_bulk(np.array([middle]))[0]:
                inside = middle
            else:
                outside = middle
        return float(outside)

    def _descend(self, z: Complex) -> Complex:
        height = 4 * self.bound
        a = -self.aspect_ratio * np.mean(self.population) / (z + 1j * height)
        lowest = float(z.imag.min()) if z.size else height
        while height > lowest / 2:
            a = self._refine(z + 1j * height, a, tolerance=1e-2)
            height /= 2
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
        Positions below and above the bulk, ascending.
    """
    from scipy.optimize import brentq

    if projections.shape[:1] != weights.shape or projections.ndim != 2:
        raise ValueError(
            f"projections must have a row for each of {weights.shape} weights, "
            f"got {projections.shape}"
        )

    def excess(z: float, branch: int) -> float:
        a = law.solve(np.array([z + 1j * law.height]))[0].real
        scaled = projections * (weights / (1 + weights * a))[:, None]  # (N, r)
        return float(z - np.linalg.eigvalsh(projections.T @ scaled / len(weights))[branch])

    lower, upper = law.edges()
    num_directions = projections.shape[1]
    start, far = upper * (1 + _EDGE_MARGIN), 2 * upper
    while excess(far, num_directions - 1) < 0:
        far *= 2
    right = [
        brentq(excess, start, far, args=(branch,), rtol=1e-10)
        for branch in range(num_directions)
        if excess(start, branch) < 0
    ]
    end = lower * (1 - _EDGE_MARGIN)
    left = [
        brentq(excess, 1e-9 * lower, end, args=(branch,), rtol=1e-10)
        for branch in range(num_directions)
        if lower > 0 and excess(1e-9 * lower, branch) < 0 < excess(end, branch)
    ]
    return np.array(left), np.array(right)

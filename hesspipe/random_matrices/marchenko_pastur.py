"""The Marchenko-Pastur law: eigenvalues of a sample covariance of uncorrelated entries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.float64]

# Below, a difference of angles is replaced by its series, whose terms then fall by this factor.
_SMALL_ROOT = 0.4
_NUM_TERMS = 45
# Angles this close to an edge are integrated, because the closed form is there a difference of
# nearly equal numbers; with these Gauss-Legendre nodes to 1e-14 (test_marchenko_pastur).
_NEAR_EDGE = 0.5
_NUM_NODES = 64
_SMALLEST = 1e-280


@dataclass(frozen=True)
class MarchenkoPastur:
    """Limit of the eigenvalues of (1/N) X X^T, X of shape P x N with independent entries.

    The paper's conventions: N samples are the columns, P parameters the rows, and
    alpha = P / N. (Much of the literature has N / P, or swaps the letters.)

    All values are accurate for any alpha, also where the bulk is narrower than its position by
    many orders of magnitude: a position is measured by its angle t on the circle whose diameter is
    the bulk, x = scale (1 + alpha - 2 sqrt(alpha) cos t).

    Attributes
    ----------
    aspect_ratio : float
        alpha = P / N, positive. Above 1, P - N of the P eigenvalues are zero.
    scale : float
        Variance of an entry of X, positive: the mean of the eigenvalues.

    Raises
    ------
    ValueError
        If one of them is not positive and finite, or the edges cannot be represented.

    References
    ----------
    Marchenko, Pastur (1967). The paper's Appendix B.

    Examples
    --------
    >>> law = MarchenkoPastur(aspect_ratio=4.0)
    >>> law.lower_edge, law.upper_edge, law.mass_at_zero
    (1.0, 9.0, 0.75)
    """

    aspect_ratio: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("aspect_ratio", "scale"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not (self.aspect_ratio >= _SMALLEST and _SMALLEST < self.upper_edge < 1 / _SMALLEST):
            raise ValueError(
                f"aspect_ratio and the upper edge must be between {_SMALLEST:g} and "
                f"{1 / _SMALLEST:g}, got {self.aspect_ratio:g} and {self.upper_edge:g}"
            )

    @property
    def lower_edge(self) -> float:
        """Smallest eigenvalue of the bulk, scale * (1 - sqrt(alpha))^2 with alpha = P / N."""
        root = math.sqrt(self.aspect_ratio)
        # 1 - sqrt(alpha) to all its digits, also near alpha = 1.
        difference = (1 - self.aspect_ratio) / (1 + root)
        return self.scale * difference * difference

    @property
    def upper_edge(self) -> float:
        """Largest eigenvalue of the bulk, scale * (1 + sqrt(alpha))^2 with alpha = P / N."""
        root = 1 + math.sqrt(self.aspect_ratio)
        return self.scale * root * root

    @property
    def mass_at_zero(self) -> float:
        """Share of the P eigenvalues that is exactly zero, 1 - 1 / alpha for alpha = P / N > 1."""
        return max(0.0, 1 - 1 / self.aspect_ratio)

    def density(self, positions: ArrayLike) -> Real:
        """Evaluate the density of the bulk, without the mass at zero.

        Parameters
        ----------
        positions : array_like
            Eigenvalues.

        Returns
        -------
        ndarray
            Of the same shape; 0 outside the bulk. alpha = P / N.
        """
        x = _checked(positions)
        below, above, is_inside = self._distances(x)
        result = np.zeros_like(x)
        inside = x[is_inside] / self.scale
        roots = np.sqrt(below[is_inside]) * np.sqrt(above[is_inside])
        size = max(1.0, self.aspect_ratio)  # of the unit of the distances
        result[is_inside] = roots * (size / self.aspect_ratio / self.scale) / (2 * np.pi * inside)
        return result

    def cdf(self, positions: ArrayLike) -> Real:
        """Evaluate the share of the eigenvalues at or below each position, zeros included.

        Parameters
        ----------
        positions : array_like
            Eigenvalues.

        Returns
        -------
        ndarray
            Of the same shape, from 0 to 1. alpha = P / N.
        """
        x = _checked(positions)
        below, above = self._shares(x)
        if self.aspect_ratio > 1:
            below = 1 - above / self.aspect_ratio
        return np.where(x < 0, 0.0, below)

    def sf(self, positions: ArrayLike) -> Real:
        """Evaluate the share of the eigenvalues above each position, 1 - cdf without cancellation.

        Parameters
        ----------
        positions : array_like
            Eigenvalues.

        Returns
        -------
        ndarray
            Of the same shape, from 0 to 1. alpha = P / N.
        """
        x = _checked(positions)
        above = self._shares(x)[1] / max(1.0, self.aspect_ratio)
        return np.where(x < 0, 1.0, above)

    def _distances(self, x: Real) -> tuple[Real, Real, NDArray[np.bool_]]:
        """Distances from both edges, in units of scale * max(1, alpha), and what lies between."""
        unit = self.scale * max(1.0, self.aspect_ratio)
        root = math.sqrt(min(self.aspect_ratio, 1 / self.aspect_ratio))
        if root < _SMALL_ROOT:
            # The edges are 1 -+ root (2 -+ root), and x - 1 is exact where the bulk is narrow.
            offset = np.clip(x, self.lower_edge, self.upper_edge) / unit - 1
            below, above = offset + root * (2 - root), root * (2 + root) - offset
        else:
            inner = np.clip(x, self.lower_edge, self.upper_edge)
            below, above = (inner - self.lower_edge) / unit, (self.upper_edge - inner) / unit
        is_inside = (x > self.lower_edge) & (x < self.upper_edge) & (below > 0) & (above > 0)
        return below, above, is_inside

    def _shares(self, x: Real) -> tuple[Real, Real]:
        """Shares of the bulk below and above each position."""
        below, above, is_inside = self._distances(x)
        is_above = (x >= self.upper_edge) | (above <= 0)
        angle, other = np.where(is_above, np.pi, 0.0), np.where(is_above, 0.0, np.pi)
        roots = np.sqrt(below[is_inside]), np.sqrt(above[is_inside])
        angle[is_inside] = 2 * np.arctan2(*roots)
        other[is_inside] = 2 * np.arctan2(*roots[::-1])
        # The eigenvalues that are not zero for alpha > 1 are those of the law of 1 / alpha.
        root = math.sqrt(min(self.aspect_ratio, 1 / self.aspect_ratio))
        share = _closed_form(angle, root)
        is_near = (angle < _NEAR_EDGE) & (root < 1)  # at a hard edge, nothing cancels
        lower = share.copy()
        lower[is_near] = _integrated(angle[is_near], root)
        upper = np.where(other < _NEAR_EDGE, _integrated(other, -root), 1 - lower)
        return np.where(other < _NEAR_EDGE, 1 - upper, lower), upper


def _checked(positions: ArrayLike) -> Real:
    found = np.asarray(positions)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"positions must be real numbers, got an array of {found.dtype}")
    x = found.astype(np.float64)
    if np.isnan(x).any():
        raise ValueError(f"positions must be numbers, got {np.isnan(x).sum()} that are nan")
    return x


def _closed_form(angle: Real, root: float) -> Real:
    """Integrate (2 / pi) sin^2 t / (1 + r^2 - 2 r cos t) from 0, with r = sqrt(alpha)."""
    turn = np.arctan2(root * np.sin(angle), 1 - root * np.cos(angle))
    if root < _SMALL_ROOT:
        # turn is the sum of r^k sin(k t) / k; from the second term on, over r^2.
        orders = np.arange(2, _NUM_TERMS + 2)
        rest = np.sin(angle[..., None] * orders) @ (root ** (orders - 2.0) / orders)
    else:
        rest = (turn - root * np.sin(angle)) / root**2
    return np.asarray((angle + turn - rest) / np.pi)


def _integrated(angle: Real, root: float) -> Real:
    """The same integral up to an angle of at most 0.5, whose terms are all positive.

    From the other edge it is that for -r. With u = tan(t / 2) it is 16 / pi times the integral of
    u^2 / ((1 + u^2)^2 ((1 - r)^2 + (1 + r)^2 u^2)); for r > 0, u = (1 - r) / (1 + r) sinh(y)
    resolves all scales between 1 - r and 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NUM_NODES)
    top = np.tan(np.minimum(angle, _NEAR_EDGE) / 2)[..., None]
    scale = (1 - root) / (1 + root) if root > 0 else math.inf
    end = np.arcsinh(top / scale) if root > 0 else top
    y = end * (nodes + 1) / 2
    u = scale * np.sinh(y) if root > 0 else y
    if root > 0:
        terms = scale * np.sinh(y) * np.tanh(y) / (1 + root) ** 2
    else:
        terms = u**2 / ((1 - root) ** 2 + (1 + root) ** 2 * u**2)
    return np.asarray(8 / np.pi * end[..., 0] * ((terms / (1 + u**2) ** 2) @ weights))

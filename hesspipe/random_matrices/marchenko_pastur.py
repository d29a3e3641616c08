"""The Marchenko-Pastur law: eigenvalues of a sample covariance of uncorrelated entries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class MarchenkoPastur:
    """Limit of the eigenvalues of (1/N) X X^T, X of shape P x N with independent entries.

    The paper's conventions: N samples are the columns, P parameters the rows, and
    alpha = P / N. (Much of the literature has N / P, or swaps the letters.)

    Attributes
    ----------
    aspect_ratio : float
        alpha = P / N, positive. Above 1, P - N of the P eigenvalues are zero.
    scale : float
        Variance of an entry of X, positive: the mean of the eigenvalues.

    Raises
    ------
    ValueError
        If one of them is not positive and finite.

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

    @property
    def lower_edge(self) -> float:
        """Smallest eigenvalue of the bulk, scale * (1 - sqrt(alpha))^2 with alpha = P / N."""
        return self.scale * (1 - math.sqrt(self.aspect_ratio)) ** 2

    @property
    def upper_edge(self) -> float:
        """Largest eigenvalue of the bulk, scale * (1 + sqrt(alpha))^2 with alpha = P / N."""
        return self.scale * (1 + math.sqrt(self.aspect_ratio)) ** 2

    @property
    def mass_at_zero(self) -> float:
        """Share of the P eigenvalues that is exactly zero, 1 - 1 / alpha for alpha = P / N > 1."""
        return max(0.0, 1 - 1 / self.aspect_ratio)

    def density(self, positions: ArrayLike) -> NDArray[np.float64]:
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
        x = np.asarray(positions, dtype=np.float64)
        is_inside = (x > self.lower_edge) & (x < self.upper_edge)
        inside = x[is_inside]
        root = np.sqrt((self.upper_edge - inside) * (inside - self.lower_edge))
        result = np.zeros_like(x)
        result[is_inside] = root / (2 * np.pi * self.aspect_ratio * self.scale * inside)
        return result

    def cdf(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Evaluate the share of the eigenvalues at or below each position, zeros included.

        Parameters
        ----------
        positions : array_like
            Eigenvalues.

        Returns
        -------
        ndarray
            Of the same shape. alpha = P / N.
        """
        low, high = self.lower_edge, self.upper_edge
        x = np.asarray(positions, dtype=np.float64)
        inside = np.clip(x, low, high)
        # The antiderivative of sqrt((high - x) (x - low)) / x, from low on.
        below, above = np.sqrt(inside - low), np.sqrt(high - inside)
        area = (
            below * above
            + (low + high) * np.arctan2(below, above)
            - 2
            * math.sqrt(low * high)
            * np.arctan2(math.sqrt(high) * below, math.sqrt(low) * above)
        )
        bulk = area / (2 * np.pi * self.aspect_ratio * self.scale)
        return np.where(x < 0, 0.0, self.mass_at_zero + bulk)

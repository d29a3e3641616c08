"""The Tracy-Widom law with beta = 1: fluctuations of the edge of a real sample covariance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Gauss-Legendre nodes, and the length on which Ai has decayed below eps for positions >= -10:
# the determinant then has 13 digits (test_tracy_widom: another number of nodes).
_NUM_NODES = 80
_LENGTH = 22.0
# Below, the law's probability is less than 1e-20; above, its complement is less than 1e-17.
_RANGE = (-10.0, 20.0)


def tracy_widom_cdf(positions: ArrayLike, num_nodes: int = _NUM_NODES) -> NDArray[np.float64]:
    """Evaluate the distribution function of the Tracy-Widom law with beta = 1.

    It is the Fredholm determinant det(1 - Ai(x + y + s)) on (0, infinity), here on the nodes of
    a quadrature rule. It converges exponentially, and needs no table and no differential equation,
    whose start is unstable.

    Parameters
    ----------
    positions : array_like
        Standardized as by `hesspipe.random_matrices.spiked.edge_scaling`.
    num_nodes : int
        Of the Gauss-Legendre rule.

    Returns
    -------
    ndarray
        Of the same shape, in [0, 1].

    References
    ----------
    Ferrari, Spohn (2005), for the kernel; Bornemann (2010), for the method.

    Examples
    --------
    >>> round(float(tracy_widom_cdf(-1.2685)), 3)  # the median
    0.5
    """
    from scipy.special import airy

    s = np.asarray(positions, dtype=np.float64)
    if np.isnan(s).any():
        raise ValueError(f"positions must be numbers, got {np.isnan(s).sum()} that are nan")
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    nodes, weights = _LENGTH * (nodes + 1) / 2, _LENGTH * weights / 2
    roots = np.sqrt(weights)
    s = np.clip(s, *_RANGE)
    sums = nodes[:, None] + nodes
    flat = [
        np.linalg.det(np.eye(num_nodes) - roots[:, None] * airy(sums + value)[0] * roots)
        for value in s.ravel()
    ]
    # Rounding exceeds 0 and 1 by 1e-16.
    return np.clip(np.reshape(flat, s.shape), 0.0, 1.0)

"""Outliers beside the generalized law: what a few special directions add to its bulk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesspipe.random_matrices.generalized import GeneralizedLaw

Real = NDArray[np.float64]

_EDGE_MARGIN = 1e-5  # an outlier is further from the bulk than an edge is known


def outlier_positions(law: GeneralizedLaw, weights: Real, projections: Real) -> tuple[Real, Real]:
    """Find the outliers that a few directions add to the bulk.

    In these directions the samples may have a mean, or the weights may depend on them, as a
    logistic model's curvature does on the projection on w; what is orthogonal to them is
    noise with the law's spectrum. With u_n the projections of sample n, the outliers are where

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
        scaled = projections * (weights / (1 + weights * a))[:, None]
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

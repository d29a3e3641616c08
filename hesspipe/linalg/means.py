"""Means of a function over all eigenvalues, as intervals that hold with a stated confidence.

For a random unit vector v with the components v_j along the eigenvectors, and a function f with
values from 0 to 1,

    v^T f(A) v = sum_j v_j^2 f(lambda_j)

estimates the mean m of the f(lambda_j). Weighted by the squared lengths of the Gaussian vectors,
the average X of k probes has weights W_j with the Dirichlet law of parameters k / 2. Divide each
of them at random, by a law Beta(k f_j / 2, k (1 - f_j) / 2): the parts add up to a Y with the law
Beta(k P m / 2, k P (1 - m) / 2), and X is the mean of Y given the weights. By Jensen's inequality
E (X - c)^+ <= E (Y - c)^+ for every c, which bounds the tails of X by the mean of a tail of Y:

    P(X >= E[Y | Y > q]) <= P(Y > q),

with no assumption on the matrix or on f. The means m that X does not exclude form the interval.

A Gauss quadrature of K nodes gives v^T f(A) v up to two bounds, of which the better one counts:

polynomials   It is exact up to the degree 2 K - 1, so its error is at most twice the distance of f
              from these polynomials, where the eigenvalues lie: the sum of the other Chebyshev
              coefficients. Small for a Gaussian that is wider than the distances of the nodes.
shares        The bounds on the distribution function of `hesspipe.linalg.radau`, integrated by
              parts. Small next to converged eigenvalues.

Each converged Ritz value is an eigenvalue, which bounds the mean from below with certainty.

References
----------
Shaked, Shanthikumar (2007), Stochastic Orders, section 3.A.
Parlett (1998), The Symmetric Eigenvalue Problem, section 11.5, on Ritz values (Kahan).
Kuczynski, Wozniakowski (1992), Estimating the largest eigenvalue by the power and Lanczos
algorithms with a random start, theorem 4.2.
Trefethen (2013), Approximation Theory and Approximation Practice, chapters 8 and 19.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betainc, betaincc, betainccinv, betaincinv

from hesspipe.linalg.counts import Floats, Sample

# Halvings of [0, 1]: far below the share of one eigenvalue.
_NUM_HALVINGS = 64
# Points per width at which the distribution function is bounded, and widths beyond which a
# Gaussian is below 3e-11 of its peak.
_POINTS_PER_WIDTH = 2
_NUM_WIDTHS = 7
# Most Chebyshev coefficients. A Gaussian so narrow that it has more is none of low degree.
_MOST_COEFFICIENTS = 1024
# Centers whose coefficients are computed at once: 20 MB.
_CENTERS_AT_ONCE = 1024
# A Gaussian's coefficient number n, of width w on [-1, 1], is about exp(-(n w)^2 / 2): below
# rounding from this n w on.
_NEGLIGIBLE = 9.0
_ROUNDING = 1e-13
# Change of a Gaussian of a matrix over the norm of the matrix's change, in widths: the slope is at
# most 0.6, and a matrix's function may change by a few times that.
_SHIFTS = 4.0
# Residuals of Ritz values that are taken for eigenvalues, in widths of the Gaussian.
_CONVERGED = 0.01


def invert_mean(
    least: Floats, most: Floats, dim: int, num_probes: int, risk: float
) -> tuple[Floats, Floats]:
    """Bound a mean over the eigenvalues by an average over probes that lies between two bounds.

    Parameters
    ----------
    least, most : array, shape (n,)
        Of X, from 0 to 1.
    dim : int
        P.
    num_probes : int
    risk : float
        Probability that the interval fails, half of it on each side.

    Returns
    -------
    low, high : array, shape (n,)
    """
    degrees, chance = num_probes * dim / 2, risk / 2

    def top(mean: Floats) -> Floats:
        """What X exceeds with at most this chance: E[Y | Y > q]."""
        first, second = degrees * mean, degrees * (1 - mean)
        quantile = betainccinv(first, second, chance)
        return np.minimum(1.0, mean * betaincc(first + 1, second, quantile) / chance)

    def bottom(mean: Floats) -> Floats:
        first, second = degrees * mean, degrees * (1 - mean)
        quantile = betaincinv(first, second, chance)
        return mean * betainc(first + 1, second, quantile) / chance

    # The largest mean that is too small for `least`, and the smallest too large for `most`.
    low, low_end = np.zeros(len(least)), np.array(least, dtype=float)
    high, high_end = np.ones(len(most)), np.array(most, dtype=float)
    for _ in range(_NUM_HALVINGS):
        middle = (low + low_end) / 2
        is_excluded = top(np.clip(middle, 1e-300, 1.0)) < least
        low, low_end = np.where(is_excluded, middle, low), np.where(is_excluded, low_end, middle)
        middle = (high + high_end) / 2
        is_excluded = bottom(np.clip(middle, 0.0, 1 - 1e-16)) > most
        high = np.where(is_excluded, middle, high)
        high_end = np.where(is_excluded, high_end, middle)
    return low, high


def eigenvalue_range(sample: Sample, risk: float) -> tuple[float, float]:
    """Bound all eigenvalues by the extreme Ritz values.

    A probe's extreme Ritz value of K steps is further from the extreme eigenvalue than a share e of
    the spread of the eigenvalues with a probability of at most 1.648 sqrt(P) exp(-sqrt(e) (2 K -
    1)). That all probes are has the product of these probabilities.

    Returns
    -------
    low, high : float
        Both infinite if there are too few steps to say.
    """
    rules = sample.rules
    nodes, num_steps = rules.nodes.numpy(), rules.nodes.shape[1]
    low, high = float(nodes.min()) - sample.resolution, float(nodes.max()) + sample.resolution
    if bool((rules.couplings == 0).all(1).any()):
        return low, high  # an invariant space has every eigenvalue
    chance = (risk / 2) ** (1 / len(nodes))
    root = math.log(1.648 * math.sqrt(sample.dim) / chance) / (2 * num_steps - 1)
    share = root**2
    if share >= 0.5:
        return -math.inf, math.inf
    # Both ends are missed by at most this share of the whole spread.
    margin = share / (1 - 2 * share) * (high - low)
    return low - margin, high + margin


def gaussian_means(
    sample: Sample, centers: Floats, width: float, risk: float
) -> tuple[Floats, Floats]:
    """Bound the means of Gaussians with these centers over the eigenvalues.

    Parameters
    ----------
    sample : Sample
    centers : array, shape (n,)
    width : float
    risk : float
        Probability that the interval at one center fails.

    Returns
    -------
    low, high : array, shape (n,)
    """
    ends = eigenvalue_range(sample, risk / 4)
    lows, highs = [np.zeros(0)], [np.zeros(0)]
    for start in range(0, len(centers), _CENTERS_AT_ONCE):
        part = centers[start : start + _CENTERS_AT_ONCE]
        shares = gaussian_shares(sample, part, width, ends)
        low, high = invert_mean(*shares, sample.dim, sample.num_probes, 3 * risk / 4)
        lows.append(np.maximum(low, converged_share(sample, part, width)))
        highs.append(high)
    return np.concatenate(lows), np.concatenate(highs)


def gaussian_shares(
    sample: Sample, centers: Floats, width: float, ends: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Bound X for the functions exp(-(lambda - center)^2 / (2 width^2)).

    Parameters
    ----------
    sample : Sample
    centers : array, shape (n,)
    width : float
    ends : tuple of float
        Bounds of the eigenvalues.

    Returns
    -------
    least, most : array, shape (n,)
    """
    nodes, weights = sample.rules.nodes.numpy(), sample.rules.weights.numpy()
    kernels = np.exp(-0.5 * np.square((centers[:, None, None] - nodes) / width))
    gauss = sample.average((kernels * weights).sum(2).T)
    error = np.zeros(len(centers))
    if bool((sample.rules.couplings != 0).any()):
        error = 2 * _far_from_polynomials(centers, width, ends, 2 * nodes.shape[1])
    error += _SHIFTS * sample.resolution / width + _ROUNDING
    least, most = _integrated(sample, centers, width)
    return (
        np.clip(np.maximum(least, np.minimum(gauss - error, most)), 0.0, 1.0),
        np.clip(np.minimum(most, np.maximum(gauss + error, least)), 0.0, 1.0),
    )


def converged_share(sample: Sample, centers: Floats, width: float) -> Floats:
    """Bound the mean of Gaussians from below by the converged Ritz values, (n,).

    As many eigenvalues as there are Ritz values in a set are within its residual norm of them, at
    most the root of the sum of the squares of the single ones.
    """
    best = np.zeros(len(centers))
    for nodes, weights, couplings in zip(
        *(part.numpy() for part in (sample.rules.nodes, sample.rules.weights)),
        sample.rules.couplings.abs().numpy(),
        strict=True,
    ):
        residuals = np.where(weights > 0, couplings, np.inf) + sample.resolution
        order = np.argsort(residuals)
        norms = np.sqrt(np.cumsum(np.square(residuals[order])))
        count = int((norms <= _CONVERGED * width).sum())
        if count:
            distances = np.abs(centers[:, None] - nodes[order[:count]]) + norms[count - 1]
            kernels = np.exp(-0.5 * np.square(distances / width))
            best = np.maximum(best, kernels.sum(1) / sample.dim)
    return best


def _far_from_polynomials(
    centers: Floats, width: float, ends: tuple[float, float], num_exact: int
) -> Floats:
    """Bound the distance of Gaussians from polynomials of a lower degree than num_exact, (n,)."""
    half = (ends[1] - ends[0]) / 2
    if not half < math.inf or half / width * _NEGLIGIBLE > _MOST_COEFFICIENTS:
        return np.ones(len(centers))
    count = 2 * max(num_exact, math.ceil(half / width * _NEGLIGIBLE))
    angles = (np.arange(count) + 0.5) * np.pi / count
    points = (ends[0] + ends[1]) / 2 + half * np.cos(angles)
    orders = np.arange(num_exact, count)
    waves = np.cos(np.outer(angles, orders)) * (2 / count)
    values = np.exp(-0.5 * np.square((centers[:, None] - points) / width))  # (n, count)
    distance: Floats = np.abs(values @ waves).sum(1) + count * np.finfo(float).eps
    return distance


def _integrated(sample: Sample, centers: Floats, width: float) -> tuple[Floats, Floats]:
    """Integrate Gaussians over bounds of the distribution function, cell by cell."""
    step = width / _POINTS_PER_WIDTH
    reach = _NUM_WIDTHS * _POINTS_PER_WIDTH
    nodes = sample.rules.nodes
    # Beyond all nodes by some widths, the bounds do not change much any more.
    margin = _NUM_WIDTHS * width
    inside = np.clip(centers, float(nodes.min()) - margin, float(nodes.max()) + margin)
    first = np.floor((inside - float(nodes.min())) / step).astype(np.int64) - reach
    lattice = first[:, None] + np.arange(2 * reach + 2)  # (n, points)
    numbers, places = np.unique(lattice, return_inverse=True)
    points = float(nodes.min()) + numbers * step
    low, high = (sample.average(mass) for mass in sample.masses(points))
    ends = [(0, 0), (1, 1)]
    places = places.reshape(lattice.shape)
    low = np.pad(low[places], ends, constant_values=0.0)  # of -inf, the points and inf
    low[:, -1] = 1.0
    high = np.pad(high[places], ends, constant_values=1.0)
    high[:, 0] = 0.0
    edges = np.pad(points[places], ends)
    edges[:, 0], edges[:, -1] = -np.inf, np.inf

    def kernel(at: Floats) -> Floats:
        return np.exp(-0.5 * np.square((at - centers[:, None]) / width))

    before, after = np.minimum(edges, centers[:, None]), np.maximum(edges, centers[:, None])
    rise, fall = np.diff(kernel(before), axis=1), -np.diff(kernel(after), axis=1)
    least: Floats = (low[:, :-1] * fall - high[:, 1:] * rise).sum(1)
    most: Floats = (high[:, 1:] * fall - low[:, :-1] * rise).sum(1)
    return least, most


def power_shares(
    sample: Sample, power: int, ends: tuple[float, float]
) -> tuple[Floats, float, float]:
    """Average lambda^power over the probes, between its least and its largest value.

    Returns
    -------
    share : array, shape (1,)
        X, of (lambda^power - least) / (most - least).
    least, most : float
    """
    values = [end**power for end in ends]
    least, most = min(values), max(values)
    if power % 2 == 0 and power > 0 and ends[0] < 0 < ends[1]:
        least = 0.0
    rules = sample.rules
    moments = (rules.weights * rules.nodes**power).sum(1).numpy()
    if not least < most:
        return np.zeros(1), least, most
    share = np.clip((sample.average(moments[:, None]) - least) / (most - least), 0.0, 1.0)
    return share, least, most

"""How far an end of a spectrum may lie beyond what a search has seen.

A search knows the matrix A on a space V, with residuals R = A V - V M and M = V^T A V, and nothing
on the complement of V, where A is A'. Two steps bound the ends of A.

1. Of A', by a random vector r in the complement of a first space W in V. In a Lanczos run of A'
from r, with polynomials p_0, ..., p_m, a unit eigenvector u of eigenvalue l has components
p_j(l) <u, r>, whose squares are at most 1 together:

    |<u, r>| <= h(l) = 1 / |(p_0(l), ..., p_m(l))|.

For the last eigenvector of A', which does not depend on r, |<u, r>| <= c has a probability of at
most c sqrt(2 P / pi). Let x be the point beyond all Ritz values of the run with h(x) equal to a
constant c. As h falls beyond it, no eigenvalue of A' lies beyond x, but for this probability,
whenever the run is ended. Nor does one of A on the complement of any larger space, V.

2. Of A, if x is right: for t > x, the number of eigenvalues of A above t is that of positive ones
of M - t + R^T (t - A')^-1 R (Haynsworth), and (t - A')^-1 <= 1 / (t - x). Therefore the j-th
largest eigenvalue of A is at most any t > x at which

    the j-th largest eigenvalue of M + R^T R / (t - x) is at most t,

and at least that of M. For one pair this is theta + |r|^2 / (t - x): twice the digits of the
vector, as usual, but with a bound of what is not seen in place of an estimate of the gap.

References
----------
Kuczynski, Wozniakowski (1992), Estimating the largest eigenvalue by the power and Lanczos
algorithms with a random start, of which step 1 is the form after the computation, with the Ritz
values that were found. Parlett (1998), The Symmetric Eigenvalue Problem, chapters 10 and 11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BISECTIONS = 30
# Squares from here on leave no component.
_HUGE = 1e200


@dataclass
class RandomRun:
    """A Lanczos run from a random vector: its tridiagonal matrix T.

    Attributes
    ----------
    diagonal : list of float
        Of T, of length m.
    beyond : list of float
        The off-diagonal of T, and the norm of what is left of the last product: of length m.
    """

    diagonal: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)

    def end(self, sign: int) -> float:
        """Return the largest eigenvalue of sign * T; -inf before the first step."""
        if not self.diagonal:
            return -math.inf
        off = np.diag(self.beyond[:-1], 1)
        return float(np.linalg.eigvalsh(sign * (np.diag(self.diagonal) + off + off.T))[-1])

    def hidden(self, point: float, sign: int) -> float:
        """Bound the component of an eigenvector from here on: h at a point beyond sign * T."""
        before, last, squares, coupling = 0.0, 1.0, 1.0, 0.0
        for center, new in zip(self.diagonal, self.beyond, strict=True):
            if new == 0:  # the run has seen all of A' that r has a part in
                return 0.0
            before, last = last, ((point - sign * center) * last - coupling * before) / new
            coupling, squares = new, squares + last**2
            if squares > _HUGE:
                return 0.0
        return 1 / math.sqrt(squares)

    def limit(self, least: float, sign: int) -> float:
        """Find the point beyond sign * T from which on components are at most `least`; inf if none.

        Parameters
        ----------
        least : float
            c, below 1.
        sign : {1, -1}
            1 for the largest eigenvalues of A, -1 for the smallest, of which it returns -x.
        """
        low = self.end(sign)
        if low == -math.inf:
            return math.inf
        step = max(self.beyond[0], abs(low) * 1e-6, 1e-300)
        while self.hidden(low + step, sign) > least:
            step *= 2
            if not math.isfinite(step):
                return math.inf
        inside, outside = 0.0, step
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            if self.hidden(low + middle, sign) > least:
                inside = middle
            else:
                outside = middle
        return low + outside


def blocking(matrix: Floats, excess: Floats, goals: Floats, point: float) -> Floats | None:
    """Find what keeps the largest eigenvalues from being bounded by their goals.

    Parameters
    ----------
    matrix, excess : array, shape (m, m)
        M, and R^T R.
    goals : array, shape (k,)
        Points t for the largest eigenvalue, the second, and so on.
    point : float
        x.

    Returns
    -------
    array, shape (m,), or None
        Coefficients of the direction whose residual is in the way; None if the j-th largest
        eigenvalue is at most the j-th goal, for all of them.
    """
    for order, goal in enumerate(goals):
        if not goal > point:
            return np.linalg.eigh(matrix)[1][:, -1 - order]
        values, vectors = np.linalg.eigh(matrix + excess / (goal - point))
        if values[-1 - order] > goal:
            return vectors[:, -1 - order]
    return None


def upper_bounds(matrix: Floats, excess: Floats, num_wanted: int, point: float) -> Floats:
    """Bound the largest eigenvalues of A, descending.

    Parameters
    ----------
    matrix, excess : array, shape (m, m)
        M, and R^T R.
    num_wanted : int
    point : float
        x; -inf if V is the whole space, inf if nothing is known of its complement.

    Returns
    -------
    array, shape (k,)

    Examples
    --------
    >>> upper_bounds(np.array([[3.0]]), np.array([[0.02]]), 1, 1.0).round(4).tolist()
    [3.01]
    """
    values = np.linalg.eigvalsh(matrix)[::-1][:num_wanted]
    if point == math.inf:
        return np.full(len(values), math.inf)
    most = math.sqrt(max(float(np.linalg.eigvalsh(excess)[-1]), 0.0))
    bounds = []
    for order, value in enumerate(values):
        low, high = max(value, point), max(value, point) + most
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if middle <= low or middle >= high:
                break
            lifted = np.linalg.eigvalsh(matrix + excess / (middle - point))
            low, high = (low, middle) if lifted[-1 - order] <= middle else (middle, high)
        bounds.append(high)
    return np.array(bounds)

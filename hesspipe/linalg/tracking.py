"""Extreme eigenpairs of an operator that changes a little between searches, and who vouches for it.

The Ritz vectors of the last search, those that are wanted and one next to them at each end, are
multiplied again. The Rayleigh-Ritz method on their span turns them towards the new eigenvectors,
and finds where two of them have changed places. Each further vector is a residual: that of the
direction which keeps an end from being bounded as closely as is asked for. It is orthogonal to the
basis already, so that one pass of Gram-Schmidt suffices, and it makes the space a Krylov space
where there is a single pair. An eigenvalue has twice the digits of its vector, and a search to 1e-3
is short.

What the vectors of before do not contain may rise above them unseen. A search therefore ends with a
Lanczos run from a fresh random vector, in the complement of what it knows. From it follows how far
an end of the spectrum may lie beyond the value that was found, but for a small probability
(`hesspipe.linalg.hidden`): a value counts as converged by this bound only. A new eigenvector
appears in the run; it is added to what is known, and followed by a run from another random vector.
As outliers are known to the search, the run sees little but the bulk, and is short as well.

The largest eigenvalues come first, and their run bounds the smallest too. Where these lie at the
edge of a dense bulk, tens or hundreds of products would be needed: a search that sees from its
progress that `max_products` will not suffice ends there, with the bounds that it has.

References
----------
Parlett (1998), The Symmetric Eigenvalue Problem, chapter 11. Morgan, Scott (1986), Generalizations
of Davidson's method for computing eigenvalues of sparse symmetric matrices, without the
preconditioner.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hesspipe.linalg.hidden import RandomRun, blocking, upper_bounds
from hesspipe.linalg.operator import symmetric_product
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.ritz_space import RitzSpace
from hesspipe.linalg.vector_space import norm

Floats = NDArray[np.float64]

# Of the allowed error, which leaves the rest to rounding.
_STRICTER = 0.9
# Before anything is known of the complement, its eigenvalues are taken to end so far below the
# wanted ones, in units of these; half of it after each run that shows the contrary.
_GUESSED_GAP = 0.3
# Ritz vectors of the last search whose residuals are so many times larger than all Ritz values say
# nothing of the operator: a random vector has a Ritz value near zero and a large residual.
_LOST = 2.0
# Steps of a search before it is told whether it gets to its end.
_FEW = 3


@dataclass(frozen=True, eq=False)
class Tracking:
    """Extreme eigenpairs, and what the next search starts from.

    Attributes
    ----------
    pairs : Eigenpairs
        Including those that did not converge: the bounds and residual norms tell.
    error_bounds : Tensor, shape (k,)
        How far the eigenvalues may lie beyond the values that were found, outwards, but for
        `missed_probability`; inf where no random vector was tried.
    is_converged : Tensor of bool, shape (k,)
        Whether the bound is at most the tolerance.
    error_estimates : Tensor, shape (k,)
        Of the eigenvalues, from the residual norms and the distances of Ritz values.
    missed_probability : float
        Bound on the probability, over the random vectors, that a bound is wrong; 1 if there were
        none, 0 if the search has seen the whole space.
    carried : Tensor, shape (m, P)
        Ritz vectors for the next search, ascending: those of each end that is wanted, and one next
        to them.
    """

    pairs: Eigenpairs
    error_bounds: Tensor
    is_converged: Tensor
    error_estimates: Tensor
    missed_probability: float
    carried: Tensor


def track_eigenpairs(
    operator: Any,
    num_smallest: int,
    num_largest: int,
    *,
    carried: Tensor | None,
    tolerance: float,
    max_products: int,
    max_missed_probability: float,
    generator: torch.Generator,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Tracking:
    """Compute extreme eigenpairs, from what a search for those of a similar operator found.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_smallest, num_largest : int
        Numbers of pairs from each end of the spectrum, together 1 to P.
    carried : Tensor, shape (m, P), or None
        `Tracking.carried` of the last search for as many pairs.
    tolerance : float
        Relative error of each eigenvalue.
    max_products : int
        Products after which the search ends, converged or not. It ends before where the smallest
        of eigenvalues from both ends would take more.
    max_missed_probability : float
        Of each run from a random vector. With 1 there is none, and nothing counts as converged
        unless the search has seen the whole space: the values are those next to the carried
        vectors, with a relative error of the tolerance by estimate.
    generator : torch.Generator
        Of random vectors, which must not depend on the operator or the carried vectors: one that
        was not used for these. Only read where a random vector is needed.
    may_go_on : callable () -> bool, optional
        Asked after each product; the carried vectors are multiplied in any case.

    Returns
    -------
    Tracking
        Its residual norms are those of the products that were made.

    Raises
    ------
    TooLargeError
        If the basis and its products do not fit into memory.
    ValueError
        If a product is not finite.

    Examples
    --------
    >>> matrix = torch.diag(torch.linspace(0, 1, 50, dtype=torch.float64) ** 4)
    >>> options = {"tolerance": 1e-9, "max_products": 50, "max_missed_probability": 1e-3}
    >>> numbers = torch.Generator().manual_seed(0)
    >>> first = track_eigenpairs(matrix, 0, 1, carried=None, generator=numbers, **options)
    >>> again = track_eigenpairs(
    ...     1.01 * matrix, 0, 1, carried=first.carried, generator=numbers, **options
    ... )
    >>> round(float(again.pairs.eigenvalues), 9), bool(again.is_converged)
    (1.01, True)
    """
    product = symmetric_product(operator)
    vectors: list[Tensor] = [] if carried is None else list(carried)
    capacity = min(max(max_products, len(vectors)), product.dim)
    search = _Search(
        RitzSpace.begin(product, capacity), num_smallest, num_largest, tolerance,
        max_missed_probability, generator, may_go_on,
    )  # fmt: skip
    search.take(vectors)
    for sign in search.pending[:]:
        search.seek(sign)
    return search.tracking()


@dataclass
class _Search:
    """A space that grows until the ends of the spectrum are bounded as closely as is asked for."""

    space: RitzSpace
    num_smallest: int
    num_largest: int
    tolerance: float
    max_missed: float
    generator: torch.Generator
    may_go_on: Callable[[], bool]
    is_over: bool = False
    num_runs: int = 0
    pending: list[int] = field(init=False)
    points: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        # Signs of the ends that are not bounded yet: the largest come first, as they stand apart.
        # The best x of each end so far.
        self.pending = [sign for sign in (1, -1) if self._number(sign) > 0]
        self.points = {1: math.inf, -1: math.inf}

    def _number(self, sign: int) -> int:
        return self.num_largest if sign > 0 else self.num_smallest

    @property
    def is_stopped(self) -> bool:
        """Whether there can be no further product."""
        return self.is_over or self.space.is_full

    @property
    def is_verifying(self) -> bool:
        """Whether there is something to verify, and room to do so."""
        return self.max_missed < 1 and not (self.is_stopped or self.space.is_whole)

    @property
    def least_component(self) -> float:
        """The component along a random unit vector that is smaller with the allowed probability."""
        allowed = self.max_missed / ((self.num_smallest > 0) + (self.num_largest > 0))
        return min(allowed / math.sqrt(2 * self.space.product.dim / math.pi), 0.5)

    def take(self, vectors: list[Tensor]) -> None:
        """Multiply the vectors of the last search; a random one if they say nothing."""
        for vector in vectors:
            if self.space.extend(vector):
                self.is_over = not self.may_go_on()
        if self.space.size and not self._is_lost():
            return
        if not self.is_stopped:
            self._append(self.space.orthogonal(self._random())[0])

    def _is_lost(self) -> bool:
        norms = norm(self.space.residuals(np.eye(self.space.size)).mT, 0).double().cpu().numpy()
        values = np.linalg.eigvalsh(self.space.matrix())
        return bool((norms > _LOST * np.abs(values).max()).all())

    def _append(self, unit: Tensor) -> None:
        self.space.append(unit)
        self.is_over = not self.may_go_on()

    def seek(self, sign: int) -> None:
        """Bound an end: refine it, and verify it from random vectors."""
        gap = _GUESSED_GAP
        while self._refine(sign, gap) and self._is_pending(sign):
            if not self.is_verifying or not self._run(sign):
                return
            gap /= 2

    def _is_pending(self, sign: int) -> bool:
        """Tell whether an end is not bounded as closely as is asked for."""
        if sign in self.pending and self._blocking(sign, self.points[sign]) is None:
            self.pending.remove(sign)
        return sign in self.pending

    def _is_second(self, sign: int) -> bool:
        """Tell whether the other end comes first: this one is left where it is out of reach."""
        return sign < 0 and self.num_largest > 0

    def _refine(self, sign: int, gap: float) -> bool:
        """Add residuals until an end is bounded, if the complement ends where it is guessed.

        Half of the room is left for the run that verifies it. False if the end is out of reach.
        """
        size, lengths = self.space.size, []
        room = (len(self.space.basis) - size) // (2 if self.max_missed < 1 else 1)
        while not self.is_stopped and self.space.size < size + room:
            value = self._values(sign)[-1]
            point = min(value - gap * abs(value), value - self.space.rounding)
            direction = self._blocking(sign, min(point, self.points[sign]))
            if direction is None:
                return True
            residual = self.space.residuals(direction[:, None])[0]
            lengths.append(float(norm(residual)))
            aim = math.sqrt(_STRICTER * self.tolerance * gap) * abs(value)
            if self._is_second(sign) and _is_far(lengths, aim, size + room - self.space.size):
                return False
            if not self.space.extend(residual, least=self.space.rounding):
                return True
            self.is_over = not self.may_go_on()
        return True

    def _run(self, sign: int) -> bool:
        """Go on from a random vector, until it bounds an end or shows that it will not.

        True if another run may bound it, now that the space has seen more.
        """
        run, self.num_runs = RandomRun(), self.num_runs + 1
        unit, _ = self.space.orthogonal(self._random())
        while True:
            self._append(unit)
            unit, left = self.space.rest()
            if left <= self.space.rounding:
                left = 0.0
            run.diagonal.append(float(self.space.matrix()[-1, -1]))
            run.beyond.append(left)
            if self.space.is_whole:
                return False
            for end in self.pending:
                point = run.limit(self.least_component, end)
                self.points[end] = min(self.points[end], point)
            if not self._is_pending(sign) or self.is_stopped or left == 0:
                return self._is_pending(sign) and not self.is_stopped
            if self._blocking(sign, run.end(sign)) is not None:
                return True  # because of what it has seen
            if self._is_second(sign) and self._is_slow(run, sign):
                return False

    def _is_slow(self, run: RandomRun, sign: int) -> bool:
        """Tell whether a run will not bound an end with the products that are left."""
        hidden = run.hidden(self._goals(sign)[-1], sign)
        steps, room = len(run.diagonal), len(self.space.basis) - self.space.size
        gained = -math.log(hidden) * (steps + room) / steps if hidden > 0 else math.inf
        return steps >= _FEW and gained < -math.log(self.least_component)

    def _values(self, sign: int) -> Floats:
        """Ritz values of an end, descending, of sign * A."""
        values = np.asarray(np.linalg.eigvalsh(sign * self.space.matrix()), dtype=np.float64)
        return values[::-1][: self._number(sign)]

    def _goals(self, sign: int) -> Floats:
        """Bounds that are as close as is asked for."""
        values, rounding = self._values(sign), self.space.rounding
        allowed = np.maximum(_STRICTER * self.tolerance * np.abs(values), 2 * rounding) - rounding
        found: Floats = values + allowed
        return found

    def _blocking(self, sign: int, point: float) -> Floats | None:
        """Find what keeps an end from its goals, where the complement ends at a point."""
        matrix, excess = sign * self.space.matrix(), self.space.excess()
        return blocking(matrix, excess, self._goals(sign), point)

    def _random(self) -> Tensor:
        """Draw a random vector (P,): its direction is uniform."""
        product = self.space.product
        numbers = torch.randn(product.dim, generator=self.generator, dtype=product.dtype)
        return numbers.to(product.device)

    def tracking(self) -> Tracking:
        """Return what was found, and what is next to it."""
        space, ends = self.space, (self.num_smallest, self.num_largest)
        values, coefficients = np.linalg.eigh(space.matrix())
        chosen = ends_of(space.size, *ends)
        wanted = coefficients[:, chosen]
        norms = norm(space.residuals(wanted).mT, 0).double().cpu().numpy()
        bounds = self._bounds(len(chosen))
        num_low = min(self.num_smallest, len(chosen))
        pairs = Eigenpairs(
            eigenvalues=torch.from_numpy(values[chosen]),
            eigenvectors=space.rows(wanted).T,
            residual_norms=torch.from_numpy(norms),
            num_products=space.size,
            matrix=space.product.name,
            num_smallest=num_low,
            num_largest=len(chosen) - num_low,
        )
        errors = np.minimum(norms, space.rounding) if space.is_whole else norms
        return Tracking(
            pairs=pairs,
            error_bounds=torch.from_numpy(bounds),
            is_converged=torch.from_numpy(bounds <= self.tolerance * np.abs(values[chosen])),
            error_estimates=torch.from_numpy(errors_of_ends(values, errors, *ends)),
            missed_probability=self._missed_probability(),
            carried=space.rows(coefficients[:, carried_of(space.size, *ends)]),
        )

    def _bounds(self, num_found: int) -> Floats:
        """Bound how far the eigenvalues may lie beyond the values, ascending."""
        space, parts = self.space, []
        num_low = min(self.num_smallest, num_found)
        for sign, number in ((-1, num_low), (1, num_found - num_low)):
            values = np.linalg.eigvalsh(sign * space.matrix())[::-1][:number]
            bounds = values
            if not space.is_whole:
                point = self.points[sign]
                bounds = upper_bounds(sign * space.matrix(), space.excess(), number, point)
            over = np.maximum(bounds - values, 0.0) + space.rounding
            parts.append(over if sign < 0 else over[::-1])
        return np.concatenate(parts)

    def _missed_probability(self) -> float:
        """Add up what each run may have missed."""
        if self.space.is_whole:
            return 0.0
        return min(1.0, self.num_runs * self.max_missed) if self.num_runs else 1.0


def _is_far(lengths: list[float], aim: float, room: int) -> bool:
    """Tell whether residuals that shrink as they did will not be as short as their aim in time."""
    steps = len(lengths) - 1
    if steps < _FEW or lengths[-1] <= aim:
        return False
    shrunk = math.log(lengths[0] / lengths[-1])
    return shrunk * (steps + room) < math.log(lengths[0] / aim) * steps


def errors_of_ends(values: Floats, norms: Floats, num_smallest: int, num_largest: int) -> Floats:
    """Estimate the errors of the Ritz values at both ends.

    An eigenvalue l and the Ritz value t of a pair with residual norm r differ by at most r, and by
    at most r^2 / g, where g is the distance from t to the other eigenvalues. Of several pairs next
    to each other, the sum of the squares counts, and the distance of the last of them from what
    comes next, so that copies of an eigenvalue have no distance of zero. Distances are those to
    other Ritz values, hence an estimate.

    Parameters
    ----------
    values : array, shape (m,)
        All Ritz values, ascending.
    norms : array, shape (k,)
        Residual norms of the wanted ones.
    num_smallest, num_largest : int

    Returns
    -------
    array, shape (k,)
        At most the residual norm.

    Examples
    --------
    >>> errors_of_ends(np.array([0.0, 1.0, 3.0]), np.array([0.1]), 0, 1).round(6).tolist()
    [0.005]
    """
    num_low = min(num_smallest, len(values))
    low = _errors_of_end(values, norms[:num_low])
    high = _errors_of_end(-values[::-1], norms[num_low:][::-1])[::-1]
    return np.concatenate([low, high])


def _errors_of_end(values: Floats, norms: Floats) -> Floats:
    """Estimate the errors of the first values, ascending: min(r, sums of squares over gaps)."""
    errors = norms.copy()
    squares = np.cumsum(norms**2)
    for last in range(min(len(norms), len(values) - 1)):
        gap = values[last + 1] - values[last]
        if gap > 0:
            errors[: last + 1] = np.fmin(errors[: last + 1], squares[last] / gap)
    return errors


def ends_of(size: int, num_smallest: int, num_largest: int) -> NDArray[np.int64]:
    """Indices of the smallest and largest of some values, ascending, each once."""
    low = min(num_smallest, size)
    return np.concatenate([np.arange(low), np.arange(max(size - num_largest, low), size)])


def carried_of(size: int, num_smallest: int, num_largest: int) -> NDArray[np.int64]:
    """Indices of what the next search starts from."""
    return ends_of(size, num_smallest + (num_smallest > 0), num_largest + (num_largest > 0))

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
from hesspipe.linalg.ritz_space import RitzSpace, Workspace

Floats = NDArray[np.float64]

# Of the allowed error, which leaves the rest to rounding.
_STRICTER = 0.9
# Before anything is known of the complement, its eigenvalues are taken to end so far below the
# wanted ones, in units of these; half of it after each run that shows the contrary.
_GUESSED_GAP = 0.3
# Errors, by estimate, that are so many times what is allowed take one to two further products.
_SLIGHTLY = 10.0
# Ritz vectors of the last search whose residuals are so many times larger than all Ritz values say
# nothing of the operator: a random vector has a Ritz value near zero and a large residual.
_LOST = 2.0


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
    workspace: Workspace | None = None,
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
        Products after which the search ends, converged or not.
    max_missed_probability : float
        Of each run from a random vector. With 1 there is none, and nothing counts as converged
        unless the search has seen the whole space: the values are those next to the carried
        vectors, with a relative error of the tolerance by estimate.
    generator : torch.Generator
        Of random vectors, which must not depend on the operator or the carried vectors: one that
        was not used for these. Only read where a random vector is needed.
    may_go_on : callable () -> bool, optional
        Asked after each product; the carried vectors are multiplied in any case.
    workspace : Workspace, optional
        Memory that searches one after another share.

    Returns
    -------
    Tracking
        Its residual norms are those of the products that were made.

    Raises
    ------
    TooLargeError
        If the basis and its residuals do not fit into memory.
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
    space = RitzSpace.begin(product, capacity, workspace or Workspace())
    search = _Search(
        space, num_smallest, num_largest, tolerance, max_missed_probability, generator, may_go_on
    )
    search.take(vectors)
    search.refine()
    while search.is_verifying and search.run():
        search.guessed_gap /= 2
        search.refine()
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
    guessed_gap: float = _GUESSED_GAP
    is_over: bool = False
    num_runs: int = 0
    pending: list[tuple[int, int]] = field(init=False)
    bounds: dict[int, Floats] = field(init=False)

    def __post_init__(self) -> None:
        # Signs of the wanted ends, and how many there are: those that are not bounded yet, and the
        # best bounds so far, from the end inwards. The largest come first, as they stand apart.
        both = [(1, self.num_largest), (-1, self.num_smallest)]
        self.pending = [(sign, number) for sign, number in both if number > 0]
        self.bounds = {sign: np.full(number, math.inf) for sign, number in both}

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
        norms = self.space.residual_norms(np.eye(self.space.size))
        values = np.linalg.eigvalsh(self.space.matrix())
        return bool((norms > _LOST * np.abs(values).max()).all())

    def _append(self, unit: Tensor, closed: Floats | None = None) -> None:
        self.space.append(unit, closed)
        self.is_over = not self.may_go_on()

    def refine(self) -> None:
        """Add residuals until the ends are bounded, if the complement ends where it is guessed.

        Half of the room is left for the run that verifies them.
        """
        size = self.space.size
        room = (len(self.space.basis) - size) // (2 if self.max_missed < 1 else 1)
        while not self.is_stopped and self.space.size < size + room:
            found = (self._blocking(sign, number, None) for sign, number in self.pending)
            direction = next((each for each in found if each is not None), None)
            if direction is None and self.max_missed == 1:
                direction = self._uncertain()
            if direction is None:
                return
            if not self.space.extend_by_residual(direction):
                return
            self.is_over = not self.may_go_on()

    def _uncertain(self) -> Floats | None:
        """Find the pair whose error is the largest by estimate, if it is slightly too large."""
        values, coefficients = np.linalg.eigh(self.space.matrix())
        ends = self.num_smallest, self.num_largest
        chosen = ends_of(self.space.size, *ends)
        norms = self.space.residual_norms(coefficients[:, chosen])
        allowed = self.tolerance * np.abs(values[chosen]) + self.space.rounding
        excesses = errors_of_ends(values, norms, *ends) / np.maximum(allowed, 1e-300)
        worst = int(excesses.argmax())
        return coefficients[:, chosen[worst]] if 1 < excesses[worst] <= _SLIGHTLY else None

    def run(self) -> bool:
        """Go on from a random vector, until it bounds the ends or shows that it will not.

        True if another run may bound what is left, now that the space has seen more.
        """
        run, self.num_runs = RandomRun(), self.num_runs + 1
        unit, closed = self.space.orthogonal(self._random())[0], None
        while True:
            self._append(unit, closed)
            last = np.eye(self.space.size)[-1]
            (unit, left), closed = self.space.residual(last), self.space.shares @ last
            if left <= self.space.rounding:
                left = 0.0
            run.diagonal.append(float(self.space.matrix()[-1, -1]))
            run.beyond.append(left)
            if self.space.is_whole:
                return False
            is_ending = self.is_stopped or left == 0 or self._is_passed(run)
            self._bound(run, is_ending=is_ending)
            if is_ending or not self.pending:
                return bool(self.pending)

    def _bound(self, run: RandomRun, *, is_ending: bool) -> None:
        """Note the bounds of the ends that are as close as is asked for, or of all at its end."""
        for sign, number in list(self.pending):
            point = run.limit(self.least_component, sign)
            is_bounded = self._blocking(sign, number, point) is None
            if is_bounded or is_ending:
                matrix = sign * self.space.matrix()
                bounds = upper_bounds(matrix, self.space.excess(), number, point)
                if len(bounds) == number:
                    self.bounds[sign] = np.minimum(self.bounds[sign], bounds)
            if is_bounded:
                self.pending.remove((sign, number))

    def _is_passed(self, run: RandomRun) -> bool:
        """Tell whether a run cannot bound what is left, because of what it has seen."""
        return all(
            self._blocking(sign, number, run.end(sign)) is not None for sign, number in self.pending
        )

    def _blocking(self, sign: int, number: int, point: float | None) -> Floats | None:
        """Find what keeps an end from its goals, by default for the guessed complement."""
        matrix = sign * self.space.matrix()
        values = np.linalg.eigvalsh(matrix)[::-1][:number]
        rounding = self.space.rounding
        allowed = np.maximum(_STRICTER * self.tolerance * np.abs(values), 2 * rounding) - rounding
        if point is None:
            point = float(values[-1]) - self.guessed_gap * abs(float(values[-1]))
            point = min(point, float(values[-1]) - rounding)
        return blocking(matrix, self.space.excess(), values + allowed, point)

    def _random(self) -> Tensor:
        """Draw a random vector (P,): its direction is uniform."""
        product = self.space.product
        numbers = torch.randn(
            product.dim, generator=self.generator, dtype=product.dtype, device="cpu"
        )
        return numbers.to(product.device)

    def tracking(self) -> Tracking:
        """Return what was found, and what is next to it."""
        space, ends = self.space, (self.num_smallest, self.num_largest)
        values, coefficients = np.linalg.eigh(space.matrix())
        chosen, kept = ends_of(space.size, *ends), carried_of(space.size, *ends)
        carried = space.rows(coefficients[:, kept])
        norms = space.residual_norms(coefficients[:, chosen])
        bounds = self._bounds(len(chosen))
        num_low = min(self.num_smallest, len(chosen))
        pairs = Eigenpairs(
            eigenvalues=torch.from_numpy(values[chosen]),
            eigenvectors=carried[np.searchsorted(kept, chosen)].T,
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
            carried=carried,
        )

    def _bounds(self, num_found: int) -> Floats:
        """Bound how far the eigenvalues may lie beyond the values, ascending."""
        space, parts = self.space, []
        num_low = min(self.num_smallest, num_found)
        for sign, number in ((-1, num_low), (1, num_found - num_low)):
            values = np.linalg.eigvalsh(sign * space.matrix())[::-1][:number]
            bounds = values if space.is_whole else self.bounds[sign][:number]
            over = np.maximum(bounds - values, 0.0) + space.rounding
            parts.append(over if sign < 0 else over[::-1])
        return np.concatenate(parts)

    def _missed_probability(self) -> float:
        """Add up what each run may have missed."""
        if self.space.is_whole:
            return 0.0
        return min(1.0, self.num_runs * self.max_missed) if self.num_runs else 1.0


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

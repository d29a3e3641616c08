"""Extreme eigenpairs of an operator that has changed a little, from those that it had before.

The Ritz vectors of the last search, those that are wanted and one next to them at each end, are
multiplied again. The Rayleigh-Ritz method on their span turns them towards the new eigenvectors,
and finds where two of them have changed places. Each further vector is the residual of the wanted
Ritz pair that is farthest from its goal: it is orthogonal to the basis already, so that one pass
of Gram-Schmidt suffices, and it makes the space a Krylov space where there is a single pair.

An eigenvalue l and the Ritz value t of a pair with residual norm r differ by at most r, and by at
most r^2 / g, where g is the distance from t to the other eigenvalues. Of several pairs next to each
other, the sum of the squares counts, and the distance of the last of them from what comes next, so
that copies of an eigenvalue have no distance of zero. The value therefore has twice the digits of
its vector, and a search to 1e-3 is short. Distances are those to other Ritz values: this is an
estimate, while the residual norm is that of products that were made.

A Ritz pair next to the wanted ones whose value and residual norm reach beyond them may be one of
them: a few products are spent on its residual, too, where two eigenvalues come near each other.

What the vectors of before do not contain remains hidden: `hesspipe.linalg.tracking` starts from a
random part as well, and bounds the probability that something was missed.

References
----------
Parlett (1998), The Symmetric Eigenvalue Problem, chapter 11. Morgan, Scott (1986), Generalizations
of Davidson's method for computing eigenvalues of sparse symmetric matrices, without the
preconditioner.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hesspipe.hardware import require
from hesspipe.linalg.lanczos import breakdown
from hesspipe.linalg.operator import SymmetricProduct, symmetric_product
from hesspipe.linalg.orthogonalization import orthogonalize
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.vector_space import inner, norm

# Error estimates must be below this multiple of the tolerance: distances are those of Ritz values.
STRICTER = 0.3
# A Ritz vector of the last search whose residual is so many times larger than all Ritz values says
# nothing of the operator: a random vector has a Ritz value near zero and a large residual.
_LOST = 2.0
# Weight in a start vector of the Ritz vectors next to the wanted ones.
_NEXT_PART = 0.3
# A residual that Gram-Schmidt shrinks by more is rounding, and leads nowhere.
_ROUNDING_LEFT = 0.1
# Products of a search that make sure of the pairs next to the wanted ones.
_MOST_DOUBTS = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tracking:
    """Extreme eigenpairs, and what the next search starts from.

    Attributes
    ----------
    pairs : Eigenpairs
        Including those that did not converge: the residual norms tell.
    is_converged : Tensor of bool, shape (k,)
    error_estimates : Tensor, shape (k,)
        Of the eigenvalues, from the true residual norms and the distances of Ritz values.
    missed_probability : float
        Bound on the probability, over the random part of the start, that an eigenvalue lies beyond
        one of the ends by more than 10 % of the largest magnitude, and was missed; 1 if there was
        no random part.
    carried : Tensor, shape (m, P)
        Ritz vectors for the next search, ascending: those of each end that is wanted, and one next
        to them.
    is_lost : bool
        Whether the vectors of the last search said nothing of this operator.
    """

    pairs: Eigenpairs
    is_converged: Tensor
    error_estimates: Tensor
    missed_probability: float
    carried: Tensor
    is_lost: bool = False

    @property
    def start(self) -> Tensor:
        """One start vector (P,) for the next search: a sum of the carried ones."""
        return start_of(self.carried, self.pairs.num_smallest, self.pairs.num_largest)


def start_of(carried: Tensor, num_smallest: int, num_largest: int) -> Tensor:
    """Add the wanted vectors of `Tracking.carried`, and the others with a smaller weight."""
    weights = torch.full((len(carried),), _NEXT_PART).to(carried)
    weights[ends_of(len(carried), num_smallest, num_largest)] = 1.0
    return weights @ carried


def follow_eigenpairs(
    operator: Any,
    num_smallest: int,
    num_largest: int,
    *,
    carried: Tensor,
    tolerance: float,
    max_products: int,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Tracking:
    """Compute extreme eigenpairs, from those that an operator had before it changed.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_smallest, num_largest : int
        Numbers of pairs from each end of the spectrum, together 1 to P.
    carried : Tensor, shape (m, P)
        `Tracking.carried` of the last search for as many pairs.
    tolerance : float
        Relative error of each eigenvalue, as estimated.
    max_products : int
        Products after which the search ends, converged or not.
    may_go_on : callable () -> bool, optional
        Asked before each product but those with the carried vectors.

    Returns
    -------
    Tracking
        Its residual norms are those of the products that were made. The search also ends, with
        `is_converged` False, where residuals are rounding errors, and at once if `is_lost`.

    Raises
    ------
    TooLargeError
        If the basis and its products do not fit into memory.
    ValueError
        If a product is not finite.

    Examples
    --------
    >>> from hesspipe.linalg.tracking import track_eigenpairs
    >>> matrix = torch.diag(torch.linspace(0, 1, 50, dtype=torch.float64) ** 4)
    >>> options = {"tolerance": 1e-9, "max_products": 50}
    >>> first = track_eigenpairs(matrix, 0, 1, start=None, **options)
    >>> again = follow_eigenpairs(1.01 * matrix, 0, 1, carried=first.carried, **options)
    >>> round(float(again.pairs.eigenvalues), 9), again.pairs.num_products < 10
    (1.01, True)
    """
    product = symmetric_product(operator)
    capacity = min(max(max_products, len(carried)), product.dim)
    require_room(product, capacity)
    space = _Space.begin(product, capacity)
    for vector in carried:
        space.extend(vector)
    found = space.pairs(num_smallest, num_largest)
    is_lost = bool((found.norms > _LOST * np.abs(space.ritz()[0]).max()).all())
    num_doubts = 0
    while not (is_lost or space.is_full):
        needed = found.worst(tolerance)
        if needed is None and num_doubts < _MOST_DOUBTS:
            needed = found.doubtful()
            num_doubts += 1
        if needed is None or not may_go_on():
            break
        if not space.extend(needed, least=space.rounding()):
            break
        found = space.pairs(num_smallest, num_largest)
    return space.tracking(found, num_smallest, num_largest, tolerance, is_lost)


@dataclass
class _Found:
    """Ritz pairs of the wanted ends; vectors and residuals are rows (k, P)."""

    values: Floats
    vectors: Tensor
    residuals: Tensor
    norms: Floats
    errors: Floats
    next: list[tuple[float, float, Tensor]]  # by how much they lie beyond, norm, residual

    def worst(self, tolerance: float) -> Tensor | None:
        """Return the residual of the wanted pair that is farthest from its goal, if one is."""
        allowed = STRICTER * tolerance * np.abs(self.values)
        if (self.errors <= allowed).all():
            return None
        return self.residuals[int((self.errors / np.maximum(allowed, 1e-300)).argmax())]

    def doubtful(self) -> Tensor | None:
        """Return the residual of a pair next to the wanted ones that may belong to them."""
        beyond = [(excess + norm, residual) for excess, norm, residual in self.next]
        return next((residual for most, residual in beyond if most > 0), None)


@dataclass
class _Space:
    """An orthonormal basis, its products and the projected matrix."""

    product: SymmetricProduct
    basis: Tensor  # (capacity, P)
    images: Tensor  # (capacity, P)
    projected: Floats  # (capacity, capacity)
    size: int = 0

    @classmethod
    def begin(cls, product: SymmetricProduct, capacity: int) -> _Space:
        basis, images = torch.empty(
            2, capacity, product.dim, dtype=product.dtype, device=product.device
        )
        return cls(product, basis, images, np.zeros((capacity, capacity)))

    @property
    def is_full(self) -> bool:
        return self.size == len(self.basis)

    def extend(self, vector: Tensor, least: float = 0.0) -> bool:
        """Multiply what is new of a vector; False if it is shorter than the least, or rounding."""
        size = self.size
        length = float(norm(vector))
        if self.is_full or not length > least:
            return False
        rest, _, left = orthogonalize(vector / length, self.basis[:size], least_passes=1)
        if left < _ROUNDING_LEFT:
            return False
        self.basis[size] = rest / left
        image = self.product.multiply(self.basis[size])  # (P,)
        require_ordinary(float(norm(image)), self.product)
        self.images[size] = image
        column = inner(self.basis[: size + 1], image).double().cpu().numpy()
        self.projected[: size + 1, size] = self.projected[size, : size + 1] = column
        self.size += 1
        return True

    def rounding(self) -> float:
        """Norm below which a residual is rounding."""
        return breakdown(float(np.abs(self.projected).max()), self.product)

    def ritz(self) -> tuple[Floats, Floats]:
        """Solve the projected eigenproblem: values (m,) and columns of coefficients (m, m)."""
        values, coefficients = np.linalg.eigh(self.projected[: self.size, : self.size])
        return values, coefficients

    def rows(self, coefficients: Floats) -> Tensor:
        """Combine the basis by columns of coefficients (m, k): rows (k, P)."""
        weights = torch.from_numpy(coefficients.T.copy()).to(self.basis)
        found: Tensor = weights @ self.basis[: self.size]
        return found

    def pairs(self, num_smallest: int, num_largest: int) -> _Found:
        """Compute the wanted Ritz pairs, with the residuals of the products."""
        values, coefficients = self.ritz()
        chosen = ends_of(self.size, num_smallest, num_largest)
        every = carried_of(self.size, num_smallest, num_largest)
        weights = torch.from_numpy(coefficients[:, every].T.copy()).to(self.basis)  # (k, m)
        vectors = weights @ self.basis[: self.size]  # (k, P)
        scaled = torch.from_numpy(values[every]).to(self.basis)[:, None] * vectors
        residuals = torch.addmm(scaled, weights, self.images[: self.size], beta=-1)
        norms = norm(residuals.mT, 0).double().cpu().numpy()
        is_wanted = np.isin(every, chosen)
        following = []
        for place in np.flatnonzero(~is_wanted):
            value, is_low = values[every[place]], every[place] <= num_smallest and num_smallest > 0
            excess = values[num_smallest - 1] - value if is_low else value - values[-num_largest]
            following.append((float(excess), float(norms[place]), residuals[place]))
        vectors, residuals, norms = vectors[is_wanted], residuals[is_wanted], norms[is_wanted]
        if self.size == self.product.dim:
            errors = np.minimum(norms, self.rounding())
        else:
            errors = errors_of_ends(values, norms, num_smallest, num_largest)
        return _Found(values[chosen], vectors, residuals, norms, errors, following)

    def tracking(
        self, found: _Found, num_smallest: int, num_largest: int, tolerance: float, is_lost: bool
    ) -> Tracking:
        """Return what was found, and what is next to it."""
        _, coefficients = self.ritz()
        pairs = Eigenpairs(
            eigenvalues=torch.from_numpy(found.values.copy()),
            eigenvectors=found.vectors.T,
            residual_norms=torch.from_numpy(found.norms),
            num_products=self.size,
            matrix=self.product.name,
            num_smallest=num_smallest,
            num_largest=len(found.values) - num_smallest,
        )
        return Tracking(
            pairs=pairs,
            is_converged=torch.from_numpy(found.errors <= tolerance * np.abs(found.values)),
            error_estimates=torch.from_numpy(found.errors),
            missed_probability=0.0 if self.size == self.product.dim else 1.0,
            carried=self.rows(coefficients[:, carried_of(self.size, num_smallest, num_largest)]),
            is_lost=is_lost,
        )


def errors_of_ends(values: Floats, norms: Floats, num_smallest: int, num_largest: int) -> Floats:
    """Estimate the errors of the Ritz values at both ends.

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


def require_room(product: SymmetricProduct, capacity: int) -> None:
    """Refuse a basis, with its products, that does not fit into memory."""
    require(
        (2 * capacity + 1) * product.dim * product.dtype.itemsize,
        f"a basis of {capacity} vectors of length P = {product.dim:,}, and its products,",
        "pass a smaller max_products",
        device=product.device,
    )


def require_ordinary(norm: float, product: SymmetricProduct) -> None:
    """Refuse products whose squares overflow or underflow: `scaled` would cost two more passes."""
    limits = torch.finfo(product.dtype)
    if not math.isfinite(norm):
        raise ValueError(f"a product with the {product.name} must be finite, got norm {norm}")
    if 0 < norm < math.sqrt(limits.tiny) / limits.eps:
        raise ValueError(
            f"products with the {product.name} must not be so small that their squares lose digits "
            f"in {product.dtype}, got one of norm {norm:.1e}; multiply the loss by a constant, or "
            "compute in float64"
        )

"""Gram-Schmidt orthogonalization against a basis, repeated until nothing is left.

One pass leaves a component in the span of the basis, of the size of its rounding errors. Where the
pass has made the vector much smaller, that is no longer small in comparison. A second pass removes
it.

A product A v_j with the last of several Lanczos vectors is orthogonal to all but the last two of
them, up to the rounding of the product and

    |A| |loss of v_j| + |beta_(j-1)| |loss of v_(j-1)|,

where the loss of a vector is its part in the space of those before. While the losses stay well
below sqrt(eps), the projection of A on the basis is right to rounding (semiorthogonality). A pass
over the whole basis, which may take as long as a product, can then be left out at every second
step.

References
----------
Simon (1984), The Lanczos algorithm with partial reorthogonalization, Mathematics of Computation 42;
Parlett, The Symmetric Eigenvalue Problem (1998), section 6.9 ("twice is enough"); Daniel, Gragg,
Kaufman, Stewart (1976).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.linalg.vector_space import VectorSpace

# A vector that a pass shrinks by less than this factor is orthogonal to working precision.
# Daniel, Gragg, Kaufman, Stewart (1976) take 1/sqrt(2).
ENOUGH = 0.5**0.5
# Passes at most: inside the span of the basis a vector never has enough left.
_MOST_PASSES = 5


def orthogonalize(
    vector: Tensor,
    basis: Tensor,
    space: VectorSpace | None = None,
    *,
    least_passes: int = 2,
) -> tuple[Tensor, Tensor, float]:
    """Compute the part of a vector that is orthogonal to the rows of a basis.

    Passes of classical Gram-Schmidt, at least two, until one leaves the norm unchanged.

    Parameters
    ----------
    vector : Tensor, shape (P,)
    basis : Tensor, shape (k, P)
        Orthonormal rows.
    space : VectorSpace, optional
        Where the vectors lie, by default in this process as a whole.
    least_passes : int
        1 for vectors that are nearly orthogonal to the basis.

    Returns
    -------
    vector : Tensor, shape (P,)
        Not normalized.
    coefficients : Tensor, shape (k,)
        Of the removed part, with respect to the basis.
    norm : float
        Of the result.
    """
    space = space or VectorSpace(len(vector))
    if len(basis) == 0:
        return vector, basis.new_zeros(0), float(space.norm(vector))
    total = basis.new_zeros(len(basis))
    before, passes = float(space.norm(vector)), 0
    while True:
        # What a rough projection leaves is for the next one.
        projection = space.inner(basis, vector, is_rough=passes + 1 < least_passes)  # (k,)
        removed = basis.T @ projection  # (P,)
        vector = torch.sub(vector, removed, out=removed)
        total += projection
        passes += 1
        norm = float(space.norm(vector))
        if passes >= least_passes and not norm < ENOUGH * before:
            return vector, total, norm
        if norm == 0 or passes == _MOST_PASSES:  # inside the span of the basis
            return vector, total, norm
        before = norm


def orthogonalize_product(
    image: Tensor, basis: Tensor, space: VectorSpace, *, first_row: int, enough: float
) -> tuple[Tensor, float, bool]:
    """Make a product with the last vector of a Krylov space orthogonal to its basis, in place.

    Parameters
    ----------
    image : Tensor, shape (P,)
        Overwritten.
    basis : Tensor, shape (k, P)
        Orthonormal rows.
    space : VectorSpace
    first_row : int
        The product is orthogonal to the rows before, but for rounding and their own losses.
    enough : float
        They are left out where the part that is orthogonal to the others has at least this norm.

    Returns
    -------
    coefficients : Tensor, shape (k,)
        Of the removed part, with respect to the basis.
    norm : float
        Of the result.
    is_partial : bool
        Whether no pass went over all rows.
    """
    total = basis.new_zeros(len(basis))
    # What rough sums leave along a row is seen by the next pass, where less of them cancels.
    total[first_row:] = _subtract(image, basis[first_row:], space)
    norm, is_partial = float(space.norm(image)), True
    for _ in range(_MOST_PASSES - 1):
        before, first = norm, first_row if norm >= enough else 0
        total[first:] += _subtract(image, basis[first:], space)
        is_partial &= first > 0
        norm = float(space.norm(image))
        if norm == 0 or not norm < ENOUGH * before:
            break
    return total, norm, is_partial


def _subtract(vector: Tensor, rows: Tensor, space: VectorSpace) -> Tensor:
    """Subtract from a vector what is along some rows, in place; return the coefficients."""
    found = space.inner(rows, vector, is_rough=True)
    vector.addmv_(rows.T, found, alpha=-1)
    return found

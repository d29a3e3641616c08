"""Gram-Schmidt orthogonalization against a basis, repeated until nothing is left.

One pass leaves a component in the span of the basis, of the size of its rounding errors. Where the
pass has made the vector much smaller, that is no longer small in comparison. A second pass removes
it.

References
----------
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


def orthogonalize(
    vector: Tensor,
    basis: Tensor,
    space: VectorSpace | None = None,
    *,
    least_passes: int = 2,
    first_row: int = 0,
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
    first_row : int
        The first pass takes the rows from here on, where the vector is nearly orthogonal to those
        before: a product with the last vector of a Krylov space is, but for rounding.

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
        first = first_row if passes == 0 and least_passes > 1 else 0
        rows = basis[first:] if first else basis
        # What a rough projection leaves is for the next one.
        is_rough = passes + 1 < least_passes and first == 0
        projection = space.inner(rows, vector, is_rough=is_rough)  # (k - first,)
        removed = rows.T @ projection  # (P,)
        vector = torch.sub(vector, removed, out=removed)
        total[first:] += projection
        passes += 1
        norm = float(space.norm(vector))
        if passes >= least_passes and not norm < ENOUGH * before:
            return vector, total, norm
        if norm == 0 or passes == 5:  # inside the span of the basis
            return vector, total, norm
        before = norm

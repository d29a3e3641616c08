"""Sums over samples of squares of per-sample gradients, by pieces of theta.

    G = sum_n A_n^T diag(sign_n) A_n,     A_n of shape (r, P)

The gradient in a Linear layer's weight is an outer product, A_n[r, (o, k)] = d[r, o] a[k], and so
is that in its bias, with a = 1. A block of such a piece with another one, B, is then

    G[(o, k), :] = sum_n a[k] (sum_r sign[r] d[r, o] B_n[r, :])

with one multiply-add for a sample and an entry where rows of A_n take r: 9 for ten classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from hesspipe.curvature.layers import chunks

# Rows of a block on the diagonal that are computed at once, up to the last column of any.
_ROWS_PER_BLOCK = 256


@dataclass(frozen=True)
class Rows:
    """The entries of A_n in a piece of theta that begins at `start`.

    Attributes
    ----------
    start : int
    values : Tensor, shape (n, r, q)
    """

    start: int
    values: Tensor

    @property
    def size(self) -> int:
        """Entries of theta: q."""
        return self.values.shape[2]

    def combined(self, weights: Tensor) -> Tensor:
        """Combine the rows with weights (n, u, r): (n, u, q)."""
        return weights @ self.values


@dataclass(frozen=True)
class OuterProducts:
    """The entries of A_n in a piece of theta where they are outer products, row-major.

    Attributes
    ----------
    start : int
    slopes : Tensor, shape (n, r, U)
    inputs : Tensor, shape (n, K)
    """

    start: int
    slopes: Tensor
    inputs: Tensor

    @property
    def size(self) -> int:
        """Entries of theta: U K."""
        return self.slopes.shape[2] * self.inputs.shape[1]

    def combined(self, weights: Tensor) -> Tensor:
        """Combine the rows with weights (n, u, r): (n, u, U K)."""
        products = weights @ self.slopes  # (n, u, U)
        return (products.unsqueeze(3) * self.inputs[:, None, None]).flatten(2)

    def up_to(self, num_units: int) -> OuterProducts:
        """Return the part of the first units."""
        return OuterProducts(self.start, self.slopes[:, :, :num_units], self.inputs)


Piece: TypeAlias = Rows | OuterProducts


def add_sum_of_squares(total: Tensor, pieces: list[Piece], signs: Tensor) -> None:
    """Add sum_n A_n^T diag(sign_n) A_n to the lower triangle of total, in place.

    What is above the diagonal afterwards has no meaning.

    Parameters
    ----------
    total : Tensor, shape (P, P)
    pieces : list of Rows or OuterProducts
        Of disjoint parts of theta, in any order.
    signs : Tensor, shape (n, r)
        1, -1 or 0.
    """
    for late in pieces:
        for early in pieces:
            if late is early:
                _add_diagonal(total, late, signs)
            elif late.start > early.start:
                _add_block(total, late, early, signs)


def _add_diagonal(total: Tensor, piece: Piece, signs: Tensor) -> None:
    if isinstance(piece, Rows):
        for part in chunks(piece.size, _ROWS_PER_BLOCK):
            rows = Rows(piece.start + part.start, piece.values[:, :, part])
            _add_rows(total, rows, Rows(piece.start, piece.values[:, :, : part.stop]), signs)
        return
    for unit in range(piece.slopes.shape[2]):
        only = slice(unit, unit + 1)
        _add_units(total, piece, only, piece.up_to(unit + 1), signs)


def _add_block(total: Tensor, late: Piece, early: Piece, signs: Tensor) -> None:
    if isinstance(late, OuterProducts):
        _add_by_units(total, late, early, signs)
    elif isinstance(early, OuterProducts):
        _add_by_units(total.mT, early, late, signs)
    else:
        _add_rows(total, late, early, signs)


def _add_rows(total: Tensor, late: Rows, early: Rows, signs: Tensor) -> None:
    signed = (late.values * signs.unsqueeze(2)).flatten(0, 1)  # (n r, q)
    block = total[late.start : late.start + late.size, early.start : early.start + early.size]
    block.addmm_(signed.mT, early.values.flatten(0, 1))


def _add_by_units(total: Tensor, piece: OuterProducts, other: Piece, signs: Tensor) -> None:
    """Add the block of a piece with another one, as many units at once as A_n has rows."""
    for units in chunks(piece.slopes.shape[2], signs.shape[1]):
        _add_units(total, piece, units, other, signs)


def _add_units(
    total: Tensor, piece: OuterProducts, units: slice, other: Piece, signs: Tensor
) -> None:
    weights = (piece.slopes[:, :, units] * signs.unsqueeze(2)).mT  # (n, u, r)
    combined = other.combined(weights)
    width, columns = piece.inputs.shape[1], slice(other.start, other.start + other.size)
    for unit in range(combined.shape[1]):
        start = piece.start + (units.start + unit) * width
        total[start : start + width, columns].addmm_(piece.inputs.mT, combined[:, unit])

"""Vectors of length P, of which a process may hold a part: the few operations that see all entries.

Lanczos methods add, scale and rotate vectors entry by entry, which needs nothing of other entries.
What does is here: sums over all entries (norms, inner products), the largest entry, orthonormal
columns, and random vectors. `VectorSpace` is for vectors that lie in this process as a whole;
subclasses (`hesspipe.sharded.space`) replace its operations by those over several processes.

Random entries belong to (seed, index): a process that holds some of the entries gets the same
numbers that it would get with all of them. Numbers are drawn block by block, so that a part needs
no memory for the whole. torch.randn computes normal numbers in groups of 16, and the last 16 anew
if the number is no multiple of 16; with blocks of multiples of 16, of which the last takes what is
left, the numbers equal those of a single call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hesspipe.ranks.ranks import Ranks

# Entries that are drawn at once, a multiple of the 16 that torch computes together.
_BLOCK, _GROUP = 2**16, 16


class VectorSpace:
    """Vectors of length P that lie in this process as a whole.

    Parameters
    ----------
    dim : int
        P.

    Attributes
    ----------
    length : int
        Entries in this process.
    ranks : Ranks, optional
        The processes that hold vectors together.
    """

    ranks: Ranks | None = None

    def __init__(self, dim: int) -> None:
        self.dim = self.length = dim

    def norm(self, vectors: Tensor, dim: int | None = None) -> Tensor:
        """Euclidean norm of a vector (length,), or of the columns (length, k) with dim=0."""
        norms: Tensor = vectors.norm() if dim is None else vectors.norm(dim=dim)
        return norms

    def inner(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Inner products of rows (k, length) or (length,) with vectors (length, ...)."""
        return rows @ vectors

    def sum(self, part: Tensor) -> Tensor:
        """Sum of what the processes have computed from their entries."""
        return part

    def largest(self, part: Tensor) -> Tensor:
        """Largest of what the processes have computed from their entries."""
        return part

    def holds(self, is_true: bool) -> bool:
        """Whether something is true in every process."""
        return is_true

    def orthonormal(self, columns: Tensor) -> Tensor:
        """Orthonormal basis (length, k) of the span of columns (length, k)."""
        basis: Tensor = torch.linalg.qr(columns).Q
        return basis

    def agreed(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Values that the first process has computed, so that all decide alike."""
        return values

    def normal(self, generator: torch.Generator) -> Tensor:
        """Draw standard normal numbers (length,), in float64 on the CPU."""
        return torch.randn(self.dim, generator=generator, dtype=torch.float64)

    def signs(self, generator: torch.Generator) -> Tensor:
        """Draw random signs (length,), as integers on the CPU."""
        return 2 * torch.randint(2, (self.dim,), generator=generator) - 1

    def set_entry(self, vector: Tensor, index: int, value: float) -> None:
        """Set one of the P entries, in the process that holds it."""
        vector[index] = value

    def gather(self, vectors: Tensor) -> Tensor:
        """All entries (P, ...) of vectors (length, ...)."""
        return vectors


def normal_blocks(dim: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draw the numbers of ``torch.randn(dim, dtype=torch.float64)`` block by block."""
    return _blocks(dim, lambda size: torch.randn(size, generator=generator, dtype=torch.float64))


def sign_blocks(dim: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draw the signs of `VectorSpace.signs` block by block."""
    return _blocks(dim, lambda size: 2 * torch.randint(2, (size,), generator=generator) - 1)


def _blocks(dim: int, draw: Callable[[int], Tensor]) -> Iterator[Tensor]:
    left = dim
    while left > 0:
        size = left if left < _BLOCK + _GROUP else _BLOCK
        yield draw(size)
        left -= size

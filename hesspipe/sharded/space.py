"""Vectors of length P of which each process holds the entries of its parts of the parameters.

An inner product is a sum over processes of a few numbers. These are gathered and added in the order
of ranks, in float64, so that all processes continue with equal bits whatever the network does.
Columns are orthonormalized by QR of the parts and of their small factors (Demmel and others, 2012,
Communication-optimal parallel and sequential QR and LU factorizations).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hesspipe.linalg.vector_space import (
    VectorSpace,
    norm,
    normal_blocks,
    orthonormal,
    sign_blocks,
)
from hesspipe.ranks.ranks import Ranks
from hesspipe.sharded.layout import Piece


class ShardedSpace(VectorSpace):
    """Vectors over processes; all of these must call the same methods in the same order.

    Parameters
    ----------
    pieces : sequence of Piece
        In the order of theta.
    ranks : Ranks
    """

    ranks: Ranks

    def __init__(self, pieces: Sequence[Piece], ranks: Ranks) -> None:
        super().__init__(sum(piece.shape.numel() for piece in pieces))
        self.pieces, self.ranks = pieces, ranks
        self.length = sum(piece.length for piece in pieces)

    def norm(self, vectors: Tensor, dim: int | None = None) -> Tensor:
        """Norm over all processes, from their norms: squares may be out of range in float32."""
        own = self._of_all(norm(vectors, dim).double())
        total: Tensor = torch.linalg.vector_norm(own, dim=0).to(vectors.dtype)
        return total

    def inner(self, rows: Tensor, vectors: Tensor, *, is_rough: bool = False) -> Tensor:
        """Inner products, as a sum over processes."""
        return self.sum(super().inner(rows, vectors, is_rough=is_rough))

    def sum(self, part: Tensor) -> Tensor:
        """Add numbers of all processes."""
        total: Tensor = self._of_all(part.double()).sum(0).to(part.dtype)
        return total

    def largest(self, part: Tensor) -> Tensor:
        """Largest number of all processes; nan if one is nan."""
        largest: Tensor = self._of_all(part.double()).amax(0).to(part.dtype)
        return largest

    def holds(self, is_true: bool) -> bool:
        """Whether it is true in every process."""
        return bool(self._of_all(torch.tensor(is_true, dtype=torch.float64, device="cpu")).all())

    def orthonormal(self, columns: Tensor) -> Tensor:
        """Orthonormal columns, from QR of the parts and of their stacked factors."""
        count = columns.shape[1]
        basis, factor = orthonormal(columns)  # (length, m), (m, count)
        padded = factor.new_zeros(count, count)
        padded[: len(factor)] = factor
        stacked = self._of_all(padded).flatten(0, 1)  # (size * count, count)
        (turn,) = self.agreed(torch.linalg.qr(stacked).Q)
        own = turn[self.ranks.rank * count :][: len(factor)]  # (m, count)
        return basis @ own

    def agreed(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Values of rank 0."""
        copies = tuple(value.clone() for value in values)
        for copy in copies:
            self.ranks.broadcast(copy, "numbers that decide")
        return copies

    def normal(self, generator: torch.Generator) -> Tensor:
        """Draw all P numbers, and keep those of this process."""
        return self._kept(normal_blocks(self.dim, generator), torch.float64)

    def signs(self, generator: torch.Generator) -> Tensor:
        """Draw all P signs, and keep those of this process."""
        return self._kept(sign_blocks(self.dim, generator), torch.int64)

    def set_entry(self, vector: Tensor, index: int, value: float) -> None:
        """Set an entry of theta where it lies."""
        for piece in self.pieces:
            at = index - piece.offset - piece.first
            if 0 <= at < piece.length:
                vector[piece.place + at] = value

    def gather(self, vectors: Tensor) -> Tensor:
        """All entries (P, ...) of vectors (length, ...), in every process."""
        own = torch.cat([piece.padded(vectors[piece.own]) for piece in self.pieces])
        joined = self.ranks.join(own.reshape(-1), "all entries of vectors")
        parts = joined.view(self.ranks.size, *own.shape).split(
            [piece.per_rank for piece in self.pieces], dim=1
        )
        return torch.cat([
            part.flatten(0, 1)[: piece.shape.numel()]
            for piece, part in zip(self.pieces, parts, strict=True)
        ])  # fmt: skip

    def _of_all(self, own: Tensor) -> Tensor:
        """Numbers of all processes, stacked: (size, ...)."""
        joined = self.ranks.join(own.reshape(-1), "a sum over all entries")
        return joined.view(self.ranks.size, *own.shape)

    def _kept(self, blocks: Iterable[Tensor], dtype: torch.dtype) -> Tensor:
        """Keep this process's entries of consecutive blocks of theta."""
        part = torch.empty(self.length, dtype=dtype, device="cpu")
        held = [piece for piece in self.pieces if piece.length]
        begin = 0
        for block in blocks:
            end = begin + len(block)
            while held:
                piece = held[0]
                first = piece.offset + piece.first
                low, high = max(first, begin), min(first + piece.length, end)
                if low < high:
                    at = piece.place + low - first
                    part[at : at + high - low] = block[low - begin : high - begin]
                if first + piece.length > end:
                    break
                held.pop(0)
            begin = end
        return part

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

Sums over float32 are made in float64. Over P = 10^7 entries in float32, as torch and BLAS compute
them on a CPU, they are wrong by 1e-3: bases of orthonormal vectors are not, and eigenvalues have
three digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hesspipe.ranks.ranks import Ranks

# Entries that are drawn at once, a multiple of the 16 that torch computes together.
_BLOCK, _GROUP = 2**16, 16
# Entries that are converted to float64 at once, and those whose squares or products are added in
# float32: the latter by torch's `sum`, which adds in a tree, so that a few eps are lost, and in
# rough sums by BLAS.
_CONVERTED, _SQUARES, _PRODUCTS, _ROUGH = 2**12, 2**8, 2**13, 2**14


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
        return norm(vectors, dim)

    def inner(self, rows: Tensor, vectors: Tensor, *, is_rough: bool = False) -> Tensor:
        """Inner products of rows (k, length) or (length,) with vectors (length, ...).

        Rough ones, with a vector, take half of the time and have six digits in float32.
        """
        return rough_inner(rows, vectors) if is_rough else inner(rows, vectors)

    def sum(self, part: Tensor) -> Tensor:
        """Sum of what the processes have computed from their entries."""
        return part

    def largest(self, part: Tensor) -> Tensor:
        """Largest of what the processes have computed from their entries."""
        return part

    def largest_entry(self, vector: Tensor) -> float:
        """Largest absolute entry of a vector (length,), of which a process may hold none."""
        return float(self.largest(vector.abs().amax() if len(vector) else vector.new_zeros(())))

    def holds(self, is_true: bool) -> bool:
        """Whether something is true in every process."""
        return is_true

    def orthonormal(self, columns: Tensor) -> Tensor:
        """Orthonormal basis (length, k) of the span of columns (length, k)."""
        return orthonormal(columns)[0]

    def agreed(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Values that the first process has computed, so that all decide alike."""
        return values

    def normal(self, generator: torch.Generator) -> Tensor:
        """Draw standard normal numbers (length,), in float64 on the CPU."""
        return torch.randn(self.dim, generator=generator, dtype=torch.float64, device="cpu")

    def signs(self, generator: torch.Generator) -> Tensor:
        """Draw random signs (length,), as integers on the CPU."""
        return 2 * torch.randint(2, (self.dim,), generator=generator, device="cpu") - 1

    def set_entry(self, vector: Tensor, index: int, value: float) -> None:
        """Set one of the P entries, in the process that holds it."""
        vector[index] = value

    def gather(self, vectors: Tensor) -> Tensor:
        """All entries (P, ...) of vectors (length, ...)."""
        return vectors


def norm(vectors: Tensor, dim: int | None = None) -> Tensor:
    """Euclidean norm of a vector (P,), or of the columns (P, k) with dim=0, in the same dtype."""
    if not _is_long(vectors):
        plain: Tensor = torch.linalg.vector_norm(vectors, dim=dim)
        return plain
    num_blocks = len(vectors) // _SQUARES
    first = vectors[: num_blocks * _SQUARES].unflatten(0, (num_blocks, _SQUARES))
    rest = torch.linalg.vector_norm(vectors[num_blocks * _SQUARES :], dim=0)
    norms = torch.cat([torch.linalg.vector_norm(first, dim=1), rest.unsqueeze(0)])
    total: Tensor = torch.linalg.vector_norm(norms.double(), dim=0)
    return total.to(vectors.dtype)


def inner(rows: Tensor, vectors: Tensor) -> Tensor:
    """Inner products of rows (k, P) or (P,) with vectors (P, ...), in the same dtype."""
    if not _is_long(vectors):
        return rows @ vectors
    shape = (*rows.shape[:-1], *vectors.shape[1:])
    total = rows.new_zeros(shape, dtype=torch.float64)
    if vectors.ndim == 1:
        for some, others in zip(rows.split(_PRODUCTS, -1), vectors.split(_PRODUCTS), strict=True):
            total += (some * others).sum(-1)
        return total.to(vectors.dtype)
    for some, others in zip(rows.split(_CONVERTED, -1), vectors.split(_CONVERTED), strict=True):
        total += some.double() @ others.double()
    return total.to(vectors.dtype)


def rough_inner(rows: Tensor, vector: Tensor) -> Tensor:
    """Inner products of rows (k, P) with a vector (P,): BLAS adds in blocks, then float64."""
    if len(vector) <= _ROUGH or not _is_long(vector):
        return inner(rows, vector)
    parts = zip(rows.split(_ROUGH, -1), vector.split(_ROUGH), strict=True)
    sums = torch.stack([some @ others for some, others in parts])  # (blocks, k)
    return sums.double().sum(0).to(vector.dtype)


def orthonormal(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal basis (P, m) of the span of columns (P, k), and their factor (m, k) in it."""
    if not _is_long(columns):
        basis, factor = torch.linalg.qr(columns)
        return basis, factor
    # QR of blocks and of their stacked factors (Demmel and others, 2012, Communication-optimal
    # parallel and sequential QR and LU factorizations), all in float64.
    basis = torch.empty(columns.shape, dtype=columns.dtype, device="cpu")
    blocks, places = columns.split(_CONVERTED), basis.split(_CONVERTED)
    sizes = [min(len(block), columns.shape[1]) for block in blocks]
    # One array: a small one that outlives a block would keep the memory of the block from the next.
    factors = columns.new_empty(sum(sizes), columns.shape[1], dtype=torch.float64)
    for block, place, factor in zip(blocks, places, factors.split(sizes), strict=True):
        part, factor[:] = torch.linalg.qr(block.double())
        place[:, : len(factor)] = part.to(columns)
    turn, factor = torch.linalg.qr(factors)
    for own, place in zip(turn.to(columns).split(sizes), places, strict=True):
        place[:, : len(factor)] = place[:, : len(own)] @ own
    return basis[:, : len(factor)], factor.to(columns)


def _is_long(vectors: Tensor) -> bool:
    """Whether sums over so many entries lose digits: a GPU adds in a tree, and float64 has more."""
    is_rough = torch.finfo(vectors.dtype).eps > torch.finfo(torch.float64).eps
    return is_rough and vectors.device.type == "cpu" and len(vectors) > _SQUARES


def normal_blocks(dim: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draw the numbers of ``torch.randn(dim, dtype=torch.float64)`` block by block."""
    return _blocks(
        dim, lambda size: torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    )


def sign_blocks(dim: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draw the signs of `VectorSpace.signs` block by block."""
    return _blocks(
        dim, lambda size: 2 * torch.randint(2, (size,), generator=generator, device="cpu") - 1
    )


def _blocks(dim: int, draw: Callable[[int], Tensor]) -> Iterator[Tensor]:
    left = dim
    while left > 0:
        size = left if left < _BLOCK + _GROUP else _BLOCK
        yield draw(size)
        left -= size

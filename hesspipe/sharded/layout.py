"""Which entries of each parameter a process holds.

Each parameter, row-major, is divided into as many consecutive parts as there are processes, of
ceil(n / size) entries; the last ones have fewer, or none. A process then has the same share of
every parameter, whatever the shapes are, and a part is one range of theta. How the caller's model
is divided (by rows, by columns, over a mesh of several dimensions, not at all) does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """One parameter, and this process's part of it.

    Attributes
    ----------
    name : str
    shape : torch.Size
        Of the whole parameter.
    size : int
        Number of processes.
    first, length : int
        The part: its first entry in the parameter, and its number of entries.
    place : int
        Of the part in the vector of this process.
    offset : int
        Of the parameter in theta.
    """

    name: str
    shape: torch.Size
    size: int
    first: int
    length: int
    place: int
    offset: int

    @property
    def per_rank(self) -> int:
        """Entries that a process holds at most."""
        return -(-self.shape.numel() // self.size)

    @property
    def own(self) -> slice:
        """The part in the vector of this process."""
        return slice(self.place, self.place + self.length)

    def part_of(self, values: Tensor) -> Tensor:
        """Take the part (length,) of this process from a whole parameter."""
        return values.reshape(-1)[self.first : self.first + self.length]

    def padded(self, part: Tensor) -> Tensor:
        """Fill a part with zeros to the length that all processes send, (per_rank, ...)."""
        missing = self.per_rank - self.length
        if not missing:
            return part
        return torch.cat([part, part.new_zeros(missing, *part.shape[1:])])


def divided(shapes: Mapping[str, torch.Size], rank: int, size: int) -> list[Piece]:
    """Divide parameters, given by their names and shapes, among processes.

    Examples
    --------
    Of a weight (2, 3) and a bias (2,), rank 1 of 2 has entries 3 to 5 and 1:

    >>> pieces = divided({"w": torch.Size([2, 3]), "b": torch.Size([2])}, rank=1, size=2)
    >>> [(piece.first, piece.length, piece.place, piece.offset) for piece in pieces]
    [(3, 3, 0, 0), (1, 1, 3, 6)]
    """
    pieces: list[Piece] = []
    place = offset = 0
    for name, shape in shapes.items():
        count = shape.numel()
        per_rank = -(-count // size)
        first = min(rank * per_rank, count)
        length = min(per_rank, count - first)
        pieces.append(Piece(name, shape, size, first, length, place, offset))
        place += length
        offset += count
    return pieces

"""Whole parameters inside the graph, gathered from their parts and no longer than they are needed.

A parameter is gathered where the model reads it, as a differentiable operation. Its derivative adds
the gradients of all processes and keeps the part of each, and the derivative of that gathers again:

    gather:  parts -> whole          derivative:  add and divide
    add and divide:  wholes -> part  derivative:  gather

so that first and second derivatives by the parts are those of the sum of the processes' losses.
Between the passes, autograd keeps what operations have saved, whole parameters among them. A hook
replaces these by their parts, from which they are gathered again when a derivative needs them (as
in ZeRO-3; Rajbhandari and others, 2020). A whole parameter is recognized by its storage, to which a
weak reference is held, so that no other tensor can be taken for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from hesspipe.ranks.ranks import Ranks
from hesspipe.sharded.layout import Piece


@dataclass(frozen=True)
class _Packed:
    """A view of a whole parameter, as what it can be made of again."""

    piece: Piece
    part: Tensor
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Known:
    """The storage of a whole parameter, and its version when it was gathered."""

    storage: StorageWeakRef
    version: int
    piece: Piece
    part: Tensor


class Gathering:
    """Gathers parameters of a model; all processes must do so in the same order.

    Parameters
    ----------
    ranks : Ranks
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._known: dict[int, _Known] = {}
        self._is_counting = False

    def whole(self, part: Tensor, piece: Piece) -> Tensor:
        """Gather a parameter from its parts (length,), in the graph."""
        apply: Any = _Gather.apply
        found: Tensor = apply(part, piece, self)
        return found.view(piece.shape)

    def join(self, part: Tensor, piece: Piece) -> Tensor:
        """Gather a parameter, row-major, with the padding of the last parts behind it."""
        joined = self.ranks.join(piece.padded(part), f"parameter {piece.name}")
        self._known = {
            key: known for key, known in self._known.items() if not known.storage.expired()
        }
        storage = joined.untyped_storage()
        reference = StorageWeakRef(storage)
        self._known[storage._cdata] = _Known(reference, joined._version, piece, part.detach())
        return joined

    def add(self, whole: Tensor, piece: Piece) -> Tensor:
        """Add the gradients (n,) of all processes, and return the part (length,) of this one."""
        missing = piece.per_rank * piece.size - len(whole)
        padded = torch.nn.functional.pad(whole, (0, missing)) if missing else whole
        added = self.ranks.add_to_part(padded, f"gradient of {piece.name}")
        return added[: piece.length]

    @contextmanager
    def lean(self) -> Iterator[None]:
        """Keep parts in place of the whole parameters that operations save."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            yield

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Give nothing in place of parameters, while someone counts what graphs have saved."""
        self._is_counting = True
        try:
            yield
        finally:
            self._is_counting = False

    def _pack(self, tensor: Tensor) -> Any:
        if tensor.layout != torch.strided:
            return tensor
        known = self._known.get(tensor.untyped_storage()._cdata)
        if known is None or known.storage.expired():
            return tensor
        piece, part = known.piece, known.part
        if tensor.dtype != part.dtype or tensor.is_conj() or tensor.is_neg():
            return tensor
        if tensor._version != known.version:
            raise ValueError(
                f"model must not change parameters in place, got a change of {piece.name}"
            )
        offset = int(tensor.storage_offset())
        return _Packed(piece, part, tensor.size(), tensor.stride(), offset)

    def _unpack(self, packed: Any) -> Tensor:
        if not isinstance(packed, _Packed):
            tensor: Tensor = packed
            return tensor
        if self._is_counting:
            return packed.part.new_empty(0)
        with torch.no_grad():
            joined = self.join(packed.part, packed.piece)
        return joined.as_strided(packed.size, packed.stride, packed.offset)


class _Gather(torch.autograd.Function):
    """Parts -> whole parameter, row-major."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, piece: Piece, gathering: Gathering) -> Tensor:
        ctx.piece, ctx.gathering = piece, gathering
        return gathering.join(part, piece)[: piece.shape.numel()]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        apply: Any = _AddAndDivide.apply
        return apply(gradients[0], ctx.piece, ctx.gathering), None, None


class _AddAndDivide(torch.autograd.Function):
    """Gradients of all processes by a whole parameter -> the part of their sum."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, piece: Piece, gathering: Gathering) -> Tensor:
        ctx.piece, ctx.gathering = piece, gathering
        return gathering.add(whole, piece)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        apply: Any = _Gather.apply
        return apply(gradients[0], ctx.piece, ctx.gathering), None, None


def parts_of(vector: Tensor, pieces: Sequence[Piece]) -> tuple[Tensor, ...]:
    """Split the vector of a process into its parts of the parameters."""
    parts: tuple[Tensor, ...] = vector.split([piece.length for piece in pieces])
    return parts

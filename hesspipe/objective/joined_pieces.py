"""Samples of several batches in one evaluation, where they are independent.

Networks that take a millisecond for a batch take hardly more for several, and derivatives by all
parameters are computed once for all of them. The loss is called for each batch as it is otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from hesspipe.objective.dependence import values_of
from hesspipe.objective.pieces import Piece
from hesspipe.objective.pytrees import Fields, map_leaves, map_tensors, named_tensors

# What inputs may hold beside tensors; of other objects it is not known whether they are the same.
_COMPARABLE = (type(None), bool, int, float, str)


def joined(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """Join pieces of the data, one after the other.

    Parameters
    ----------
    pieces : sequence of Piece
        Their samples must be independent, with one row of outputs each.
    most : int
        Number of samples of a joined piece; a piece of more remains as it is.

    Returns
    -------
    list of Piece
        Each with the sum of the losses. The numbers of samples and batches are those of the first.
    """
    groups: list[list[Piece]] = []
    size, last = 0, None
    for piece in pieces:
        form = _form(piece)
        size += len(piece.inputs)
        if not groups or size > most or form is None or form != last:
            groups.append([])
            size = len(piece.inputs)
        groups[-1].append(piece)
        last = form
    return [group[0] if len(group) == 1 else _one(group) for group in groups]


def _form(piece: Piece) -> Any:
    """Describe inputs without their rows; None where it is not known whether others are alike."""
    values = values_of(piece.inputs)
    leaves: list[Any] = []
    containers = map_leaves(leaves.append, values)
    rest = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    tensors = dict(named_tensors(values, ""))
    is_known = all(type(leaf) in _COMPARABLE for leaf in rest) and all(
        tensor.layout == torch.strided and not tensor.is_nested for tensor in tensors.values()
    )
    if not (piece.has_rows and is_known):
        return None
    shapes = {name: (tensor.shape[1:], tensor.dtype) for name, tensor in tensors.items()}
    return type(containers), shapes, rest


def _one(pieces: list[Piece]) -> Piece:
    """Join pieces of inputs that are alike."""
    first = pieces[0]
    columns = zip(*(_tensors(values_of(piece.inputs)) for piece in pieces), strict=True)
    joint = map(torch.cat, columns)
    values = map_tensors(lambda _: next(joint), values_of(first.inputs))
    inputs = Fields(values) if isinstance(first.inputs, Fields) else values
    sizes = [len(piece.inputs) for piece in pieces]
    bounds = list(pairwise(accumulate(sizes, initial=0)))
    losses = [piece.loss for piece in pieces]
    return Piece(
        first.model,
        partial(_sum_of_losses, losses, bounds),
        inputs,
        True,
        first.batch,
        first.first,
        unflatten=first.unflatten,
    )


def _sum_of_losses(losses: list[Any], bounds: list[tuple[int, int]], outputs: Any) -> Tensor:
    """Add the losses of rows of outputs."""

    def rows(start: int, stop: int) -> Any:
        return map_tensors(lambda tensor: tensor[start:stop], outputs)

    parts = [loss(rows(*bound)) for loss, bound in zip(losses, bounds, strict=True)]
    return torch.stack(parts).sum()


def _tensors(values: Any) -> list[Tensor]:
    return [tensor for _, tensor in named_tensors(values, "")]

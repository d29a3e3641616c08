"""Embeddings with `padding_idx`, whose row of padding is a constant where it is looked up.

torch gives this row no gradient from a lookup, at no order. Where the weight has another use, such
as an output layer that shares it, the row varies there. With a lookup L of weights W, the row of
padding r and the other uses, torch differentiates f(L(W with r constant), W): its first and second
derivatives are those of a function, so that H is symmetric and H = G + R. That is done here with
ordinary gradients. To differentiate the lookup of padding as well, set `padding_idx` to None: the
outputs are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional


class PaddedLookup(nn.Embedding):
    """An embedding that returns its row of padding as a constant.

    Attributes
    ----------
    held : Tensor or None
        The constant row, of which the derivative is that of the function; the present one if None.
    is_apart : bool
        Whether all rows are constants, which shows the other uses of the weight.
    """

    held: Tensor | None = None
    is_apart: bool = False

    def forward(self, indices: Tensor) -> Tensor:
        """Look up the rows of some indices, as torch does in its forward pass."""
        assert self.padding_idx is not None
        weight = self.weight.detach() if self.is_apart else self.weight
        row = weight[self.padding_idx].detach() if self.held is None else self.held
        is_padding = (indices == self.padding_idx).unsqueeze(-1)
        return torch.where(is_padding, row, functional.embedding(indices, weight))


def constant_rows(structure: nn.Module, names: Mapping[int, str]) -> dict[str, int]:
    """Make lookups of padding constant, and find the rows of padding that no module uses otherwise.

    Embeddings then have ordinary dense gradients.

    Parameters
    ----------
    structure : nn.Module
        Its embeddings are changed.
    names : mapping of str
        Of the parameters, by their `id`.

    Returns
    -------
    dict of int
        The row of padding by the name of the parameter. A function may use it nevertheless: see
        `used_parts`.
    """
    users: dict[int, set[int | None]] = defaultdict(set)
    for module in structure.modules():
        row: int | None = None
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            row = module.padding_idx
            module.__class__ = _padded(type(module))
        for weight in module._parameters.values():
            users[id(weight)].add(row)
    rows = {names[key]: rows for key, rows in users.items() if key in names}
    return {name: row for name, (row, *others) in rows.items() if row is not None and not others}


def _padded(kind: type[nn.Embedding]) -> type[nn.Embedding]:
    """Put PaddedLookup between a kind of embedding and torch's, which `super().forward` calls."""
    bases = (PaddedLookup,) if kind is nn.Embedding else (kind, PaddedLookup)
    return type(kind.__name__, bases, {"__module__": kind.__module__})


def lookups(model: nn.Module) -> list[PaddedLookup]:
    """List the embeddings with a row of padding."""
    return [module for module in model.modules() if isinstance(module, PaddedLookup)]


@contextmanager
def held_rows(model: nn.Module, rows: list[Tensor]) -> Iterator[None]:
    """Let lookups of padding return given rows, one for each of `lookups`."""
    found = lookups(model)
    for module, row in zip(found, rows, strict=True):
        module.held = row
    try:
        yield
    finally:
        for module in found:
            module.held = None


@contextmanager
def lookups_apart(model: nn.Module) -> Iterator[None]:
    """Let lookups in embeddings with padding be constants, so that other uses are seen."""
    found = lookups(model)
    for module in found:
        module.is_apart = True
    try:
        yield
    finally:
        for module in found:
            module.is_apart = False


def used_parts(value: Tensor) -> set[int]:
    """Find which parts of a vector that was split, counted from 0, a value depends on."""
    used: set[int] = set()
    seen, waiting = {value.grad_fn}, [value.grad_fn]
    while waiting:
        node = waiting.pop()
        for parent, place in () if node is None else node.next_functions:
            if parent is not None and _splits_a_leaf(parent):
                used.add(place)
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return used


def _splits_a_leaf(node: Node) -> bool:
    return node.name() == "SplitWithSizesBackward0" and any(
        hasattr(parent, "variable") for parent, _ in node.next_functions
    )

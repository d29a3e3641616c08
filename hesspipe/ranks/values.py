"""Values sent from one process to all: numbers, tensors, containers, dataclasses of hesspipe."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hesspipe.ranks.ranks import Ranks

_PLAIN = (bool, int, float, str, type(None))


def share(ranks: Ranks, value: Any, like: Tensor, source: int = 0) -> Any:
    """Return a value that one process has, in all of them.

    Parameters
    ----------
    ranks : Ranks
    value : nested containers and dataclasses of tensors and numbers
        Not used in the other processes.
    like : Tensor
        On the device where tensors are put that are not on the CPU of that process.
    source : int
        The rank of that process.

    Raises
    ------
    RankError
        Also a TypeError, if it holds something else.
    """
    tensors: list[Tensor] = []
    with ranks.raise_together("sending a result"):
        sent = _packed(value, tensors) if ranks.rank == source else None
    sent = ranks.decide(sent, source)
    kinds = ranks.decide([[str(t.dtype), list(t.shape), t.device.type] for t in tensors], source)
    if ranks.rank != source:
        tensors = [_empty(like, *kind) for kind in kinds]
    for tensor in tensors:
        if tensor.numel():
            ranks.broadcast(tensor, "a tensor of a result", source)
    return value if ranks.rank == source else _unpacked(sent, tensors)


def _empty(like: Tensor, dtype: str, shape: list[int], device: str) -> Tensor:
    kind = getattr(torch, dtype.removeprefix("torch."))
    return torch.empty(shape, dtype=kind, device="cpu" if device == "cpu" else like.device)


def _packed(value: Any, tensors: list[Tensor]) -> Any:
    """Turn a value into JSON, with the places of its tensors in a list."""
    if isinstance(value, Tensor):
        tensors.append(value.detach().contiguous())
        return {"tensor": len(tensors) - 1}
    if isinstance(value, _PLAIN):
        return {"plain": value}
    if dataclasses.is_dataclass(value):
        kind = type(value)
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        parts = {name: _packed(part, tensors) for name, part in fields.items()}
        return {"module": kind.__module__, "class": kind.__qualname__, "fields": parts}
    if isinstance(value, Mapping):
        return {"mapping": [[str(key), _packed(part, tensors)] for key, part in value.items()]}
    if isinstance(value, (list, tuple)):
        name = "list" if isinstance(value, list) else "tuple"
        return {name: [_packed(part, tensors) for part in value]}
    raise TypeError(f"a result must be of tensors and numbers, got {type(value).__name__}")


def _unpacked(sent: dict[str, Any], tensors: list[Tensor]) -> Any:
    if "tensor" in sent:
        return tensors[sent["tensor"]]
    if "plain" in sent:
        return sent["plain"]
    if "mapping" in sent:
        return {key: _unpacked(part, tensors) for key, part in sent["mapping"]}
    if "fields" in sent:
        kind = _dataclass(sent["module"], sent["class"])
        return kind(**{name: _unpacked(part, tensors) for name, part in sent["fields"].items()})
    if "list" in sent:
        return [_unpacked(part, tensors) for part in sent["list"]]
    return tuple(_unpacked(part, tensors) for part in sent["tuple"])


def _dataclass(module: str, name: str) -> Any:
    """Find a dataclass of hesspipe."""
    if not module.startswith("hesspipe."):
        raise TypeError(f"a result must be of a class of hesspipe, got {module}.{name}")
    return getattr(importlib.import_module(module), name)

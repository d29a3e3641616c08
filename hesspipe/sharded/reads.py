"""One parameter, however often it is read: derivatives by it, and other tensors in its place.

A parameter is gathered anew whenever a model reads it, and what was gathered before is freed. A
loss that differentiates by parameters (a gradient penalty, an inner step of meta-learning) has one
of several tensors of the same values, and autograd knows nothing of the others. Here their places
in the graph are kept, which takes no memory: the derivative by a parameter is the sum of those by
all that was read of it. While such a tensor lives, it is what is read again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode


class Reads:
    """What was read of parameters in one evaluation of a model."""

    def __init__(self) -> None:
        self._last: dict[str, weakref.ref[Tensor]] = {}
        self._names: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._edges: dict[str, list[GradientEdge]] = {}

    def read(self, name: str, gather: Callable[[], Tensor], is_varied: bool) -> Tensor:
        """Give the tensor that was read before, if it lives and has a graph where one is needed."""
        last = self._last[name]() if name in self._last else None
        if last is not None and (last.requires_grad or not (is_varied and torch.is_grad_enabled())):
            return last
        found = gather()
        reference = weakref.ref(found)
        self._last[name], self._names[id(found)] = reference, (reference, name)
        if found.requires_grad:
            self._edges.setdefault(name, []).append(get_gradient_edge(found))
        return found

    def name_of(self, value: Any) -> str | None:
        """Name the parameter that a tensor was read of; None for any other."""
        reference, name = self._names.get(id(value), (None, None))
        return name if reference is not None and reference() is value else None

    def edges_of(self, value: Any) -> Sequence[Any]:
        """Return all places in the graph of the parameter that a tensor was read of."""
        name = self.name_of(value)
        return [value] if name is None else self._edges.get(name, [value])


class DerivativesByParameters(TorchFunctionMode):
    """Lets `torch.autograd.grad` differentiate by all that was read of a parameter."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.autograd.grad:
            return self._grad(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _grad(self, outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(inputs, Mapping):
            found = self._grad(outputs, list(inputs.values()), *args, **kwargs)
            return dict(zip(inputs, found, strict=True))
        given: list[Any] = [inputs] if isinstance(inputs, Tensor | GradientEdge) else list(inputs)
        groups = [self._reads.edges_of(one) for one in given]
        if all(len(group) == 1 for group in groups):
            return torch.autograd.grad(outputs, given, *args, **kwargs)
        is_filled = kwargs.pop("materialize_grads", False)
        may_be_unused = kwargs.pop("allow_unused", None) or is_filled
        joined = [edge for group in groups for edge in group]
        kwargs["allow_unused"] = True
        found = iter(torch.autograd.grad(outputs, joined, *args, **kwargs))
        sums = []
        for one, group in zip(given, groups, strict=True):
            parts = [part for part in [next(found) for _ in group] if part is not None]
            if not parts and not may_be_unused:
                raise ValueError(
                    "a loss must depend on what it is differentiated by, got "
                    f"{self._reads.name_of(one) or 'a tensor'} that it does not use; pass "
                    "allow_unused=True if this is right"
                )
            empty = torch.zeros_like(one) if isinstance(one, Tensor) and is_filled else None
            sums.append(sum(parts[1:], parts[0]) if parts else empty)
        return tuple(sums)

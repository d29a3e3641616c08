"""Tied selections that the loss does not show, because what they select is multiplied by zero.

Behind a gate of zeros, a router of zeros selects its first experts, and next to the parameters it
selects others: the loss only bends, but its gradient by the gate jumps, and there is no Hessian. A
kink of ReLU at zero bends the loss as well, with one of the two sides as the derivative, as is
usual. The two differ in what the model computes on the way: behind a tie values jump, at a kink
they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.determinism import attempt
from hesspipe.objective.jumps import DISTANCES, SAME
from hesspipe.seeding import probe

# Relative change of a value that counts as a jump: over the distances, smooth ones change less.
_NOTABLE = 1e-6
# Functions that select by other arguments than the values. What else jumps, such as the sign of
# zeros or a normalized vector of them, is no selection.
_SELECTING = {
    "__getitem__", "gather", "index_select", "take", "take_along_dim", "where", "masked_select",
    "masked_fill", "index_add", "index_copy", "index_put", "scatter", "scatter_add", "embedding",
}  # fmt: skip


@dataclass(frozen=True)
class _Value:
    """What is kept of a value: its shape, a random sum of its entries, and their norm."""

    name: str
    is_selected: bool
    shape: tuple[int, ...]
    total: float
    size: float


def refuse_tie(
    evaluate: Callable[[Tensor], Tensor], theta: Tensor, direction: Tensor, place: str
) -> None:
    """Raise an error if values jump at the parameters on the way to a loss.

    Parameters
    ----------
    evaluate : callable (theta) -> scalar Tensor
    theta : Tensor, shape (P,)
        In float64: a steep function could not be told from a jump over longer distances.
    direction : Tensor, shape (P,)
        A random change of the parameters, each by its own size.
    place : str
        What the loss is computed on, for the message.

    Raises
    ------
    NotTwiceDifferentiableError
    """
    here = attempt(lambda: _values(evaluate, theta))
    for side in (1, -1):
        jump, there = None, []
        for distance in DISTANCES[theta.dtype]:  # the first one serves where nothing jumps
            point = torch.add(theta, direction, alpha=side * distance)
            there.append(attempt(lambda: _values(evaluate, point)))  # noqa: B023 (called at once)
            is_known = here is not None and there[-1] is not None
            jump = _first_jump(here, there) if is_known else None
            if jump is None:
                break
        if jump is not None and jump.is_selected:
            raise NotTwiceDifferentiableError(
                "the gradient must be continuous at the parameters, got values of "
                f"{jump.name} that jump there, on {place}; where a selection such as topk, argmax "
                "or sort is tied there is no Hessian, also behind a gate of zeros: move the "
                "parameters by a small random step, e.g. start a router at random, or leave them "
                "out by parameters="
            )


def _values(evaluate: Callable[[Tensor], Tensor], point: Tensor) -> list[_Value]:
    recorder = _Recorder()
    with torch.enable_grad(), recorder:
        evaluate(point.detach().requires_grad_())
    return recorder.values


def _first_jump(here: Any, there: list[Any]) -> _Value | None:
    """Find the first value that changes by the same at all distances, if any."""
    first: _Value
    for first, *others in zip(here, *there, strict=False):
        if any((one.name, one.shape) != (first.name, first.shape) for one in others):
            is_same = len({(one.name, one.shape) for one in others}) == 1
            # Another way through the model.
            return replace(first, is_selected=True) if is_same else None
        changes = [one.total - first.total for one in others]
        size = _NOTABLE * max(one.size for one in (first, *others))
        ratios = [change / changes[0] if changes[0] else 0.0 for change in changes]
        if all(abs(change) > size for change in changes) and all(
            1 / SAME < ratio < SAME for ratio in ratios
        ):
            return first
    return None


class _Recorder(TorchFunctionMode):
    """Keeps what torch computes from the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[_Value] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(getattr(func, "__name__", func))
        # By a mask of numbers, too.
        is_selected = name in _SELECTING or (name == "mul" and not all(map(_has_graph, args)))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if _has_graph(part) and part.is_floating_point():
                numbers = part.detach()
                total, size = float((numbers * probe(numbers)).sum()), float(numbers.norm())
                self.values.append(_Value(name, is_selected, tuple(part.shape), total, size))
        return result


def _has_graph(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad

"""Losses taken from a training step: what it does beside computing the loss is refused."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode


class NoBackward(TorchFunctionMode):
    """Raises an error where a loss calls `backward`, which consumes its graph."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.backward:
            _refuse("loss.backward()")
        return func(*args, **(kwargs or {}))


def without_steps(optimizer: Optimizer) -> Optimizer:
    """Copy an optimizer, whose steps then raise an error instead of changing the caller's model.

    Examples
    --------
    >>> import torch
    >>> optimizer = without_steps(torch.optim.SGD([torch.ones(1)]))
    >>> optimizer.step()
    Traceback (most recent call last):
    ...
    ValueError: loss must only compute the loss, got a call of optimizer.step(); ...
    """
    found = copy.copy(optimizer)
    for name in ("step", "zero_grad"):
        vars(found)[name] = partial(_refuse, f"optimizer.{name}()")
    return found


def _refuse(call: str, *_: Any, **__: Any) -> None:
    raise ValueError(
        f"loss must only compute the loss, got a call of {call}; split the training step in two, "
        "and pass the part that returns the loss"
    )

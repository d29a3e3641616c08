"""Where in a model an operation runs: the full name of the module that calls it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["OperationFinder", "place_in", "place_of_error", "place_of_operation"]


def place_in(frames: Iterable[FrameType]) -> str:
    """Name the innermost module among the calls of a stack.

    Parameters
    ----------
    frames : iterable of frame
        From the innermost one on.

    Returns
    -------
    str
        " in layers.0.norm (LlamaRMSNorm)" with a space in front, or "" outside all modules.
    """
    owners = [frame.f_locals.get("self") for frame in frames]
    modules = [
        owner
        for owner in owners
        if isinstance(owner, nn.Module) and not type(owner).__module__.startswith("hesspipe.")
    ]
    if not modules:
        return ""
    kind = type(modules[0]).__name__
    names = {id(module): name for name, module in modules[-1].named_modules()}
    name = names.get(id(modules[0]))
    return f" in {name} ({kind})" if name else f" in {kind}"


def place_of_error(error: BaseException) -> str:
    """Name the innermost module that an error passed; "" if it is the model or the loss."""
    frames: list[FrameType] = []
    step: TracebackType | None = error.__traceback__
    while step is not None:
        frames.insert(0, step.tb_frame)
        step = step.tb_next
    place = place_in(frames)
    return place if place.endswith(")") else ""


def place_of_operation(frame: FrameType | None) -> str:
    """Name the innermost module that is running now; see `place_in`."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return place_in(frames)


class OperationFinder(TorchFunctionMode):
    """Finds the first module that calls an operation.

    Parameters
    ----------
    node : str
        The operation as torch's errors name its derivative, e.g. "aten::hardsigmoid_backward".

    Attributes
    ----------
    place : str
        As `place_in` returns it.
    """

    def __init__(self, node: str) -> None:
        super().__init__()
        self._name = node.split("::")[-1].removesuffix("_backward").strip("_")
        self.place = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.place and getattr(func, "__name__", "").strip("_") == self._name:
            self.place = place_of_operation(sys._getframe())
        return func(*args, **(kwargs or {}))

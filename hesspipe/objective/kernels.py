"""Kernels and global settings of torch under which a model can be differentiated twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint


@contextmanager
def twice_differentiable_kernels(device: torch.device) -> Iterator[None]:
    """Disable fused attention, the fused encoder layer, checkpoints, compilation and autocast.

    Fused attention has no second derivative; the fused encoder layer is used only without
    gradients, and there gives other results for padded tokens; a checkpoint would compute its part
    again in the backward pass, with the parameters that the modules have then instead of theta;
    compiled code has no second derivative.
    All are global settings, and are restored.
    """
    is_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast(device.type, enabled=False),
            _plain_checkpoints(),
            _no_compilation(),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)


def _no_compilation() -> AbstractContextManager[Any]:
    """Let functions that `torch.compile` has wrapped run as they were written."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing it takes seconds
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def _plain_checkpoints() -> Iterator[None]:
    """Let `torch.utils.checkpoint` call its function only.

    Replaced is what `checkpoint` looks up when it is called, as models import it by name.
    """
    names = {
        "CheckpointFunction": _PlainCheckpoint,
        "_checkpoint_without_reentrant_generator": _plain_generator,
    }
    before = {name: getattr(checkpoint, name) for name in names}
    try:
        for name, replacement in names.items():
            setattr(checkpoint, name, replacement)
        yield
    finally:
        for name, original in before.items():
            setattr(checkpoint, name, original)


class _PlainCheckpoint:
    """Stands for `CheckpointFunction`."""

    @staticmethod
    def apply(function: Callable[..., Any], _: bool, *args: Any) -> Any:
        return function(*args)


def _plain_generator(
    function: Callable[..., Any], preserve: bool, context_fn: Callable[[], Any], *_: Any, **__: Any
) -> Iterator[None]:
    """Stand for the two halves of a checkpoint, around the call of its function."""
    with context_fn()[0]:
        yield

"""Kernels and global settings of torch under which a model can be differentiated twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils import checkpoint

from hesspipe.process_settings import HeldSettings, Setting


@contextmanager
def twice_differentiable_kernels(device: torch.device) -> Iterator[None]:
    """Disable fused attention, the fused encoder layer, checkpoints, compilation and autocast.

    Fused attention has no second derivative; the fused encoder layer is used only without
    gradients, and there gives other results for padded tokens; a checkpoint would compute its part
    again in the backward pass, with the parameters that the modules have then instead of theta;
    compiled code has no second derivative.
    All but autocast are settings of the whole process, and are restored when no thread needs them.
    """
    is_autocast = torch.is_autocast_enabled(device.type)
    with (
        _KERNELS.held(),
        torch.autocast(device.type, enabled=False) if is_autocast else nullcontext(),
        _no_compilation(),
    ):
        yield


def _no_compilation() -> AbstractContextManager[Any]:
    """Let functions that `torch.compile` has wrapped run as they were written."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing it takes seconds
        return nullcontext()
    return _STANCE.held()


def _stance() -> list[Setting]:
    """How compiled functions run: `torch.compiler.set_stance` is restored by its own thread."""
    from torch._dynamo import eval_frame

    eager = eval_frame.DynamoStance("force_eager")
    return [Setting(lambda: eval_frame._stance, eval_frame._set_stance, eager)]


def _kernels() -> list[Setting]:
    """Kernels of attention and of the encoder layer, and what checkpoints look up in their module.

    Models import `checkpoint` itself by name.
    """
    cuda, mha, private = torch.backends.cuda, torch.backends.mha, torch._C
    replaced = {
        "CheckpointFunction": _PlainCheckpoint,
        "_checkpoint_without_reentrant_generator": _plain_generator,
    }
    return [
        Setting(mha.get_fastpath_enabled, mha.set_fastpath_enabled, False),
        Setting(cuda.math_sdp_enabled, cuda.enable_math_sdp, True),
        Setting(cuda.flash_sdp_enabled, cuda.enable_flash_sdp, False),
        Setting(cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, False),
        Setting(cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, False),
        Setting(private._get_overrideable_sdp_enabled, private._set_sdp_use_overrideable, False),
        *(
            Setting(partial(getattr, checkpoint, name), partial(setattr, checkpoint, name), plain)
            for name, plain in replaced.items()
        ),
    ]


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


_KERNELS = HeldSettings(_kernels)
_STANCE = HeldSettings(_stance)

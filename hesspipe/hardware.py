"""The machine: memory forecasts, and the device to compute on.

Importing this module does not load torch, so that a workflow can plan its jobs without it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hesspipe.errors import TooLargeError

if TYPE_CHECKING:
    import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")
# The control device that NVIDIA's driver makes wherever it is loaded.
_DRIVER = Path("/dev/nvidiactl")


def available_bytes() -> int:
    """Return the memory that a new array may take: what is free, within the control group's limit.

    Batch systems and containers limit the control group of a job, which the figure for the whole
    machine does not show.
    """
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text().strip()
        used = (CONTROL_GROUP / "memory.current").read_text().strip()
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - int(used))


def require(num_bytes: int, what: str, advice: str) -> None:
    """Raise an error if an allocation would not fit into memory.

    Parameters
    ----------
    num_bytes : int
        Forecast of the allocation.
    what : str
        What needs the memory, e.g. "the hessian of P = 4270 parameters".
    advice : str
        What to do instead.

    Raises
    ------
    TooLargeError
        If less is available.
    """
    available = available_bytes()
    if num_bytes > available:
        raise TooLargeError(
            f"{what} needs {num_bytes / 2**30:,.1f} GiB of memory, and "
            f"{available / 2**30:,.1f} GiB are available; {advice}"
        )


def has_gpu() -> bool:
    """Return whether jobs will run on a GPU: $HESSPIPE_DEVICE names one, or one is present."""
    name = os.environ.get("HESSPIPE_DEVICE")
    return name.startswith("cuda") if name else _DRIVER.exists()


def pick_device() -> torch.device:
    """Select the device at run time: $HESSPIPE_DEVICE if set, else the first GPU, else the CPU.

    Raises
    ------
    ValueError
        If the variable names a device that torch cannot use on this machine.
    """
    import torch

    name = os.environ.get("HESSPIPE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"HESSPIPE_DEVICE must name a usable device such as 'cpu' or 'cuda:0', got {name!r} "
            f"({error})"
        ) from None
    return device


@contextlib.contextmanager
def exact_kernels() -> Iterator[None]:
    """Make convolutions on a GPU reproducible, and in float32 compute them in full precision.

    By default cuDNN may sum in a different order in each run, and rounds factors to 10 bits.
    """
    import torch

    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield

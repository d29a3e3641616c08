"""Groups of processes as `torch.distributed` has them, and whether their members live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psutil
import torch.distributed as dist

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Groups on the CPU, for groups that reach GPUs only.
_ON_CPU: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def rank_in(group: ProcessGroup) -> int:
    """Return the rank of this process in a group; raise ValueError if it has none."""
    is_ready = dist.is_available() and dist.is_initialized()
    if not is_ready or not isinstance(group, dist.ProcessGroup):
        raise ValueError(
            "process_group must be a group of torch.distributed, after init_process_group, got "
            f"{group!r}; torch.distributed.group.WORLD is that of all processes"
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError("process_group must have this process as a member, got one without it")
    return rank


def has_cpu(group: ProcessGroup) -> bool:
    """Whether a group exchanges tensors on the CPU."""
    return "cpu:" in dist.get_backend_config(group)


def on_cpu(group: ProcessGroup, ranks: list[int]) -> ProcessGroup:
    """Make a group of gloo with the same processes, once."""
    if group not in _ON_CPU:
        _ON_CPU[group] = dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
    found: ProcessGroup = _ON_CPU[group]
    return found


def is_alive(number: int, begun: float) -> bool:
    """Return whether a process of this machine, known by number and start, has not ended."""
    try:
        process = psutil.Process(number)
        is_same = abs(process.create_time() - begun) < 1
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

"""Forecasts of memory, checked before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import psutil

from hesspipe.errors import TooLargeError

CONTROL_GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Memory that a new array may take: what is free, within the control group's limit.

    Batch systems and containers limit a job's control group, of which the machine's own
    figure knows nothing.
    """
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text().strip()
        used = (CONTROL_GROUP / "memory.current").read_text().strip()
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - int(used))


def require(num_bytes: int, what: str, way_out: str) -> None:
    """Refuse what would not fit.

    Parameters
    ----------
    num_bytes : int
        The forecast.
    what : str
        What needs it, e.g. "the hessian of P = 4270 parameters".
    way_out : str
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
            f"{available / 2**30:,.1f} GiB are available; {way_out}"
        )

"""Runs a function in several processes of a gloo group on this machine."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Importing torch takes seconds: one process does it, and the others are forked from it.
_CONTEXT: Any = multiprocessing.get_context("forkserver")
_PRELOADED = ["torch.distributed", "hesspipe.curvature.spectra", "hesspipe.ranks.ranks", "problems"]
_TIMEOUT = 120.0


def run_in_ranks(function: Callable[..., Any], size: int, folder: Path, *args: Any) -> list[Any]:
    """Return what `function(rank, *args)` returns in each process; None of one that died."""
    multiprocessing.set_forkserver_preload(_PRELOADED)
    folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=folder))  # processes that met before leave a file
    processes = [
        _CONTEXT.Process(target=_run, args=(function, rank, size, str(folder), args))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_TIMEOUT)
    hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for rank in hanging:
        processes[rank].kill()
    assert not hanging, f"ranks {hanging} hang"
    paths = [folder / f"{rank}.pt" for rank in range(size)]
    found = [torch.load(path) if path.exists() else None for path in paths]
    for one in found:
        if isinstance(one, dict) and "traceback" in one:
            raise AssertionError(one["traceback"])
    return found


def _run(
    function: Callable[..., Any], rank: int, size: int, folder: str, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    try:
        found = function(rank, *args)
    except BaseException:
        found = {"traceback": f"in rank {rank}:\n{traceback.format_exc()}"}
    torch.save(found, f"{folder}/{rank}.pt")


def raised(function: Callable[[], Any]) -> tuple[list[str], str]:
    """Return the names of the classes of an error, and its message; of none if none is raised."""
    try:
        function()
    except BaseException as error:
        return [kind.__name__ for kind in type(error).__mro__], str(error)
    return [], ""

"""Kill a process at a chosen change of a file."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What changes the names and contents of files; pathlib, shutil and tempfile end in these.
CHANGES = ("fsync", "link", "mkdir", "open", "rename", "replace", "rmdir", "truncate", "unlink")


def run_and_kill(work: Callable[[], Any], number: int) -> bool:
    """Run some work in a child process, and kill it before its change of a file of this number.

    Returns
    -------
    bool
        Whether it was killed: False if the work has fewer changes.
    """
    child = os.fork()
    if child == 0:
        try:
            _die_before(number)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _die_before(number: int) -> None:
    made = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            if made == number:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            return function(*arguments, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def contents(folder: str | Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }

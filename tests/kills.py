"""Kill a process at a chosen change of a file."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What changes the names and contents of files; pathlib, shutil and tempfile end in these.
CHANGES = ("fsync", "link", "mkdir", "open", "rename", "replace", "rmdir", "truncate", "unlink")


def some_changes(work: Callable[[], Any], num_early: int, num_late: int) -> list[int]:
    """Run some work, and choose among its changes of a file: a few early ones, and the last."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        made = _count(lambda number: None)
        work()
        os.write(writing, str(len(made)).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    total = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    first_late = total - num_late
    return [*range(0, first_late, first_late // num_early), *range(first_late, total)]


def run_and_kill(work: Callable[[], Any], number: int) -> bool:
    """Run some work in a child process, and kill it before its change of a file of this number.

    Returns
    -------
    bool
        Whether it was killed: False if the work has fewer changes.
    """

    def kill(made: int) -> None:
        if made == number:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            _count(kill)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _count(before: Callable[[int], None]) -> list[str]:
    """Call something before each change of a file; the result lists the changes that were made."""
    made: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before(len(made))
            made.append(name)
            return function(*arguments, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(name, getattr(os, name)))
    return made


def contents(folder: str | Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }

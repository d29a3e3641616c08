"""Unfinished work on the disk: which process has it, what a killed one left, and how it ends.

The state of a computation is a file or a folder below `.hesspipe`, or below $HESSPIPE_STATE where
the working folder does not outlive a job. It is read and written under a lock, which the
kernel releases when the process ends, however it ends. A state is removed by renaming it first, so
that a kill never leaves a part of it under its name.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from hesspipe.errors import InUseError, UnwritableFileError

# Seconds for another process to end, e.g. one that is being terminated.
_PATIENCE = 5.0
_SHOWN_LENGTH = 200  # of a command, in characters


def state_root() -> Path:
    """Name the folder of all states: $HESSPIPE_STATE if it is set, else `.hesspipe`."""
    return Path(os.environ.get("HESSPIPE_STATE") or ".hesspipe")


@contextlib.contextmanager
def lock(state: str | Path) -> Iterator[None]:
    """Hold a state for this process alone; may be nested.

    The file `<state>.lock` says which process holds it, and is removed at the end. One that a
    killed process left is taken over.

    Parameters
    ----------
    state : str or Path
        A file or a folder, which need not exist.

    Raises
    ------
    InUseError
        If another process holds it.
    UnwritableFileError
        If the lock cannot be written, e.g. on a full disk.
    """
    path = Path(f"{Path(state).absolute()}.lock")
    held = FileLock(path, is_singleton=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=_PATIENCE)
    except Timeout:
        raise InUseError(state, _holder(path)) from None
    except OSError as error:
        raise UnwritableFileError(path, error, "nothing was begun") from None
    try:
        if held.lock_counter == 1:
            _sign(path, held)
        yield
    finally:
        if held.lock_counter == 1:
            # Before the release: who waits for the lock sees that the file has gone.
            path.unlink(missing_ok=True)
        held.release()


def _sign(path: Path, held: BaseFileLock) -> None:
    """Write which process has the lock; on a disk without locks, the library does it."""
    if isinstance(held, SoftFileLock):
        return
    command = " ".join(shlex.join(sys.orig_argv).split())[:_SHOWN_LENGTH]
    try:
        path.write_text(
            f"process {os.getpid()} on {socket.gethostname()} ({command})", encoding="utf-8"
        )
    except OSError as error:
        raise UnwritableFileError(path, error, "nothing was begun") from None


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") or "another process"
    except OSError:
        return "another process"


def remove(path: Path) -> None:
    """Remove a file, or a folder in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_state(state: Path) -> None:
    """Remove a state that is not needed: a kill leaves all of it, or none under its name."""
    remove_leftovers_of(state)
    if state.exists():
        remove(state.rename(_removed(state)))


def remove_leftovers_of(state: Path) -> None:
    """Remove what killed processes left beside a state; call it under its lock.

    These are temporary files of a state that is a file, and what `remove_state` renamed.
    """
    for leftover in state.parent.glob(f".{glob.escape(state.name)}.*"):
        remove(leftover)


def put_aside(state: Path) -> Path:
    """Rename a state that cannot be used, so that nothing is lost; return its new path."""
    names = (Path(f"{state}.damaged{number or ''}") for number in itertools.count())
    return state.rename(next(name for name in names if not name.exists()))


def _removed(state: Path) -> Path:
    return state.with_name(f".{state.name}.removed")

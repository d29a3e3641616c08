"""Temporary files that are recognized and removed after the process that wrote them was killed.

A file that will be called NAME.EXT is first written in the same folder as .NAME.EXT.0.tmp.EXT, and
its writer holds a lock on it (``flock``) until it is renamed. The system drops the lock when the
process ends, by whatever signal. A file of such a name is therefore in use if it is locked, and a
leftover if it is not, on whichever machine or in whichever container its writer ran; no number of a
process is compared, as these are used again. The next writer of the same file removes the leftover,
and each run of the workflow removes those in its folders. Two writers of one file at once get the
numbers 0 and 1. On a disk without locks, leftovers stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

_NAME = re.compile(r"\.(?P<result>.+)\.\d+\.tmp(?P<suffix>\.[^.]+)?")
# They end a process by default; a batch system or a closed terminal sends them.
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield the path of a new temporary file in an existing folder; afterwards it is removed.

    A signal that ends the process, such as SIGTERM, does so after the removal.

    Parameters
    ----------
    path : Path
        What the file will be called. If the block renames it, nothing is left to remove.

    Raises
    ------
    OSError
        If it cannot be created.
    """
    with _ending_signals_unwind():
        temporary, descriptor = _create(path)
        try:
            yield temporary
        finally:
            # Another process may have the name by now, if the block has renamed this file.
            with contextlib.suppress(OSError):
                if _is_at(descriptor, temporary):
                    temporary.unlink(missing_ok=True)
            os.close(descriptor)


def remove_leftovers(folders: Iterable[str | Path]) -> list[str]:
    """Remove the temporary files that killed processes have left in some folders, at any depth.

    Those of living processes stay, and so do all that cannot be removed.

    Returns
    -------
    list of str
        The files that were removed.
    """
    return [
        os.path.join(folder, name)
        for root in folders
        for folder, _, names in os.walk(root)
        for name in names
        if _is_temporary(name) and _removed(Path(folder, name))
    ]


def _is_temporary(name: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and Path(match["result"]).suffix == (match["suffix"] or "")


def _create(path: Path) -> tuple[Path, int]:
    """Create and lock a temporary file."""
    number = 0
    while True:
        temporary = path.with_name(f".{path.name}.{number}.tmp{path.suffix}")
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o666)
        except FileExistsError:
            number += not _removed(temporary)
            continue
        with contextlib.suppress(OSError):  # no locks, or taken by a process that removes it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, temporary):
            return temporary, descriptor
        os.close(descriptor)


def _removed(temporary: Path) -> bool:
    """Remove a temporary file that no process has locked; return whether that was done."""
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, temporary):
            temporary.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


@contextlib.contextmanager
def _ending_signals_unwind() -> Iterator[None]:
    """Raise at a signal that ends the process, and let it end the process after the block.

    Only here: a handler of Python runs when the present call returns, and a call of LAPACK may
    take an hour. Handlers that the program has set itself stay.
    """
    received: list[int] = []

    def unwind(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    defaults = [one for one in _ENDING if is_main and signal.getsignal(one) is signal.SIG_DFL]
    for one in defaults:
        signal.signal(one, unwind)
    try:
        yield
    finally:
        for one in defaults:
            signal.signal(one, signal.SIG_DFL)
        if received:
            os.kill(os.getpid(), received[0])

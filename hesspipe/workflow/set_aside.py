"""Files that are moved out of the way, so that Snakemake builds others in their place.

Nothing is lost by a kill at any moment: what is moved is told before, a file is under its old name
until it is whole under the new one, and no file that was set aside earlier is replaced by another.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hesspipe.files import atomic_path, digest

_STATE = Path(".hesspipe")
SET_ASIDE = _STATE / "set_aside"
_NUM_SHOWN = 3


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process moves files of the current folder, and keep others waiting.

    The lock is one of the system on a folder: a killed process leaves nothing. A disk without locks
    has none.
    """
    _STATE.mkdir(exist_ok=True)
    descriptor = os.open(_STATE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting for another process that looks at the files here", file=sys.stderr)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def set_aside(paths: Sequence[str], reason: str) -> None:
    """Say which files are moved below `SET_ASIDE` and why, then move them.

    Parameters
    ----------
    paths : sequence of str
        Relative to the current folder.
    reason : str
        What kind of files they are, e.g. "left over from another configuration".
    """
    if not paths:
        return
    shown = ", ".join(paths[:_NUM_SHOWN]) + (", ..." if len(paths) > _NUM_SHOWN else "")
    # At once: a kill must not come between the moves and this.
    print(
        f"set aside {len(paths)} files {reason}, in {SET_ASIDE}: {shown}",
        file=sys.stderr,
        flush=True,
    )
    for path in paths:
        _move(Path(path))


def remove_empty_folders() -> None:
    """Remove the empty folders that killed processes have left below `SET_ASIDE`, and itself."""
    for folder, _, _ in os.walk(SET_ASIDE, topdown=False):
        with contextlib.suppress(OSError):  # it is not empty
            os.rmdir(folder)


def _move(path: Path) -> None:
    target = _free_place(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or os.stat(path).st_dev == os.stat(target.parent).st_dev:
        path.replace(target)
    else:  # on another disk
        with atomic_path(target) as temporary:
            shutil.copy2(path, temporary)
        path.unlink()


def _free_place(path: Path) -> Path:
    """Find a name that nothing else has, in folders that no file is in the place of."""
    for number in itertools.count(1):
        root = SET_ASIDE if number == 1 else SET_ASIDE / str(number)
        target = root / path
        parents = [parent for parent in target.parents if parent.is_relative_to(_STATE)]
        if any(os.path.lexists(parent) and not parent.is_dir() for parent in parents):
            continue
        if not os.path.lexists(target) or _are_equal(path, target):
            return target
    raise AssertionError


def _are_equal(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and digest(one) == digest(other)

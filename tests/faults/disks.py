"""Run jobs on a disk that is full, out of names for files, or read-only, then on a mended one."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import forks
import tiny
from cases import Case, Verdict, expected_of, names, path_in, survived

_BALLAST = "logs/ballast"  # logs do not count
_NEW_USER, _NEW_NAMESPACE = 0x10000000, 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS
_PRIVATE, _RECURSIVE, _READ_ONLY, _REMOUNT = 1 << 18, 1 << 14, 1, 32
_PAGE = 4096


def plan(workshop: tiny.Workshop, number: int, draw: random.Random) -> Iterator[Case]:
    """Yield `number` runs of jobs of every kind in turn, on disks full at several levels."""
    jobs = list({job.kind: job for job in workshop.jobs}.values())
    draw.shuffle(jobs)
    undisturbed = {job.kind: expected_of(workshop, job)[0] for job in jobs}
    for count in range(number):
        job = jobs[count % len(jobs)]
        level = draw.choice(["read-only", "names", 0, 0, 1, 2, 3, 4, 6, 9, 13, 20])
        body = partial(_on_disk, workshop, job, undisturbed[job.kind], level)
        what = {"read-only": "read-only", "names": "no names for files left"}.get(
            str(level), f"{level} free pages"
        )
        kind = "disks without space" if isinstance(level, int) else f"disks: {what}"
        if not can_mount():
            kind, body = (
                "files that may not grow",
                partial(_limited, workshop, job, undisturbed[job.kind], level),
            )
        yield Case(kind, f"{job.name}: {what}", body)


@cache
def can_mount() -> bool:
    """Whether this process may mount a small disk in memory."""
    return forks.run(partial(_mount, Path.cwd(), 1), Path.cwd()).code == 0


def _on_disk(
    workshop: tiny.Workshop, job: tiny.Job, expected: dict[str, str], level: int | str, name: str
) -> Verdict:
    """Run a job on a small disk that this process alone sees, then with enough space."""
    folder = workshop.root / name
    folder.mkdir(exist_ok=True)
    _mount(folder, 0)
    workshop.before(job, name)
    for path in job.outputs:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    _fill(folder, level)
    ended = job.run(folder)
    if level == "read-only":
        _remount(folder, 0)
    (folder / _BALLAST).unlink(missing_ok=True)
    shutil.rmtree(folder / "logs/names", ignore_errors=True)
    return _again(job, folder, expected, ended)


def _limited(
    workshop: tiny.Workshop, job: tiny.Job, expected: dict[str, str], level: int | str, name: str
) -> Verdict:
    """Run a job that may write small files only; where nothing can be mounted."""
    folder = workshop.before(job, name)
    size = level * 256 if isinstance(level, int) else 100
    ended = job.run(folder, before=partial(forks.forbid_large_files, size))
    return _again(job, folder, expected, ended)


def _again(job: tiny.Job, folder: Path, expected: dict[str, str], ended: forks.Ended) -> Verdict:
    """Judge the message of a job, and run it again now that nothing hinders it."""
    again = job.run(folder)
    if again.code:
        return Verdict("failed", f"{ended.line}; then {again.line}")
    verdict = survived(folder, expected)
    if verdict.outcome == "failed" or ended.code == 0:
        return verdict
    wrong = names(ended, path_in(ended.message) or "-")
    return Verdict("failed", wrong) if wrong else Verdict("told", ended.line)


def _mount(folder: Path, flags: int) -> None:
    """Mount a small disk in memory, seen by this process and its children only."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_NAMESPACE) and libc.unshare(_NEW_USER | _NEW_NAMESPACE):
        raise OSError(ctypes.get_errno(), "no namespace of mounts")
    if user:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
    options = b"size=8m,nr_inodes=2000,mode=0755"
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options):
        raise OSError(ctypes.get_errno(), "no disk in memory")


def _remount(folder: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = b"size=8m,nr_inodes=2000"
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", _REMOUNT | flags, options):
        raise OSError(ctypes.get_errno(), "cannot mount again")


def _fill(folder: Path, level: int | str) -> None:
    """Leave so many pages free, or no names for files, or forbid to write."""
    if level == "read-only":
        _remount(folder, _READ_ONLY)
    elif level == "names":
        (folder / "logs/names").mkdir()
        for number in range(os.statvfs(folder).f_favail - 2):
            (folder / f"logs/names/{number}").touch()
    else:
        with (folder / _BALLAST).open("wb", buffering=0) as file:
            room = os.statvfs(folder).f_bavail - int(level)
            file.write(bytes(max(room, 0) * _PAGE))

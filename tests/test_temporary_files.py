"""Temporary files: removed by signals, recognized after kills, never taken from a living writer."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hesspipe.files import atomic_path, write_text
from hesspipe.temporary_files import remove_leftovers

REPOSITORY = Path(__file__).parents[1]
WRITE_AND_WAIT = """
import resource, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored below nohup, as SIGINT is in the background
signal.signal(signal.SIGINT, signal.default_int_handler)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGXCPU would write one, slowly
from hesspipe.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half of")
    print("written", flush=True)
    for _ in range(600):  # a signal just before one long sleep would not end it
        time.sleep(0.1)
"""


def die_while_writing(path: Path, number: signal.Signals) -> int:
    """Kill another process in the middle of a file, and return its exit code."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(path)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "written\n"
        assert [file.name for file in path.parent.iterdir() if file.name != path.name]
        child.send_signal(number)
        return child.wait(60)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGXCPU", "SIGINT", "SIGKILL"])
def test_signal_ends_a_writer_by_itself_and_leaves_nothing_for_the_next(
    tmp_path: Path, name: str
) -> None:
    path, number = tmp_path / "result.parquet", signal.Signals[name]
    path.write_text("old")
    assert die_while_writing(path, number) == -number
    left = {file.name for file in tmp_path.iterdir()} - {path.name}
    assert len(left) == (name == "SIGKILL")
    assert path.read_text() == "old"
    write_text("new", path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "new"


def test_remove_leftovers_removes_those_of_killed_writers_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    dead, alive = tmp_path / "deep" / "dead.bin", tmp_path / "deep" / "alive.bin"
    die_while_writing(dead, signal.SIGKILL)
    [left] = (tmp_path / "deep").iterdir()
    with atomic_path(alive) as temporary:
        temporary.write_text("alive")
        assert remove_leftovers([tmp_path, tmp_path / "absent"]) == [str(left)]
    assert alive.read_text() == "alive"
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["alive.bin"]


@pytest.mark.parametrize(
    "name",
    [
        "result.txt", ".result.txt", ".result.txt.swp", ".result.0.tmp.txt", "r.txt.0.tmp.txt",
        ".result.txt.x.tmp.txt", ".result.txt.0.tmp.csv", ".result.txt.0.tmp", ".gitignore",
    ],
)  # fmt: skip
def test_remove_leftovers_keeps_files_of_other_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("of the user")
    assert remove_leftovers([tmp_path]) == []
    write_text("new", tmp_path / "result.txt")
    assert name == "result.txt" or (tmp_path / name).read_text() == "of the user"


def test_writer_starts_again_when_its_file_is_removed_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_path(tmp_path / "result.txt") as temporary:
        temporary.write_text("whole")
        assert remove_leftovers([tmp_path]) == []  # the second file is locked
    assert len(removed) == 1
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]


def test_writers_on_a_disk_without_locks_never_share_or_remove_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    path = tmp_path / "result.txt"
    with atomic_path(path) as one, atomic_path(path) as other:
        assert one != other
        assert remove_leftovers([tmp_path]) == []
        one.write_text("one")
        other.write_text("other")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["one"]


def test_writer_keeps_the_handlers_of_its_program(tmp_path: Path) -> None:
    def own(number: int, frame: Any) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    other = signal.getsignal(signal.SIGHUP)
    try:
        with atomic_path(tmp_path / "result.txt") as temporary:
            assert signal.getsignal(signal.SIGTERM) is own
            temporary.write_text("whole")
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGHUP) is other
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "result.txt").read_text() == "whole"

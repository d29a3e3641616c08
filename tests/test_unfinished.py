"""Locks, leftovers, and the removal of unfinished work."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from kills import contents, run_and_kill

from hesspipe import unfinished
from hesspipe.errors import InUseError, UnwritableFileError
from hesspipe.unfinished import lock, put_aside, remove_leftovers_of, remove_state


def in_child(work: Callable[[], None], ready: Path) -> int:
    """Run some work in a child process until it is killed, and return when it is ready."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    while not ready.exists():
        time.sleep(0.001)
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.fixture(autouse=True)
def _without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "_PATIENCE", 0.05)


def hold(state: Path, ready: Path) -> None:
    with lock(state):
        ready.touch()
        time.sleep(60)


def test_lock_names_the_process_that_has_it_and_is_free_when_that_is_killed(tmp_path: Path) -> None:
    state, ready = tmp_path / "deep" / "state", tmp_path / "ready"
    child = in_child(lambda: hold(state, ready), ready)
    try:
        with pytest.raises(InUseError) as told, lock(state):
            pytest.fail("two processes have the state")
        message = str(told.value)
        assert message.startswith(f"{state} is in use by process {child} on {socket.gethostname()}")
        assert "pytest" in message
        assert "\n" not in message
        assert str(child) in Path(f"{state}.lock").read_text()
        with lock(tmp_path / "deep" / "another"):
            pass
    finally:
        end(child)
    with lock(state):
        assert str(os.getpid()) in Path(f"{state}.lock").read_text()
    assert os.listdir(state.parent) == []


def test_lock_may_be_nested_under_any_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with lock("state"), lock(tmp_path / "state"):
        pass
    with lock("state"):
        with lock(Path("state")):
            pass
        assert os.listdir() == ["state.lock"]  # the outer one still has it
    assert os.listdir() == []


def test_lock_is_released_by_an_error(tmp_path: Path) -> None:
    for error in (RuntimeError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), lock(tmp_path / "state"):
            raise error
    assert os.listdir(tmp_path) == []


def test_lock_waits_a_moment_for_a_process_that_is_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "_PATIENCE", 30.0)
    state, ready = tmp_path / "state", tmp_path / "ready"

    def hold_for_a_moment() -> None:
        with lock(state):
            ready.touch()
            time.sleep(0.2)

    child = in_child(hold_for_a_moment, ready)
    with lock(state):
        assert str(os.getpid()) in Path(f"{state}.lock").read_text()
    os.waitpid(child, 0)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"process 1 on elsewhere (python)"])
def test_lock_takes_over_what_a_dead_process_left(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.lock").write_bytes(content)
    with lock(tmp_path / "state"):
        assert str(os.getpid()) in (tmp_path / "state.lock").read_text()
    assert os.listdir(tmp_path) == []


def make_state(folder: Path) -> Path:
    state = folder / "state"
    state.mkdir()
    for name in ("a", "b", "c"):
        (state / name).write_text(name)
    return state


def test_remove_state_that_is_killed_leaves_all_of_it_or_nothing_under_its_name(
    tmp_path: Path,
) -> None:
    number, left = 0, set()
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        state = make_state(folder)
        before = contents(state)
        was_killed = run_and_kill(lambda state=state: remove_state(state), number)  # type: ignore[misc]
        assert not state.exists() or contents(state) == before
        left.add((state.exists(), bool(os.listdir(folder))))
        remove_leftovers_of(state)
        assert os.listdir(folder) == (["state"] if state.exists() else [])
        if not was_killed:
            break
        number += 1
    assert left == {(True, True), (False, True), (False, False)}


def test_remove_leftovers_of_a_state_touches_nothing_else(tmp_path: Path) -> None:
    mine = [".state.safetensors.0.tmp.safetensors", ".state.safetensors.removed"]
    others = [
        "state.safetensors", "state.safetensors.damaged", "state.safetensors.lock",
        ".state2.safetensors.0.tmp.safetensors", ".other.safetensors.removed", ".state",
        "state.safetensors.0.tmp", ".xstate.safetensors.removed",
    ]  # fmt: skip
    for name in mine + others:
        (tmp_path / name).write_text("")
    remove_leftovers_of(tmp_path / "state.safetensors")
    assert set(os.listdir(tmp_path)) == set(others)


def test_remove_leftovers_of_a_state_takes_its_name_literally(tmp_path: Path) -> None:
    for name in (".s[at]*.removed", ".sa.removed"):
        (tmp_path / name).write_text("")
    remove_leftovers_of(tmp_path / "s[at]*")
    assert os.listdir(tmp_path) == [".sa.removed"]


def test_put_aside_keeps_every_content(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for content in ("one", "two", "three"):
        state.write_text(content)
        assert put_aside(state).read_text() == content
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["one", "three", "two"]


def test_lock_on_a_disk_without_locks_is_freed_by_the_death_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    state, ready = tmp_path / "state", tmp_path / "ready"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no locks
        child = in_child(lambda: hold(state, ready), ready)
        try:
            with pytest.raises(InUseError, match=str(child)), lock(state):
                pytest.fail("two processes have the state")
        finally:
            end(child)
        monkeypatch.setattr(unfinished, "_PATIENCE", 5.0)
        with lock(state):
            pass
    assert os.listdir(tmp_path) == ["ready"]


@pytest.mark.parametrize("function", ["open", "mkdir"])
def test_lock_that_cannot_be_written_is_named(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(os, function, full)
    with (
        pytest.raises(UnwritableFileError, match=r"new/state.lock could not be written .* Free"),
        lock(tmp_path / "new" / "state"),
    ):
        pytest.fail("the lock is not there")

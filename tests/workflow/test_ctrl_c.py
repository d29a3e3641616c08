"""Ctrl-C while batch jobs go on: each way in which a second signal can come."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hesspipe.workflow import ctrl_c
from hesspipe.workflow.ctrl_c import CtrlC


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def handler() -> CtrlC:
    found = CtrlC()
    found.listen()
    return found


def _interrupt(number: int = 1) -> int:
    """Send signals; return how many were raised."""
    raised = 0
    for _ in range(number):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raised += 1
    return raised


@pytest.mark.parametrize("number", [1, 2, 7])
def test_of_several_ctrl_c_one_is_raised(
    handler: CtrlC, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _interrupt(number) == 1
    assert capfd.readouterr().err.count("wait for some seconds\n") == number - 1


def test_none_is_raised_while_jobs_are_cancelled_nor_soon_after(handler: CtrlC) -> None:
    with handler.held():
        assert _interrupt(3) == 0
    assert _interrupt(3) == 0


def test_none_is_raised_soon_after_a_cancelling_that_failed(handler: CtrlC) -> None:
    with contextlib.suppress(OSError), handler.held():
        raise OSError
    assert _interrupt() == 0


@pytest.mark.parametrize("is_held", [True, False])
def test_it_is_raised_again_where_nothing_has_come_of_the_first(
    handler: CtrlC, is_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(ctrl_c.time, "monotonic", lambda: now[0])
    if is_held:
        with handler.held():
            now[0] += 1000
    else:
        assert _interrupt() == 1
    now[0] += ctrl_c._WAKE - 1
    assert _interrupt() == 0
    now[0] += 2
    assert _interrupt() == 1


@pytest.mark.parametrize("other", [signal.SIG_IGN, lambda number, frame: None])
def test_the_handler_of_someone_else_stays(other: Any) -> None:
    signal.signal(signal.SIGINT, other)
    CtrlC().listen()
    assert signal.getsignal(signal.SIGINT) is other


def test_a_thread_leaves_the_handler_alone() -> None:
    thread = threading.Thread(target=CtrlC().listen)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

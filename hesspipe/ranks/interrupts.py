"""Ctrl-C that does not come between two processes that exchange numbers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def late_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt after an exchange, so that none waits for this process.

    The second one is raised at once.
    """
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not callable(handler) or getattr(handler, "is_late", False):
        yield
        return
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) > 1:
            handler(number, frame)

    note.is_late = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if noted:
        handler(signal.SIGINT, None)

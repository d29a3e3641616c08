"""Ctrl-C during a run whose jobs go on elsewhere: once it is heard, it must end them all."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_WAKE = 10.0  # seconds in which another Ctrl-C is one of the same
_LINE = b"The batch jobs of this run are being cancelled: wait for some seconds\n"
_STDERR = 2


class CtrlC:
    """A handler of SIGINT that raises `KeyboardInterrupt` once, and answers impatience by a line.

    A second exception would end Snakemake between the first and the cancelling of its jobs, or
    before it has removed its lock. It is raised again where nothing has come of the first, as of
    one that arrives in a destructor.
    """

    def __init__(self) -> None:
        self._heard = -math.inf
        self._is_busy = False

    def listen(self) -> None:
        """Become the handler, where Ctrl-C is neither ignored nor someone else's."""
        is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let no Ctrl-C come between, nor soon after."""
        self._is_busy = True
        try:
            yield
        finally:
            self._heard = time.monotonic()
            self._is_busy = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Hear a signal."""
        now = time.monotonic()
        if self._is_busy or now - self._heard < _WAKE:
            # Not by the logger, whose lock the interrupted code may hold.
            os.write(_STDERR, _LINE)
            return
        self._heard = now
        raise KeyboardInterrupt

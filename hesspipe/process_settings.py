"""Settings of the whole process, changed while any of its threads needs it.

Most settings of torch hold for all threads. If each thread saved and restored them on its own, one
that starts later would save what an earlier one has set, and restore that for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child of another thread must not find it taken
    os.register_at_fork(
        before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release
    )


class Setting(NamedTuple):
    """A setting: how it is read and written, and the value that is needed."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    needed: Any


class HeldSettings:
    """Settings that have their needed values as long as any thread holds them.

    Parameters
    ----------
    find : callable () -> sequence of Setting
        Called when nothing holds them yet.

    Examples
    --------
    >>> values = {"precision": "low"}
    >>> precision = Setting(
    ...     lambda: values["precision"], lambda value: values.update(precision=value), "high"
    ... )
    >>> with HeldSettings(lambda: [precision]).held():
    ...     values["precision"]
    'high'
    >>> values["precision"]
    'low'
    """

    def __init__(self, find: Callable[[], Sequence[Setting]]) -> None:
        self._find = find
        self._settings: Sequence[Setting] = []
        self._before: list[Any] = []
        self._num_holders = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Give the settings their needed values; the last that holds them restores the others."""
        with _LOCK:
            if not self._num_holders:
                self._settings = self._find()
                self._before = [setting.read() for setting in self._settings]
            self._num_holders += 1
            # Every time: a function of the caller may have changed them meanwhile.
            _write(self._settings, [setting.needed for setting in self._settings])
        try:
            yield
        finally:
            with _LOCK:
                self._num_holders -= 1
                if not self._num_holders:
                    _write(self._settings, self._before)


def _write(settings: Sequence[Setting], values: Sequence[Any]) -> None:
    for setting, value in zip(settings, values, strict=True):
        if setting.read() != value:
            setting.write(value)

"""Run Python in forked processes, which start without importing torch again, and kill them.

A process is killed at a random moment by its parent, or by itself just before its k-th change of a
file: Python announces each open for writing, rename, removal and change of permissions to an audit
hook. Writes to an open file are not announced; only temporary files, which are renamed later, are
open for long.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 120.0  # seconds, for what takes less than one
_CHANGES = {
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link",
    "os.symlink", "fcntl.flock", "fcntl.lockf",
}  # fmt: skip
_PR_SET_PDEATHSIG = 1  # Linux: a process ends when its parent does
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class Ended:
    """How a process ended.

    Attributes
    ----------
    code : int
        Its exit code; negative: the signal that killed it.
    error, message : str
        Class and text of the exception that ended it, else empty.
    value : object, JSON-like
        What the function returned.
    changes : list of str
        The changes of files that it announced, in order, where they were recorded.
    modules : list of str
        What it imported from outside its folder, where that was recorded.
    seconds : float
    """

    code: int
    error: str = ""
    message: str = ""
    value: Any = None
    changes: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_killed(self) -> bool:
        """Whether a signal ended it."""
        return self.code < 0

    @property
    def line(self) -> str:
        """The error in one line, or how it ended otherwise."""
        return f"{self.error}: {self.message}" if self.error else f"exit {self.code}"


class Process:
    """A function in a forked process, in a folder of its own.

    Parameters
    ----------
    body : callable
    folder : Path
        It runs there.
    die_at : int, optional
        It kills itself before this change of a file, counted from 1, with its process group if it
        has one of its own.
    record : bool
        List its changes of files, and its imports.
    group : bool
        Give it a process group of its own.
    """

    def __init__(
        self,
        body: Callable[[], Any],
        folder: Path,
        *,
        die_at: int = 0,
        record: bool = False,
        group: bool = False,
    ) -> None:
        self.started = time.monotonic()
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            if group:
                os.setpgid(0, 0)
            _run(body, folder, writer, die_at, record, group)
        os.close(writer)
        if group:
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(self.pid, self.pid)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    def has_ended(self) -> bool:
        """Whether it has."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Wait for its end; a process that does not end is killed."""
        report = b""
        while True:
            remaining = self.started + patience - time.monotonic()
            if not select.select([self._reader], [], [], max(remaining, 0.0))[0]:
                self.kill()
            elif part := os.read(self._reader, 1 << 16):
                report += part
            else:
                break
        os.close(self._reader)
        _, status = os.waitpid(self.pid, 0)
        found = json.loads(report) if report else {}
        seconds = time.monotonic() - self.started
        return Ended(os.waitstatus_to_exitcode(status), **found, seconds=seconds)


def run(body: Callable[[], Any], folder: Path, **options: Any) -> Ended:
    """Run a function in a forked process and wait for its end."""
    return Process(body, folder, **options).wait()


def run_script(arguments: Sequence[str]) -> None:
    """Do what `python <arguments>` does, from a script or with -m."""
    sys.argv = list(arguments)
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


def preload(modules: Sequence[str]) -> None:
    """Import modules, so that later forks have them already."""
    for name in modules:
        with contextlib.suppress(Exception):  # some exist only while another is imported
            importlib.import_module(name)
    # A collection in a fork would visit all that is in them, and so copy their pages: 0.24 s.
    gc.freeze()


def die_with_parent() -> None:
    """Let this process end when its parent does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forbid_large_files(num_bytes: int) -> None:
    """Let writes beyond a size fail, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


def _run(
    body: Callable[[], Any], folder: Path, writer: int, die_at: int, record: bool, group: bool
) -> None:
    """Be the child: never returns."""
    report: dict[str, Any] = {}
    code = 1
    try:
        die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        output = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(output, descriptor)
        before = set(sys.modules)
        changes = watch_changes(die_at, group=group) if die_at or record else []
        try:
            report["value"] = body()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException as error:
            report = {"error": type(error).__name__, "message": str(error)}
            if os.environ.get("FAULTS_TRACEBACKS"):
                report["message"] += "\n" + traceback.format_exc()
        if record:
            report |= {"changes": list(changes), "modules": _imported_since(before, folder)}
        with os.fdopen(writer, "w", encoding="utf-8") as file:
            json.dump(report, file)
    finally:
        os._exit(code)


def _imported_since(before: set[str], folder: Path) -> list[str]:
    """Names of the modules that were imported, but those of the user."""
    new = [name for name in list(sys.modules) if name not in before and name != "__mp_main__"]
    files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in new}
    return [name for name in new if not files[name].startswith(f"{folder}{os.sep}")]


def watch_changes(die_at: int, *, group: bool) -> list[str]:
    """List the changes of files below the current folder as they come, and kill at one of them.

    Parameters
    ----------
    die_at : int
        The number of this change, from 1; 0 for none.
    group : bool
        Kill the process group.
    """
    changes: list[str] = []
    folder = os.getcwd() + os.sep
    kill = os.killpg if group else os.kill

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else f"#{path}"
        if os.path.isabs(name) and not name.startswith(folder):
            return
        changes.append(f"{event} {name.removeprefix(folder)}")
        if len(changes) == die_at:
            kill(os.getpgrp() if group else os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return changes

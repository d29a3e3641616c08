"""Run tests in a forked process, which starts without importing torch again."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

_MEMORY = 8 * 2**30  # a mutant must not fill the machine
_ARGUMENTS = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line"]


def function_of(nodeid: str) -> str:
    """The test function of a test with parameters."""
    return re.sub(r"\[.*\]$", "", nodeid, flags=re.DOTALL)


class Selection:
    """Keeps some test functions, the fastest first, and remembers which failed."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds, self.failed = seconds, ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Select and order."""
        chosen = [item for item in items if function_of(item.nodeid) in self.seconds]
        items[:] = sorted(chosen, key=lambda item: self.seconds[function_of(item.nodeid)])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure."""
        if report.failed:
            self.failed = report.nodeid


class Recorder:
    """Records the lines of the package that each test function executes, and its duration."""

    def __init__(self, folders: list[str]) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=None, include=[f"{f}/*" for f in folders])
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Leave tests out that fail without a mutant."""
        if report.failed:
            self.failed.add(function_of(report.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Name the test to the coverage, and time it."""
        name, start = function_of(item.nodeid), time.monotonic()
        self.coverage.switch_context(name)
        result = yield
        self.coverage.switch_context("")
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        return result

    def record(self) -> dict[str, Any]:
        """Seconds and, by module, lines of each test function; "" is what imports execute."""
        data, lines = self.coverage.get_data(), {}
        for path in data.measured_files():
            for line, names in data.contexts_by_lineno(path).items():
                for name in set(names) - self.failed:
                    module = os.path.relpath(path)
                    lines.setdefault(name, {}).setdefault(module, []).append(line)
        return {"seconds": self.seconds, "lines": lines}


def start(
    function: Callable[[], int], tree: Path, output: Path, cpu_seconds: int | None = None
) -> int:
    """Fork a process that calls a function in a tree and exits with its value; return its id.

    It ends with SIGXCPU after some seconds of processor time, which other processes do not change.
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        if cpu_seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = function()
    finally:
        os._exit(code)


def stop(child: int) -> None:
    """Kill a child and all its processes."""
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def run_tests(files: list[str], seconds: Mapping[str, float], output: Path) -> int:
    """Run the chosen functions of some test files; the first failure is written beside."""
    selection = Selection(seconds)
    code = int(pytest.main([*_ARGUMENTS, "-x", *files], plugins=[selection]))
    output.write_text(selection.failed)
    return code


def record_tests(files: list[str], folders: list[str], output: Path) -> int:
    """Run whole test files and write what each function executes."""
    recorder = Recorder(folders)
    recorder.coverage.start()
    code = int(pytest.main([*_ARGUMENTS, *files], plugins=[recorder]))
    recorder.coverage.stop()
    output.write_text(json.dumps(recorder.record()))
    return code

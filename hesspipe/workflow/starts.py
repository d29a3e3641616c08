"""Jobs on this machine, forked from one process that has imported torch once for all of them.

A job takes 2.8 s of processor time before its first line, all but 0.4 s of it for the imports of
torch, pandas and pyarrow. `hesspipe.workflow.fork_server` spends them once in a run. The job is in
all else what Snakemake would start: it has the same environment, folder, streams, process group and
exit code, and a signal that ends it ends nothing else. Wherever that is not certain, Snakemake
starts it: on other systems than Linux, with several threads, in another environment than the first
job's, and if the process that forks has ended.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_SERVER = str(Path(__file__).with_name("fork_server.py"))
_PREFIX = "set -euo pipefail;"
_SCRIPT = re.compile(r"\.snakemake/scripts/[^/]+\.py$")


def fork_jobs() -> None:
    """Let Snakemake, in this process, fork its Python scripts."""
    # Where Snakemake has prepared everything and starts bash, which would start Python.
    module: Any = importlib.import_module("snakemake.shell")
    module.sp = SimpleNamespace(**vars(subprocess) | {"Popen": Starts().start})


class Starts:
    """Starts processes as `subprocess.Popen` does, and forks those that it can."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def start(self, command: Any, **options: Any) -> subprocess.Popen[Any] | ForkedJob:
        """Do what `subprocess.Popen` does.

        Returns
        -------
        Popen or ForkedJob
        """
        script = _script_of(command, options)
        if script is not None:
            with self._lock:
                if self._server is None:
                    self._server = _Server(options)
                answer = self._server.fork(script, options["env"])
            if answer is not None:
                return ForkedJob(answer, command, options)
        return subprocess.Popen(command, **options)


class ForkedJob:
    """A job that another process has forked.

    Parameters
    ----------
    answer : int
        Where that process answers; see `hesspipe.workflow.fork_server`.
    command, options
        What starts the job if it cannot be forked.
    """

    pid = None
    stdout = None

    def __init__(self, answer: int, command: Any, options: Mapping[str, Any]) -> None:
        self._answer = answer
        self._command = command
        self._options = options

    def wait(self) -> int:
        """Wait until the job has ended.

        Returns
        -------
        int
            Its exit code, or the negative number of the signal that ended it.
        """
        with open(self._answer, encoding="ascii") as answer:
            is_started, _, ended = answer.read().partition(" ")
        if not is_started or ended == "not":
            return subprocess.Popen(self._command, **self._options).wait()
        return int(ended) if ended else -signal.SIGKILL  # the jobs of a killed server end with it


class _Server:
    """The process that forks, for jobs of one environment and folder."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._environment = dict(options["env"])
        self._folder = os.getcwd()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # By bash, which sets variables. -P: the folder of the server holds modules with common
            # names, and is on no job's path.
            server = shlex.join([sys.executable, "-P", _SERVER, str(theirs.fileno())])
            self._process = subprocess.Popen(
                f"{_PREFIX} {server}", **options, pass_fds=[theirs.fileno()]
            )

    def fork(self, script: str, environment: Mapping[str, str]) -> int | None:
        """Ask for a job, and say where the answer will be read; None if it cannot be asked."""
        if environment != self._environment or os.getcwd() != self._folder:
            return None
        ours, theirs = os.pipe()
        try:
            socket.send_fds(self._requests, [os.fsencode(script)], [theirs])
        except OSError:  # it has ended
            os.close(ours)
            return None
        finally:
            os.close(theirs)
        return ours


def _script_of(command: Any, options: Mapping[str, Any]) -> str | None:
    """Find the script of a job that does not differ from its forked self; else None."""
    words = shlex.split(command) if isinstance(command, str) else []
    output = options.get("stdout")
    can_fork = (
        sys.platform == "linux"
        and words[:-1] == [*_PREFIX.split(), sys.executable]
        and _SCRIPT.search(words[-1]) is not None
        and (output is None or (output != subprocess.PIPE and output.fileno() == 1))
        and (options.get("env") or {}).get("OMP_NUM_THREADS") == "1"
    )
    return words[-1] if can_fork else None

"""Jobs on this machine, forked from one process that has imported torch once for all of them.

A job takes 2.8 s of processor time before its first line, all but 0.4 s of it for the imports of
torch, pandas and pyarrow. `hesspipe.workflow.fork_server` spends them once in a run. The job is in
all else what Snakemake would start: it has the same environment, folder, streams, process group and
exit code, and a signal that ends it ends nothing else. Wherever that is not certain, Snakemake
starts it: on other systems than Linux, with several threads, where something that a process
inherits is not what it was for the first job, and if the process that forks has ended.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_SERVER = str(Path(__file__).with_name("fork_server.py"))
_PREFIX = "set -euo pipefail;"
_SCRIPT = re.compile(r"\.snakemake/scripts/[^/]+\.py$")
# Options of `subprocess.Popen` that Snakemake gives; any other may change what a job inherits.
_OPTIONS = {"bufsize", "shell", "stdout", "universal_newlines", "close_fds", "executable", "env"}
# Of a thread in Linux's /proc: what its children inherit.
_INHERITED = re.compile(
    r"^(?:Umask|Uid|Gid|Groups|SigBlk|SigIgn|CapInh|CapPrm|CapBnd|CapAmb|NoNewPrivs|Seccomp"
    r"|Cpus_allowed|Mems_allowed):.*",
    re.MULTILINE,
)
# Those that end the jobs of a run and the process that forks them together.
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_PATIENCE = 10.0  # seconds for the end of a process that has closed its files


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
        inherited = _inherited(options) if script is not None else None
        if script is not None and inherited is not None:
            with self._lock:
                if self._server is None:
                    self._server = _Server(options, inherited)
                answer = self._server.fork(script, inherited)
            if answer is not None:
                return ForkedJob(answer, command, options, self._server.process)
        return subprocess.Popen(command, **options)


class ForkedJob:
    """A job that another process has forked.

    Parameters
    ----------
    answer : int
        Where that process answers; see `hesspipe.workflow.fork_server`.
    command, options
        What starts the job if it cannot be forked.
    server : Popen
        That process.
    """

    pid = None
    stdout = None

    def __init__(
        self,
        answer: int,
        command: Any,
        options: Mapping[str, Any],
        server: subprocess.Popen[Any],
    ) -> None:
        self._answer = answer
        self._command = command
        self._options = options
        self._server = server

    def wait(self) -> int:
        """Wait until the job has ended.

        Returns
        -------
        int
            Its exit code, or the negative number of the signal that ended it.
        """
        with open(self._answer, encoding="ascii") as answer:
            is_started, _, ended = answer.read().partition(" ")
        if not is_started and (number := self._signal_to_all()):
            return -number  # which would have ended this job as well
        if not is_started or ended == "not":
            return subprocess.Popen(self._command, **self._options).wait()
        return int(ended) if ended else -signal.SIGKILL  # the jobs of a killed server end with it

    def _signal_to_all(self) -> int:
        """The number of a signal that has ended the server before it could answer, or 0."""
        try:
            code = self._server.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return 0
        return next((one for one in _SIGNALS if code in (-one, 128 + one)), 0)


class _Server:
    """The process that forks, for jobs that inherit the same."""

    def __init__(self, options: Mapping[str, Any], inherited: Sequence[Any]) -> None:
        self._inherited = inherited
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # By bash, which sets variables. -P: the folder of the server holds modules with common
            # names, and is on no job's path.
            server = shlex.join([sys.executable, "-P", _SERVER, str(theirs.fileno())])
            self.process = subprocess.Popen(
                f"{_PREFIX} {server}", **options, pass_fds=[theirs.fileno()]
            )

    def fork(self, script: str, inherited: Sequence[Any]) -> int | None:
        """Ask for a job, and say where the answer will be read; None if it cannot be asked."""
        if inherited != self._inherited:
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


def _inherited(options: Mapping[str, Any]) -> list[Any] | None:
    """Find what a process takes over from this thread; None if something cannot be found."""
    given = {name: value for name, value in options.items() if name != "stdout"}
    try:
        status = Path("/proc/thread-self/status").read_text(encoding="utf-8")
        return [
            given | {"env": dict(options["env"])},
            os.getcwd(),
            _INHERITED.findall(status),
            *(Path(f"/proc/self/{name}").read_bytes() for name in ("limits", "cgroup")),
            Path("/proc/self/oom_score_adj").read_bytes(),
            os.getpriority(os.PRIO_PROCESS, 0),
            (os.getpgid(0), os.getsid(0)),
            [(os.fstat(one).st_dev, os.fstat(one).st_ino) for one in range(3)],
        ]
    except OSError:
        return None


def _script_of(command: Any, options: Mapping[str, Any]) -> str | None:
    """Find the script of a job that does not differ from its forked self; else None."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:  # of a shell's comment, or a text that only a shell can read
        return None
    can_fork = (
        sys.platform == "linux"
        and words[:-1] == [*_PREFIX.split(), sys.executable]
        and _SCRIPT.search(words[-1]) is not None
        and set(options) <= _OPTIONS
        and _is_own_output(options.get("stdout"))
        and (options.get("env") or {}).get("OMP_NUM_THREADS") == "1"
    )
    return words[-1] if can_fork else None


def _is_own_output(output: Any) -> bool:
    """Whether this is the standard output of this process."""
    try:
        return output is None or (hasattr(output, "fileno") and output.fileno() == 1)
    except (OSError, ValueError):  # a text in memory, or a closed file
        return False

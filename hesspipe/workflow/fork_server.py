"""A process that imports what most jobs import, once, and forks a process for each of them.

Run as a script by `hesspipe.workflow.starts`. It has one thread and has computed nothing, so that
its copies are what a new Python with these imports would be. Nothing of hesspipe is among them: a
job takes its code from where it would without this process, as it is when the job starts.

A message names a Python script and comes with a pipe for the answer: "started ", and then the exit
code, negative for a signal, or "not" if the system allows no more processes. The process ends when
nothing can ask it any more and its jobs have ended. Its jobs end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys

# None of them starts a thread or looks for a GPU. torch imports sympy where it builds a network.
_MODULES = (
    "filelock",
    "matplotlib.figure",
    "numpy",
    "pandas",
    "psutil",
    "pyarrow.parquet",
    "safetensors.torch",
    "scipy.linalg",
    "scipy.optimize",
    "scipy.special",
    "snakemake.iocontainers",
    "snakemake.logging",
    "sympy",
    "torch",
)
# Arrow's allocator would start one, which gives memory back to the system.
_WITHOUT_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Those that a terminal or a user sends to all processes of a run are for its jobs.
_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
_PR_SET_PDEATHSIG = 1  # of Linux: a signal when the parent ends
_LONGEST_PATH = 2**16


def main() -> None:
    """Serve until the other end of the socket of the given number is closed."""
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    environment = dict(os.environ)
    os.environ.update(_WITHOUT_THREADS)
    for name in _MODULES:
        importlib.import_module(name)
    for name in _WITHOUT_THREADS:
        del os.environ[name]
    os.environ.update(environment)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()  # what an import has printed is not the jobs'
    if not _can_fork():
        return
    gc.freeze()
    script = _serve(socket.socket(fileno=int(sys.argv[1])))
    if script is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        _run(script)


def _can_fork() -> bool:
    """Whether a copy of this process is complete, and this system tells when it ends."""
    if len(os.listdir("/proc/self/task")) > 1:  # a fork has only one of the threads
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # before Linux 5.3
        return False
    return True


def _serve(requests: socket.socket) -> str | None:
    """Fork a process for each request; in such a process, give the script that it is to run."""
    jobs: dict[int, tuple[int, int]] = {}  # the process and where to answer, by what tells its end
    waiting = select.poll()
    waiting.register(requests, select.POLLIN)
    is_open = True
    while is_open or jobs:
        for number, _ in waiting.poll():
            if number in jobs:
                waiting.unregister(number)
                _tell_end(*jobs.pop(number))
                os.close(number)
                continue
            message, descriptors, *_ = socket.recv_fds(requests, _LONGEST_PATH, 1)
            if not message:
                waiting.unregister(requests)
                is_open = False
                continue
            if not descriptors:  # this process may open no more files
                continue
            (answer,) = descriptors
            process = _fork(answer)
            if process == 0:
                requests.close()
                for one in (answer, *jobs, *(told for _, told in jobs.values())):
                    os.close(one)
                return os.fsdecode(message)
            ended = _end_of(process, answer) if process is not None else None
            if process is not None and ended is not None:
                jobs[ended] = (process, answer)
                waiting.register(ended, select.POLLIN)
    return None


def _end_of(process: int, answer: int) -> int | None:
    """Open what tells the end of a job; where that fails, end it before it has begun."""
    try:
        return os.pidfd_open(process)
    except OSError:  # this process may open no more files
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        _tell(answer, "not")
        os.close(answer)
        return None


def _fork(answer: int) -> int | None:
    """Do what `os.fork` does, with a child that ends with its parent; None where it fails."""
    library, server = ctypes.CDLL(None), os.getpid()
    _tell(answer, "started ")
    try:
        process = os.fork()
    except OSError:
        _tell(answer, "not")
        os.close(answer)
        return None
    if process == 0:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os.kill(os.getpid(), signal.SIGKILL)
    return process


def _tell_end(process: int, answer: int) -> None:
    """Answer with the exit code of a process that has ended."""
    _tell(answer, str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])))
    os.close(answer)


def _tell(answer: int, text: str) -> None:
    """Answer, if anybody still listens."""
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, text.encode())


def _run(script: str) -> None:
    """Do what `python script` does."""
    import numpy as np

    importlib.invalidate_caches()  # of folders to which modules have been added since
    np.random.seed()  # noqa: NPY002 (of the user's functions: new for each process, as it would be)
    if not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, os.path.dirname(script))
    sys.argv, sys.orig_argv = [script], [sys.executable, script]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

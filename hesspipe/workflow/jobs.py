"""Logging, messages and origin records, the same for every job."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hesspipe.errors import ConfigError, UnwritableFileError
from hesspipe.hardware import name_exhaustion
from hesspipe.workflow.failures import explain_mistake
from hesspipe.workflow.origins import check_inputs, record_job
from hesspipe.workflow.remote_code import require_announced_code

_MORE_MEMORY = (
    "finished files are kept. Run fewer jobs at once (--cores 1), use a smaller network "
    "or fewer samples, or a machine with more memory"
)


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Log a job, check its inputs, and record the origin of its outputs when it succeeds.

    Output, progress bars and errors are written to the log file immediately, and Snakemake shows
    the log of a job that fails. An error of files, of memory or of the user's is one line there,
    with the place in the user's code; any other has its traceback. The last line of the log of a
    job that succeeds says what it took. Snakemake's `benchmark:` would sample that from
    outside: to read the pages of a large process twice a second took 0.6 s a job, and a job that
    ends within a second has no sample.

    Parameters
    ----------
    snakemake : Snakemake
        The object that Snakemake defines in a script.

    Raises
    ------
    SystemExit
        If the job fails with an error that is one line; on a full disk, which has no place for a
        log, with this line for stderr.
    """
    log = _open_log(Path(snakemake.log[0]))
    line, start = None, time.perf_counter()
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            require_announced_code()
            _choose_device(snakemake)
            check_inputs(map(str, snakemake.input))
            with name_exhaustion(f"{snakemake.rule} of {snakemake.output[0]}", _MORE_MEMORY):
                yield
            record_job(snakemake)
            print(_usage(time.perf_counter() - start), file=log)
        except Exception as error:
            line = explain_mistake(error)
            if line is None:
                traceback.print_exc(file=log)
                raise
            print(line, file=log)
    if line is not None:
        raise SystemExit(1 if log.is_complete else line)


def _usage(wall_seconds: float) -> str:
    """The line with the time and the memory that this process and its children took.

    Processor time includes what Python needed to start, wall time does not.
    """
    used = os.times()
    processor = used.user + used.system + used.children_user + used.children_system
    line = f"took {wall_seconds:.1f} s of wall time, {processor:.1f} s of processor time"
    status = Path("/proc/self/status")
    peak = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.M) if status.exists() else None
    return f"{line}, {int(peak[1]) / 1024:.0f} MiB of memory" if peak else line


def _choose_device(snakemake: Any) -> None:
    """Hold a job to the GPUs that it has asked for, where the configuration says how many.

    The GPU of a node may be another job's, and a job that has waited for one must not run for days
    on a core.
    """
    gpus = snakemake.config.get("gpus", "auto")
    if gpus == "auto" or "HESSPIPE_DEVICE" in os.environ:
        return
    if not snakemake.resources.get("gpu"):
        os.environ["HESSPIPE_DEVICE"] = "cpu"
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"gpus must be 0 for jobs without a GPU, got {gpus}, and torch {torch.__version__} "
            f"finds none on {socket.gethostname()}; ask for nodes with a GPU, e.g. by "
            "slurm_partition, or pass --config gpus=0"
        )
    os.environ["HESSPIPE_DEVICE"] = "cuda"


class _Log(io.TextIOWrapper):
    """A text file that goes on without what a full disk does not take: a log must not end a job."""

    is_complete = True

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self.is_complete = False
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self.is_complete = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def _open_log(path: Path) -> _Log:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Log(path.open("wb", buffering=0), encoding="utf-8", write_through=True)
    except OSError as error:
        line = str(UnwritableFileError(path, error, "the job was not started"))
        raise SystemExit(line) from None

"""A job of the pipeline in several processes, started by torchrun.

A job that runs in a batch job of Slurm with as many tasks starts one torchrun for each task by
srun; any other one starts all processes on its machine. They get the job as a file and leave the
result, or the error, as files: so a job fails with the one error of the rank that failed.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hesspipe.errors import HesspipeError, LostRankError
from hesspipe.files import write_text
from hesspipe.hardware import pick_device
from hesspipe.ranks.ranks import Ranks
from hesspipe.ranks.reports import rank_error, report
from hesspipe.tables.store import Result, read_result, write_result
from hesspipe.unfinished import lock, state_root

_PR_SET_PDEATHSIG = 1  # of Linux: a signal when the parent ends


def run_in_processes(
    kind: str, name: str, settings: Mapping[str, Any], num_processes: int
) -> Result:
    """Compute a result in several processes.

    Parameters
    ----------
    kind : {"density", "eigenpairs"}
    name : str
        Of the job, for its folder.
    settings : mapping
        Of JSON; see `hesspipe.experiments.matrix_free.compute`.
    num_processes : int
        Each with a part of the training set.

    Returns
    -------
    Result

    Raises
    ------
    RankError
        Also of the class of the error that a process has raised.
    LostRankError
        If a process has ended without a word, e.g. killed for memory.
    """
    folder = folder_of(name)
    with lock(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(json.dumps({"kind": kind, "settings": settings}), folder / "job.json")
        command = [*_launcher(num_processes), "-m", __name__, str(folder)]
        code = _run(command)
        if code != 0:
            raise _error_of(folder, num_processes, code)
        found = read_result(folder / "result.parquet", kind)
        shutil.rmtree(folder)
        # Those of the packages are added when the result is written.
        about = {key: value for key, value in found.provenance.items() if key != "versions"}
        return replace(found, provenance=about)


def folder_of(name: str) -> Path:
    """Where the processes of a job find it, and leave what they found."""
    return state_root() / "processes" / name


def _launcher(num_processes: int) -> list[str]:
    """Give the command that starts all processes, up to what they run."""
    run = [sys.executable, "-m", "torch.distributed.run"]
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or _num_tasks(job) < num_processes:
        return [*run, "--standalone", f"--nproc-per-node={num_processes}"]
    # A batch job begins on the first of its nodes. Names that Slurm gives to nodes need not be
    # names of machines.
    first, port = socket.gethostname(), 20_000 + int(job) % 10_000  # others have other ports
    srun = ["srun", f"--ntasks={num_processes}", "--cpus-per-task=1", "--export=ALL", "--overlap"]
    srun.append("--kill-on-bad-exit=1")  # the others would wait for a process that was killed
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={first}:{port}", f"--rdzv-id={job}"]
    return [*srun, *run, f"--nnodes={num_processes}", "--nproc-per-node=1", *rendezvous]


def _num_tasks(job: str) -> int:
    """Ask Slurm for the number of tasks of a batch job: its executor keeps $SLURM_NTASKS away."""
    try:
        command = ["scontrol", "--oneliner", "show", "job", job]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 1
    found = re.search(r"\bNumTasks=(\d+)", done.stdout)
    return 1 if found is None else int(found[1])


def _run(command: list[str]) -> int:
    """Run a command, and print what it prints where this process prints."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=_end_with_parent,
    ) as process:
        assert process.stdout is not None
        try:
            with io.TextIOWrapper(process.stdout, errors="replace", newline="") as lines:
                for line in lines:
                    print(line, end="", file=sys.stderr)
        except BaseException:
            process.terminate()
            raise
    return process.returncode


def _end_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Ask the system, where it can, to end this process with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, with_signal)


def _error_of(folder: Path, num_processes: int, code: int) -> Exception:
    """Make the error of the rank that failed; those that only lost it come last."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("error*.json"))]
    found = sorted(map(json.loads, texts), key=lambda one: LostRankError.__name__ in one["classes"])
    if found:
        return rank_error(found[0]["message"], found[0]["classes"])
    return HesspipeError(
        f"{num_processes} processes ended without a word (exit status {code}); see what torchrun "
        "printed above, and run the same command again"
    )


def main(folder: Path) -> None:
    """Compute as one of the processes, started by torchrun."""
    from hesspipe.experiments.matrix_free import compute

    _end_with_parent(signal.SIGKILL)
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    dist.init_process_group("gloo")
    group = dist.group.WORLD
    assert group is not None
    _choose_device()
    try:
        found = compute(job["kind"], group, **job["settings"])
        ranks = Ranks(group)
        with ranks.raise_together("writing the result"):
            if ranks.is_first:
                write_result(found, folder / "result.parquet")
    except Exception as error:
        if dist.get_rank() == 0:
            traceback.print_exc()
        text = json.dumps(report(error))
        write_text(text, folder / f"error{dist.get_rank():04d}.json")
        raise SystemExit(1) from None
    dist.destroy_process_group()


def _choose_device() -> None:
    """Give each process of a machine a GPU of its own, as long as there are enough."""
    device = pick_device()
    if device.type == "cuda" and device.index is None:
        import torch

        number = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        os.environ["HESSPIPE_DEVICE"] = f"cuda:{number}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

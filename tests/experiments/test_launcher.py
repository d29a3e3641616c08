"""How the processes of a job are started, inside of a batch job of Slurm and elsewhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hesspipe.experiments.processes import _launcher


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let `scontrol` print a text, or fail."""
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "{text}" "$@"\n[ -n "{text}" ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("job", "text", "num_processes"),
    [
        (None, "JobId=7 NumTasks=2", 2),
        ("7", "JobId=7 NumNodes=2 NumTasks=1", 2),
        ("7", "JobId=7 NumTasks=2", 3),
        ("7", "", 2),
    ],
)
def test_launcher_starts_all_processes_here_without_a_task_for_each(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    job: str | None,
    text: str,
    num_processes: int,
) -> None:
    answer(tmp_path, monkeypatch, text)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    command = _launcher(num_processes)
    assert "srun" not in command
    assert command[-2:] == ["--standalone", f"--nproc-per-node={num_processes}"]


def test_launcher_starts_one_process_in_each_task_of_its_batch_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The executor keeps the number of tasks from the job.
    answer(tmp_path, monkeypatch, "JobId=12345 NumNodes=1-2 NumCPUs=3 NumTasks=3 CPUs/Task=1")
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12345")
    command = _launcher(3)
    assert command[:2] == ["srun", "--ntasks=3"]
    assert {"--nnodes=3", "--nproc-per-node=1", "--rdzv-id=12345"} <= {*command}
    assert f"--rdzv-endpoint={socket.gethostname()}:22345" in command

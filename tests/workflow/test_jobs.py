"""Jobs that fail: one line for what is no defect, in the log or, without a log, on stderr."""

from __future__ import annotations

import errno
import os
import re
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import hesspipe
from hesspipe.errors import ConfigError, UnreadableFileError
from hesspipe.imports import call_function
from hesspipe.workflow.failures import (
    explain,
    explain_kills,
    one_line_errors,
    place_in_project,
)
from hesspipe.workflow.jobs import job


def fake_job(log: Path) -> SimpleNamespace:
    return SimpleNamespace(
        log=[str(log)], rule="train", input=[], output=["results/histories/slow/seed0.parquet"],
        params={}, wildcards={}, config={}, resources={},
    )  # fmt: skip


def throw(error: Exception) -> None:
    raise error


# What fails, and words of its line.
FAULTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "numpy": (
        lambda: np.ones(10**15),
        ["train of results/histories/slow/seed0.parquet needs more memory", "1000000000000000"],
    ),
    "torch": (
        lambda: torch.ones(10**15),
        ["train of results/histories/slow/seed0.parquet needs more memory", "--cores 1"],
    ),
    "gpu": (
        lambda: throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        ["needs more memory", "2.00 GiB", "finished files are kept"],
    ),
    "python": (lambda: throw(MemoryError()), ["needs more memory", "finished files are kept"]),
    "disk": (
        lambda: throw(OSError(errno.ENOSPC, "No space left on device", "results/a.bin")),
        ["results/a.bin: No space left on device", "df -h"],
    ),
    "folder": (
        lambda: throw(IsADirectoryError(errno.EISDIR, "Is a directory", "tests")),
        ["tests: it is a folder, and must be a file. Move it away"],
    ),
    "unreadable": (
        lambda: throw(UnreadableFileError("a.bin", OSError(errno.EACCES, "Permission denied"))),
        ["a.bin could not be read (Permission denied)"],
    ),
    "hesspipe": (lambda: throw(ConfigError("seeds must be a list")), ["seeds must be a list"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_job_ends_a_fault_in_one_line_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    fail, words = FAULTS[name]
    log = tmp_path / "logs" / "train.log"
    with pytest.raises(SystemExit) as caught, job(fake_job(log)):
        fail()
    text = log.read_text(encoding="utf-8")
    assert caught.value.code == 1
    assert text.count("\n") == 1
    assert "Traceback" not in text
    assert all(word in text for word in words), text
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", FAULTS)
def test_job_says_the_line_on_stderr_when_a_full_disk_takes_no_log(name: str) -> None:
    fail, words = FAULTS[name]
    with pytest.raises(SystemExit) as caught, job(fake_job(Path("/dev/full"))):
        fail()
    assert all(word in str(caught.value.code) for word in words)


def test_job_names_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(SystemExit, match="logs is a file, and must be a folder") as caught:
        job(fake_job(tmp_path / "logs" / "train.log")).__enter__()
    assert "the job was not started. Move it away" in str(caught.value.code)


def test_job_goes_on_although_a_full_disk_takes_no_log() -> None:
    full = job(fake_job(Path("/dev/full")))
    full.__enter__()
    print("much output\n" * 10_000)
    # Only now is its output missed, which nothing has written here.
    with pytest.raises(SystemExit, match=r"seed0\.parquet does not exist"):
        full.__exit__(None, None, None)


def test_job_says_at_its_end_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "train.log"
    Path("results/histories/slow").mkdir(parents=True)
    before = sum(os.times()[:4])
    with job(fake_job(log)):
        print("step 1")
        assert len(np.ones(2**25)) == 2**25  # 256 MiB, which are given back at once
        Path("results/histories/slow/seed0.parquet").write_text("")
        time.sleep(0.3)
    first, last = log.read_text(encoding="utf-8").splitlines()
    wall, processor, memory = map(float, re.findall(r"[\d.]+", last))
    assert first == "step 1"
    assert wall > 0.25
    assert before - 0.1 <= processor <= sum(os.times()[:4]) + 0.1
    assert memory > 256


def test_no_rule_lets_snakemake_sample_its_jobs() -> None:
    rules = sorted((Path(__file__).parents[2] / "rules").glob("*.smk"))
    assert len(rules) > 5
    assert [path.name for path in rules if "benchmark:" in path.read_text(encoding="utf-8")] == []


# Python that a user's function runs, and the line of the log.
MISTAKES = {
    "key": ("return {}['x']", "KeyError: 'x' (user_code.py, line 3)"),
    "file": ("return open('no.npz')", "no.npz: No such file or directory. Check the path"),
    "exit": ("raise SystemExit(2)", "'user_code:load' must not end Python, got SystemExit(2)"),
    "lines": ("raise ValueError('one\\ntwo')", "ValueError: one two (user_code.py, line 3)"),
    "package": ("return torch.zeros(2).view(3)", "RuntimeError: shape '[3]' is invalid"),
}


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of the user's in the current folder, to be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield tmp_path / "user_code.py"
    sys.modules.pop("user_code", None)


@pytest.mark.parametrize("name", MISTAKES)
def test_job_ends_an_error_in_user_code_in_one_line_with_its_place(
    name: str, user_code: Path, tmp_path: Path
) -> None:
    code, expected = MISTAKES[name]
    user_code.write_text(f"import torch\ndef load():\n    {code}\n", encoding="utf-8")
    log = tmp_path / "train.log"
    with pytest.raises(SystemExit), job(fake_job(log)):
        call_function("user_code:load", {})
    (line,) = log.read_text().splitlines()
    assert expected in line
    assert line.endswith("(user_code.py, line 3)")


# Mistakes that no line of a user's file made, and words of the line of the log.
ELSEWHERE: dict[str, tuple[Callable[[], Any], str]] = {
    "package": (lambda: call_function("statistics:mean", {"data": []}), "StatisticsError: mean"),
    "arguments": (lambda: call_function("statistics:mean", {"date": []}), "must fit (data), got"),
    "model": (
        lambda: hesspipe.Objective(
            torch.nn.Linear(3, 1), torch.nn.MSELoss(), (torch.zeros(3, 2), torch.zeros(3, 1))
        ),
        "model and loss_fn must run on the data in torch.float64, got RuntimeError: mat1",
    ),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_job_ends_mistakes_without_user_code_in_one_line(name: str, tmp_path: Path) -> None:
    fail, words = ELSEWHERE[name]
    log = tmp_path / "train.log"
    with pytest.raises(SystemExit), job(fake_job(log)):
        fail()
    (line,) = log.read_text().splitlines()
    assert words in line


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, TypeError, KeyError])
def test_job_keeps_the_traceback_of_a_defect(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # so that this file is not of the project
    log = tmp_path / "train.log"
    with pytest.raises(error), job(fake_job(log)):
        throw(error("a defect"))
    assert "Traceback" in log.read_text()


def test_place_in_project_leaves_out_environments_and_hidden_folders(user_code: Path) -> None:
    for folder in (".snakemake/scripts", "venv/lib/site-packages"):
        path = user_code.parent / folder / "helper.py"
        path.parent.mkdir(parents=True)
        path.write_text("raise KeyError\n", encoding="utf-8")
        with pytest.raises(KeyError) as caught:
            runpy.run_path(str(path))
        assert place_in_project(caught.value) == ""
    user_code.write_text("\nraise KeyError\n", encoding="utf-8")
    with pytest.raises(KeyError) as caught:
        runpy.run_path(str(user_code))
    assert place_in_project(caught.value) == " (user_code.py, line 2)"


def test_one_line_errors_ends_a_command_and_passes_defects() -> None:
    with (
        pytest.raises(SystemExit, match=r"a\.md: No space left on device\. Free"),
        one_line_errors(),
    ):
        throw(OSError(errno.ENOSPC, "No space left on device", "a.md"))
    with pytest.raises(KeyError), one_line_errors():
        throw(KeyError("a defect"))
    assert explain(MemoryError()) == "memory ran out"


@pytest.mark.parametrize(
    ("line", "is_kill"),
    [
        ("Command 'python a.py' died with <Signals.SIGKILL: 9>.", True),
        ("(command exited with non-zero exit code 137)", True),
        ("Command 'python a.py' returned non-zero exit status 137.", True),
        ("Command 'python a.py' returned non-zero exit status 1.", False),
        ("Command 'python a.py' died with <Signals.SIGTERM: 15>.", False),
        ("step 137 of 2137", False),
    ],
)
def test_explain_kills_finds_jobs_that_could_not_say_why(
    tmp_path: Path, line: str, is_kill: bool
) -> None:
    (tmp_path / "a.log").write_text(f"rule train:\n{line}\n")
    (tmp_path / "b.log").write_text("Nothing to be done\n")
    found = explain_kills([str(tmp_path / "a.log"), str(tmp_path / "b.log")])
    assert (found is not None) == is_kill
    assert found is None or "memory" in found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("slurmstepd-n1: error: Exceeded job memory limit", ["exceeded its memory", "mem_mb"]),
        ("error: Detected 1 oom_kill event in StepId=7.batch.", ["exceeded its memory", "mem_mb"]),
        ("SLURM status is: 'OUT_OF_MEMORY'", ["exceeded its memory", "mem_mb"]),
        ("*** JOB 9 ON n1 CANCELLED AT 2026-11-28T19:07:42 DUE TO TIME LIMIT ***", ["runtime"]),
        ("SLURM status is: 'TIMEOUT'", ["end of its time", "runtime", "goes on from"]),
        ("Logfile /a/.snakemake/slurm_logs/rule_train/1.log not found.", ["disk", "share"]),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition "
            "combination specified",
            ["slurm_account=NAME", "sacctmgr"],
        ),
        ("The given account x appears to be invalid. Available accounts:", ["slurm_account=NAME"]),
        (
            "Unable to test the validity of the given or guessed SLURM account 'x' with sacctmgr",
            ["keeps no accounts", "leave it out"],
        ),
        (
            "Requested time limit is invalid (missing or exceeds some limit)",
            ["more time than its partition allows", "slurm_partition=NAME", "runtime"],
        ),
        (
            "sbatch: error: Memory specification can not be satisfied",
            ["No node", "sinfo", "mem_mb"],
        ),
        ("Requested node configuration is not available", ["No node", "slurm_partition=NAME"]),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            ["limit of your account", "sacctmgr"],
        ),
        ("Batch job submission failed: Invalid qos specification", ["quality of service"]),
    ],
)
def test_explain_kills_says_what_a_batch_system_did(
    tmp_path: Path, line: str, words: list[str]
) -> None:
    # The inner Snakemake tells of a signal at the same time, which says less.
    text = f"died with <Signals.SIGKILL: 9>.\n{line}\n"
    (tmp_path / "a.log").write_text(text)
    found = explain_kills([str(tmp_path / "a.log")])
    assert found is not None
    assert all(word in found for word in words)
    assert "signal 9" not in found


def test_explain_kills_reads_the_logs_of_batch_jobs_that_snakemake_does_not_show(
    tmp_path: Path,
) -> None:
    kept, removed = tmp_path / "slurm logs/1.log", tmp_path / "slurm logs/2.log"
    kept.parent.mkdir()
    kept.write_text("slurmstepd-n1: error: Exceeded job memory limit\n")
    (tmp_path / "a.log").write_text(
        "".join(
            f"Job 0 has been submitted with SLURM jobid {number} (log: {path}).\n"
            for number, path in enumerate([removed, kept])
        )
    )
    found = explain_kills([str(tmp_path / "a.log")])
    assert found is not None
    assert "exceeded its memory" in found
    kept.unlink()
    assert explain_kills([str(tmp_path / "a.log")]) is None


def gpu_job(gpus: int | str, resources: dict[str, int]) -> SimpleNamespace:
    return SimpleNamespace(config={"gpus": gpus}, resources=resources)


def note_device(found: list[str | None]) -> None:
    """Note the device of a job, and fail, so that it needs no outputs."""
    found.append(os.environ.get("HESSPIPE_DEVICE"))
    raise MemoryError


@pytest.mark.parametrize(
    ("gpus", "resources", "device"),
    [("auto", {}, None), ("auto", {"gpu": 1}, None), (0, {}, "cpu"), (1, {}, "cpu")],
)
def test_job_without_a_gpu_of_its_own_leaves_those_of_the_node_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int | str, resources: dict[str, int],
    device: str | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("HESSPIPE_DEVICE", "")
    monkeypatch.delenv("HESSPIPE_DEVICE")
    fake = SimpleNamespace(**vars(fake_job(tmp_path / "a.log")) | vars(gpu_job(gpus, resources)))
    found: list[str | None] = []
    with pytest.raises(SystemExit), job(fake):
        note_device(found)
    assert found == [device]


@pytest.mark.parametrize("is_there", [True, False])
def test_job_that_waited_for_a_gpu_never_computes_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setenv("HESSPIPE_DEVICE", "")
    monkeypatch.delenv("HESSPIPE_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    fake = SimpleNamespace(**vars(fake_job(tmp_path / "a.log")) | vars(gpu_job(1, {"gpu": 1})))
    begun: list[str | None] = []
    with pytest.raises(SystemExit), job(fake):
        note_device(begun)
    assert begun == (["cuda"] if is_there else [])
    assert is_there or "gpus must be 0 for jobs without a GPU" in (tmp_path / "a.log").read_text()

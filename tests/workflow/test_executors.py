"""What an executor needs is found before it is asked."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_project import REPOSITORY

from hesspipe.workflow import executors, slurm
from hesspipe.workflow.executors import Executor
from hesspipe.workflow.forecasts import Machine

SLURM = Executor("slurm")


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def answer(
    monkeypatch: pytest.MonkeyPatch,
    missing: str = "",
    sinfo: str = "debug*|up|2:00:00|idle\nlong|up|infinite|mixed\n",
    **others: str,
) -> None:
    """Let this machine have Slurm's commands but one, and its cluster these partitions.

    Others of its commands answer what is given by their names, or fail.
    """
    monkeypatch.setattr(executors.shutil, "which", lambda name: None if name == missing else name)

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        said = {"sinfo": sinfo, **others}.get(command[0], "no answer")
        if said == "no answer":
            raise subprocess.CalledProcessError(1, command)
        return SimpleNamespace(stdout=said)

    monkeypatch.setattr(slurm.subprocess, "run", run)


@pytest.mark.parametrize(
    ("arguments", "num_jobs", "name", "is_remote", "is_dry_run"),
    [
        (["--cores", "2"], None, "local", False, False),
        (["--cores", "2", "--jobs", "3"], 3, "local", False, False),
        (["--cores", "2", "--jobs", "3", "-n"], 3, "local", False, True),
        (["--jobs", "3", "--executor", "dryrun"], 3, "dryrun", False, False),
        (["--not-of-snakemake"], 3, "local", False, False),
    ],
)
def test_executor_is_that_of_the_command_line(
    arguments: list[str], num_jobs: int | None, name: str, is_remote: bool, is_dry_run: bool
) -> None:
    found = Executor.of(arguments, num_jobs)
    assert (found.name, found.is_remote, found.is_dry_run) == (name, is_remote, is_dry_run)


def test_executor_of_a_plain_run_costs_no_reading_of_profiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snakemake.cli.parse_args", lambda arguments: 1 / 0)
    assert Executor.of(["--cores", "2"], None) == Executor()


@pytest.mark.parametrize(
    ("given", "partition"),
    [
        (["slurm_partition=debug"], "debug"),
        (["mem_mb=3", "slurm_partition=a,b-2"], "a,b-2"),
        (["slurm_partition='gpu'"], "gpu"),
        (["slurm_partition='a' if attempt == 1 else 'b'"], None),
        (["mem_mb=3"], None),
    ],
)
def test_executor_reads_partitions_and_accounts_that_are_names(
    given: list[str], partition: str | None
) -> None:
    options = ["--cores", "1", "--jobs", "2", "--default-resources", *given]
    assert Executor.of(options, 2).partition == partition
    accounts = [text.replace("partition", "account") for text in options]
    assert Executor.of(accounts, 2).account == partition


@pytest.mark.parametrize("name", ["slurm", "kubernetes", "lsf"])
@pytest.mark.parametrize("is_dry_run", [True, False])
def test_mistakes_refuse_to_look_for_a_gpu_on_the_machine_that_submits(
    monkeypatch: pytest.MonkeyPatch, name: str, is_dry_run: bool
) -> None:
    answer(monkeypatch)
    (line,) = Executor(name, is_dry_run).mistakes("auto")
    assert f"gpus must be 0 or 1 for jobs of --executor {name}, got 'auto'" in line
    assert [*Executor(name, is_dry_run).mistakes(0)] == []
    assert [*Executor(name, is_dry_run).mistakes(1)] == []
    assert [*Executor("local", is_dry_run).mistakes("auto")] == []


@pytest.mark.parametrize(
    ("given", "read"), [("all", "all"), (dataclasses.MISSING, None), (None, None)]
)
def test_executor_reads_an_option_of_the_plugin_where_it_is_given(
    monkeypatch: pytest.MonkeyPatch, given: object, read: str | None
) -> None:
    options = SimpleNamespace(
        executor="slurm", dryrun=False, touch=False, default_resources=None, group_components=None,
        slurm_array_jobs=given,
    )  # fmt: skip
    monkeypatch.setattr("snakemake.cli.parse_args", lambda arguments: (None, options))
    assert Executor.of([], 1).array_jobs == read


def test_mistakes_refuse_arrays_whose_jobs_would_get_the_memory_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch)
    (line,) = Executor("slurm", array_jobs="all").mistakes(0)
    assert "--slurm-array-jobs must be left out, got 'all'" in line
    assert [*Executor("slurm", array_jobs="").mistakes(0)] == []


@pytest.mark.parametrize("command", ["sbatch", "squeue", "scancel"])
def test_mistakes_name_what_a_machine_without_slurm_lacks(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    answer(monkeypatch, missing=command)
    (line,) = SLURM.mistakes(0)
    assert line.startswith(f"--executor slurm needs {command}, which this machine does not have")
    # The jobs may be listed anywhere.
    assert [*Executor("slurm", is_dry_run=True).mistakes(0)] == []


@pytest.mark.parametrize(
    ("partition", "lines"),
    [
        ("debug", []),
        ("long,debug", []),
        (None, []),
        (
            "debuq",
            ["slurm_partition must be one of debug, long, got 'debuq' (did you mean debug?)"],
        ),
        ("debug,x", ["slurm_partition must be one of debug, long, got 'x'; see sinfo"]),
    ],
)
def test_mistakes_name_a_partition_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, partition: str | None, lines: list[str]
) -> None:
    answer(monkeypatch)
    found = [*Executor("slurm", partition=partition).mistakes(0)]
    assert len(found) == len(lines)
    assert all(line in text for line, text in zip(lines, found, strict=True))


@pytest.mark.parametrize("command", ["sacctmgr", "sshare"])
@pytest.mark.parametrize(
    ("account", "lines"),
    [
        ("physics", []),
        ("PHYSICS,maths", []),
        (None, []),
        ("physixs", ["slurm_account must be one of maths, physics, got 'physixs' (did you mean"]),
        ("physics,x", ["slurm_account must be one of maths, physics, got 'x'; see sacctmgr show"]),
    ],
)
def test_mistakes_name_an_account_that_the_user_does_not_have(
    monkeypatch: pytest.MonkeyPatch, command: str, account: str | None, lines: list[str]
) -> None:
    answer(monkeypatch, **{command: "   Physics\n   maths \n   maths \n"})
    found = [*Executor("slurm", account=account).mistakes(0)]
    assert len(found) == len(lines)
    assert all(line in text for line, text in zip(lines, found, strict=True))
    assert [*Executor("slurm", account=account, is_dry_run=True).mistakes(0)] == []


@pytest.mark.parametrize("said", ["", "\n", "no answer"])
def test_mistakes_take_any_account_where_slurm_keeps_none(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    answer(monkeypatch, sacctmgr=said, sshare=said)
    assert [*Executor("slurm", account="physics").mistakes(0)] == []


def test_mistakes_leave_a_cluster_that_does_not_answer_to_its_own_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, sinfo="no answer")
    assert [*Executor("slurm", partition="debuq").mistakes(0)] == []


def test_machines_elsewhere_have_what_is_stated_and_nothing_of_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HESSPIPE_MEMORY_GIB", raising=False)
    monkeypatch.setattr("hesspipe.workflow.forecasts.total_bytes", lambda: 2**30)
    monkeypatch.setattr("hesspipe.workflow.forecasts.has_gpu", lambda: True)
    assert Machine.elsewhere(0).memory_bytes > 2**60
    assert not Machine.elsewhere(0).has_gpu
    assert Machine.elsewhere(1).has_gpu
    assert Machine.elsewhere(0, 3000).memory_bytes == 3000 * 2**20
    assert Machine.present().memory_bytes == 2**30
    assert Machine.present(500).memory_bytes == 500 * 2**20
    assert Machine.present(5000).memory_bytes == 2**30
    monkeypatch.setenv("HESSPIPE_MEMORY_GIB", "2")
    assert Machine.elsewhere(0, 3000).memory_bytes == 2 * 2**30
    assert Machine.present(5000).memory_bytes == 2 * 2**30

"""What Slurm says of partitions and of waiting jobs, from answers of its commands."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from hesspipe.workflow import slurm
from hesspipe.workflow.executors import Executor
from hesspipe.workflow.slurm import (
    cancel_others,
    minutes_of,
    partitions,
    stuck_jobs,
    watch_queue,
)

ASK = "--set-resources RULE:runtime=MINUTES"
# Reasons as squeue prints them, and a word of what to do; none for what passes by itself.
REASONS = {
    "PartitionTimeLimit": ASK,
    "PartitionNodeLimit": ASK,
    "PartitionConfig": ASK,
    "BadConstraints": ASK,
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "sinfo"
    ),
    "ReqNodeNotAvail, UnavailableNodes:n1": "sinfo",
    "PartitionDown": "sinfo",
    "JobHeldUser": "scontrol release 7",
    "JobHeldAdmin": "scontrol release 7",
    "launch failed requeued held": "scontrol release 7",
    "QOSMaxWallDurationPerJobLimit": ASK,
    "QOSMaxJobsPerUserLimit": "until other jobs have ended",
    "AssocGrpCPUMinutesLimit": "sacctmgr show user",
    "AssocMaxJobsLimit": "until other jobs have ended",
    "QOSGrpCpuLimit": "until other jobs have ended",
    "MaxCpuPerAccount": "until other jobs have ended",
    "QOSMaxMemoryPerJob": "will never start",
    "AssocMaxCpuPerJobLimit": "will never start",
    "QOSMinCpuNotSatisfied": "will never start",
    "AssocGrpWallLimit": "slurm_account=NAME",
    "InvalidAccount": "sacctmgr show user",
    "InvalidQOS": "--slurm-qos NAME",
    "Reservation": "scontrol show reservation",
    "ReservationDeleted": "without the reservation",
    "ReqNodeNotAvail, Reserved for maintenance": ASK,
    "DependencyNeverSatisfied": "scontrol show job 7",
    "Priority": None,
    "Resources": None,
    "None": None,
    "BeginTime": None,
}


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(slurm, "_answer", lambda *command: text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", None), ("n/a", None), ("1:00", 1), ("0:30", 1), ("30:00", 30),
        ("2:00:00", 120), ("1-00:00:00", 1440), ("7-12:30:00", 10_830),
    ],
)  # fmt: skip
def test_minutes_of_reads_what_slurm_writes(text: str, minutes: int | None) -> None:
    assert minutes_of(text) == minutes


STATES = {
    "idle": True, "mixed": True, "allocated": True, "idle~": True, "powered_down": True,
    "reserved": True, "completing": True, "down": False, "down*": False, "drained": False,
    "draining": False, "drained*": False, "failing": False, "maint": False, "inval": False,
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("is_up", ["up", "drain", "inact"])
def test_partitions_are_open_where_a_node_takes_jobs(
    monkeypatch: pytest.MonkeyPatch, state: str, is_up: str
) -> None:
    answer(monkeypatch, f"debug*|{is_up}|2:00:00|down\ndebug*|{is_up}|2:00:00|{state}\n")
    (found,) = partitions().values()
    assert found.name == "debug"
    assert found.is_default
    assert found.max_minutes == 120
    assert found.is_open == (STATES[state] and is_up == "up")
    warnings = [*Executor("slurm").warnings()]
    assert bool(warnings) != found.is_open
    assert all("no node of partition debug takes jobs now" in line for line in warnings)
    assert [*Executor("slurm", is_dry_run=True).warnings()] == []
    assert [*Executor("local").warnings()] == []


@pytest.mark.parametrize(
    ("partition", "group", "longest"),
    [
        (None, None, 120),
        (None, "spectra", 15),
        (None, "unknown", 120),
        ("short", None, 10),
        ("short", "spectra", 1),
        ("short", "many", 1),
        ("short,debug", None, 120),
        ("endless", None, None),
        ("endless,short", None, None),
        ("absent", None, None),
    ],
)
def test_longest_minutes_are_those_of_the_partition_shared_by_the_group(
    monkeypatch: pytest.MonkeyPatch, partition: str | None, group: str | None, longest: int | None
) -> None:
    lines = ("debug*|up|2:00:00|idle", "short|up|10:00|idle", "endless|up|infinite|idle")
    answer(monkeypatch, "\n".join(lines))
    executor = Executor("slurm", partition=partition, group_sizes={"spectra": 8, "many": 99})
    assert executor.longest_minutes(group) == longest
    assert Executor("of a job").longest_minutes(group) is None


@pytest.mark.parametrize("reason", REASONS)
def test_stuck_jobs_are_those_that_do_not_start_by_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: str
) -> None:
    other = f"9|PENDING|{tmp_path / 'elsewhere'}|JobHeldUser"
    lines = [f"{number}|PENDING|{tmp_path}|{reason}" for number in (7, 8)]
    answer(monkeypatch, "\n".join([*lines, other]))
    found = [*stuck_jobs(str(tmp_path))]
    advice = REASONS[reason]
    if advice is None:
        assert found == []
    else:
        ((said, line),) = found
        assert said == reason
        assert line.startswith(f"Batch job 7 (and 1 more) waits in the queue ({reason}): ")
        assert advice in line


def test_a_suspended_job_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(monkeypatch, f"7|SUSPENDED|{tmp_path}|None\n")
    ((_, line),) = stuck_jobs(str(tmp_path))
    assert "(suspended)" in line
    assert "scontrol resume 7" in line


class EndOfTestError(Exception):
    """Ends the loop that watches."""


def test_watch_queue_tells_each_reason_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks = itertools.count()
    told: list[str] = []

    def sleep(seconds: float) -> None:
        if next(looks) > 3:
            raise EndOfTestError
        reason = "JobHeldUser" if len(told) == 0 else "PartitionTimeLimit"
        answer(monkeypatch, f"7|PENDING|{tmp_path}|{reason}\n")

    monkeypatch.setattr(slurm.time, "sleep", sleep)
    monkeypatch.setattr(slurm.threading, "Thread", _Here)
    with pytest.raises(EndOfTestError):
        watch_queue(told.append, str(tmp_path))
    assert [line.split("(")[1].split(")")[0] for line in told] == [
        "JobHeldUser", "PartitionTimeLimit",
    ]  # fmt: skip


class _Here:
    """A thread that runs where it is started."""

    def __init__(self, target: object, **options: object) -> None:
        self.start = target


def test_a_cluster_that_does_not_answer_is_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert partitions() == {}
    assert [*stuck_jobs(".")] == []
    assert [*Executor("slurm").warnings()] == []
    assert Executor("slurm").longest_minutes() is None


@pytest.mark.parametrize(
    ("listed", "known", "cancelled"),
    [
        ("", [], []),
        ("7\n", ["7"], []),
        ("7\n8\n", ["7"], ["8"]),
        ("7\n9\n8\n", ["5", "6"], ["7", "8", "9"]),
    ],
)
@pytest.mark.parametrize("failing", [None, "squeue", "scancel"])
def test_batch_jobs_of_a_run_that_it_does_not_know_of_are_cancelled(
    monkeypatch: pytest.MonkeyPatch,
    listed: str,
    known: list[str],
    cancelled: list[str],
    failing: str | None,
) -> None:
    called: list[tuple[str, ...]] = []

    def ask(*command: str) -> str | None:
        called.append(command)
        return None if command[0] == failing else listed if command[0] == "squeue" else ""

    monkeypatch.setattr(slurm, "_ask", ask)
    has_answered = cancel_others("run-7", known)
    assert called[0][:3] == ("squeue", "--me", "--name=run-7")
    if failing == "squeue":
        assert not has_answered
        assert len(called) == 1
    else:
        assert [list(command[1:]) for command in called[1:]] == ([cancelled] if cancelled else [])
        assert has_answered == (failing is None or not cancelled)

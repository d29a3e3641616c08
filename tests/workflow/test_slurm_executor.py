"""What is mended in Snakemake and its executor for Slurm."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from snakemake.jobs import GroupJob
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from hesspipe.workflow.slurm_executor import mend_executor

ANSWERS: list[dict[str, str] | None] = []
PLUGIN: Any = ModuleType("snakemake_executor_plugin_slurm")


async def answer(command: str, logger: object) -> tuple[dict[str, str] | None, float]:
    return ANSWERS.pop(0), 0.1


PLUGIN.query_job_status = answer
PLUGIN.get_max_array_size = lambda: -1  # of a cluster whose MaxArraySize is 0


@pytest.fixture(autouse=True)
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteExecutor, "sleep", RemoteExecutor.sleep)  # restored at the end
    monkeypatch.setattr(GroupJob, "rule", None, raising=False)
    monkeypatch.setattr(GroupJob, "log_error", GroupJob.log_error)
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", PLUGIN)
    monkeypatch.setattr(PLUGIN, "query_job_status", answer)
    monkeypatch.setattr(PLUGIN, "get_max_array_size", PLUGIN.get_max_array_size)
    mend_executor.__wrapped__()


@pytest.mark.parametrize(
    ("wanted", "longest", "slept"), [(5, 15, 5), (180, 15, 15), (25, 60, 25), (15, 15, 15)]
)
def test_sleep_is_as_long_as_the_executor_wants_up_to_what_its_user_says(
    monkeypatch: pytest.MonkeyPatch, wanted: int, longest: int, slept: int
) -> None:
    sleeps: list[int] = []

    async def sleep(seconds: int) -> None:
        sleeps.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    settings = SimpleNamespace(seconds_between_status_checks=longest)
    workflow = SimpleNamespace(remote_execution_settings=settings)
    executor = SimpleNamespace(workflow=workflow, next_seconds_between_status_checks=wanted)
    asyncio.run(RemoteExecutor.sleep(executor))
    assert sleeps == [slept]


def test_a_cluster_without_arrays_of_jobs_is_taken() -> None:
    assert PLUGIN.get_max_array_size() >= 2


def test_rule_of_a_group_is_that_of_one_of_its_jobs() -> None:
    group = GroupJob.__new__(GroupJob)
    group.jobs = [SimpleNamespace(rule="a"), SimpleNamespace(rule="b")]
    assert group.rule in ("a", "b")


def test_a_group_logs_the_reason_of_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, Any]] = []
    log = SimpleNamespace(error=lambda text, extra=None: said.append((text, extra)))
    monkeypatch.setattr("snakemake.logging.logger", log)
    monkeypatch.setattr("snakemake.jobs.logger", log)
    group = GroupJob.__new__(GroupJob)
    group.groupid, group.jobs = "training", []
    mend_executor.__wrapped__()  # again, with this logger
    group.log_error("sbatch: error: no", aux_logs=["a.log"])
    texts = [text for text, _ in said]
    assert texts[0] == "sbatch: error: no"
    assert texts[-1] == "Error in group training"
    assert said[-1][1]["aux_logs"] == ["a.log"]


LOOKS = {
    "put into the queue again": (["PREEMPTED", "PENDING", "PREEMPTED"], ["PREEMPTED"] * 2),
    "not put into the queue again": (["PREEMPTED"] * 3, ["PREEMPTED", "CANCELLED", "CANCELLED"]),
    "no answer between": (["PREEMPTED", None, "PREEMPTED"], ["PREEMPTED", None, "CANCELLED"]),
    "other states": (["RUNNING", "RUNNING", "FAILED"], ["RUNNING", "RUNNING", "FAILED"]),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_preempted_job_is_cancelled_where_nobody_starts_it_again(name: str) -> None:
    states, seen = LOOKS[name]
    ANSWERS[:] = [None if state is None else {"7": state, "8": "RUNNING"} for state in states]
    found = []
    while ANSWERS:
        jobs, seconds = asyncio.run(PLUGIN.query_job_status("squeue", None))
        assert seconds == 0.1
        assert jobs is None or jobs["8"] == "RUNNING"
        found.append(None if jobs is None else jobs["7"])
    assert [state for state in found if state != "PENDING"] == seen

"""What is mended in Snakemake and its executor for Slurm."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.jobs import GroupJob
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from hesspipe.workflow.slurm_executor import mend_executor


@pytest.fixture(autouse=True)
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteExecutor, "sleep", RemoteExecutor.sleep)  # restored at the end
    monkeypatch.setattr(GroupJob, "rule", None, raising=False)
    monkeypatch.setattr(GroupJob, "log_error", GroupJob.log_error)
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

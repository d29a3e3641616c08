"""What has become of batch jobs, from answers of squeue and sacct, and from none."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hesspipe.workflow.slurm_states import BatchJobs

SQUEUE, SACCT = "squeue --name run-7", "sacct --name run-7"
Answer = dict[str, str] | None


class Plugin:
    """The plugin's queries, with answers for each command; None is no answer."""

    def __init__(self, squeue: list[Answer], sacct: list[Answer]) -> None:
        self._answers = {"squeue": squeue, "sacct": sacct}

    async def query_job_status(self, command: str, logger: Any) -> tuple[Answer, float | None]:
        assert command.endswith(" run-7")
        name = command.split()[0]
        answers = self._answers[name]
        answer = answers.pop(0) if answers else None
        if answer is None:
            logger.debug(f"SLURM query command failed: {name}: error: Unable to contact\n")
            return None, None
        return answer, 0.1

    def query_job_status_sacct(self, runid: str) -> str:
        return f"sacct --name {runid}"

    def query_job_status_squeue(self, runid: str) -> str:
        return f"squeue --name {runid}"


def look(
    command: str, numbers: set[str], squeue: list[Answer], sacct: list[Answer], times: int
) -> tuple[list[dict[str, str]], list[str]]:
    """What is found at so many looks, and what is told."""
    said: list[str] = []
    jobs = BatchJobs(Plugin(squeue, sacct))
    jobs.numbers = numbers
    logger = SimpleNamespace(warning=said.append)
    return [asyncio.run(jobs.ask(command, logger))[0] for _ in range(times)], said


LOOKS = {
    "put into the queue again": (["PREEMPTED", "PENDING", "PREEMPTED"], ["PREEMPTED"] * 2),
    "not put into the queue again": (["PREEMPTED"] * 3, ["PREEMPTED", "CANCELLED", "CANCELLED"]),
    "no answer between": (["PREEMPTED", None, "PREEMPTED"], ["PREEMPTED", None, "CANCELLED"]),
    "other states": (["RUNNING", "RUNNING", "FAILED"], ["RUNNING", "RUNNING", "FAILED"]),
    "lost its node": (["NODE_FAIL", "PENDING", "RUNNING"], ["NODE_FAIL", "RUNNING"]),
    "lost its node for good": (["NODE_FAIL"] * 2, ["NODE_FAIL", "CANCELLED"]),
    "taken by another cluster": (["REVOKED"], ["CANCELLED"]),
    "stopped for a while": (["STOPPED"] * 3, ["STOPPED"] * 3),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_job_that_nobody_starts_again_is_cancelled(name: str) -> None:
    states, seen = LOOKS[name]
    answers = [None if state is None else {"7": state, "8": "RUNNING"} for state in states]
    found, _ = look(SQUEUE, {"7", "8"}, [*answers], [], len(states))
    assert all(jobs == {} or jobs["8"] == "RUNNING" for jobs in found)
    assert [jobs.get("7") for jobs in found if jobs.get("7") != "PENDING"] == seen


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("CANCELLED by 1000", "CANCELLED"), ("CANCELLED+", "CANCELLED"), ("RUNNING", "RUNNING"),
        ("NODE_FAIL ", "NODE_FAIL"), ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
    ],
)  # fmt: skip
def test_states_are_read_as_accounting_writes_them(said: str, state: str) -> None:
    found, _ = look(SACCT, {"7"}, [], [{"7": said}], 1)
    assert found == [{"7": state}]


@pytest.mark.parametrize("command", [SQUEUE, SACCT])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_silence_of_any_length_ends_no_job_and_is_told_once(command: str, length: int) -> None:
    there = {"7": "RUNNING"}
    answers = [there, *[None] * length, there]
    squeue = answers if command == SQUEUE else []
    sacct = answers if command == SACCT else []
    found, said = look(command, {"7"}, [*squeue], [*sacct], length + 2)
    assert found == [there, *[{}] * length, there]
    assert len(said) == 2
    assert said[0].startswith("Slurm does not answer (s")
    assert said[1] == "Slurm answers again"


def test_a_slurm_without_accounts_is_asked_by_its_queue() -> None:
    found, said = look(SACCT, {"7"}, [{"7": "COMPLETED"}], [None], 1)
    assert found == [{"7": "COMPLETED"}]
    assert said == []


# What the accounts say of a job that the queue does not know: the state that counts, and a word.
GONE = {
    "completed": ({"7": "COMPLETED"}, "COMPLETED", None),
    "failed": ({"7": "FAILED"}, "FAILED", None),
    "cancelled": ({"7": "CANCELLED by 0"}, "CANCELLED", None),
    "preempted": ({"7": "PREEMPTED"}, "CANCELLED", None),
    "lost its node": ({"7": "NODE_FAIL"}, "CANCELLED", None),
    "open": ({"7": "RUNNING"}, "RUNNING", "accounts say that they go on (7)"),
    "unknown": ({}, "CANCELLED", "does not know some batch jobs any more (7)"),
    "no accounts": (None, "CANCELLED", "does not know some batch jobs any more (7)"),
}


@pytest.mark.parametrize("name", GONE)
def test_a_job_that_the_queue_does_not_know_at_two_looks_has_ended(name: str) -> None:
    accounts, state, word = GONE[name]
    queue = {"8": "RUNNING"}
    found, said = look(SQUEUE, {"7", "8"}, [queue] * 3, [accounts] * 2, 3)
    assert [jobs.get("7") for jobs in found] == [None, state, state]
    assert all(jobs["8"] == "RUNNING" for jobs in found)
    assert len(said) == (word is not None)  # once
    assert word is None or word in said[0]


@pytest.mark.parametrize(
    ("queue", "state"),
    [({"7": "PENDING"}, "PENDING"), ({}, "CANCELLED"), (None, None)],
    ids=["waits", "unknown", "silent"],
)
def test_a_job_that_is_not_in_the_accounts_yet_is_looked_for_in_the_queue(
    queue: Answer, state: str | None
) -> None:
    found, _ = look(SACCT, {"7"}, [queue], [{}, {}], 2)
    assert [jobs.get("7") for jobs in found] == [None, state]


def test_tasks_of_an_array_are_known_by_its_line() -> None:
    found, said = look(SQUEUE, {"7_1", "7_2"}, [{"7_[1-9]": "PENDING"}] * 3, [], 3)
    assert found == [{"7_[1-9]": "PENDING"}] * 3
    assert said == []


def test_a_job_that_was_missing_at_one_look_is_as_before() -> None:
    answers: list[Answer] = [{}, {"7": "RUNNING"}, {}, {"7": "COMPLETED"}]
    found, said = look(SQUEUE, {"7"}, answers, [], 4)
    assert [jobs.get("7") for jobs in found] == [None, "RUNNING", None, "COMPLETED"]
    assert said == []

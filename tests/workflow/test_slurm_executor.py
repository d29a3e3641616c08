"""What is mended in Snakemake's executor for Slurm, with a stand-in for the plugin's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from hesspipe.workflow import slurm_executor
from hesspipe.workflow.slurm_executor import mend_executor

PATIENCE = 20.0


class PluginExecutor:
    """The plugin's, as far as it is used: it submits, and reports what sbatch has answered."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        self.workflow, self.logger, self.run_uuid, self.wait = workflow, logger, "run-7", True
        self.next_seconds_between_status_checks: float = 40
        self._job_submission_executor = ThreadPoolExecutor(2)
        self.lock, self.active_jobs = threading.Lock(), list[Any]()
        self.submitted: list[Any] = []
        self.answers: list[str] = []
        self.errors: list[tuple[Any, str]] = []

    def run_job(self, job: Any) -> None:
        answer = self.answers.pop(0) if self.answers else ""
        if answer.startswith("raise "):
            try:
                raise ValueError(answer.removeprefix("raise "))
            except ValueError:
                self._report_job_error_threadsafe(SimpleNamespace(job=job), str(job.rule.name))
        elif answer:
            text = f"SLURM sbatch failed. The error message was '{answer}'.\n    sbatch call:\n x\n"
            self._report_job_error_threadsafe(SimpleNamespace(job=job), text)
        else:
            self.submitted.append(job)

    def _report_job_error_threadsafe(self, job_info: Any, msg: str) -> None:
        raise AssertionError("not changed")

    def report_job_error(self, job_info: Any, msg: str | None = None) -> None:
        self.errors.append((job_info.job, msg or ""))
        self.print_job_error(job_info, msg)

    def print_job_error(self, job_info: Any, msg: str | None = None) -> None:
        pass

    def report_job_submission(self, job_info: Any, register_job: bool = True) -> None:
        with self.lock:
            self.active_jobs.append(job_info)

    async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]:
        for job in active_jobs:
            yield job

    def shutdown(self) -> None:
        self.wait = False
        self._job_submission_executor.shutdown(wait=True)


class Job:
    """A job of Snakemake's, or a group of them, which has no rule."""

    def __init__(self, name: str, is_group: bool = False) -> None:
        self._is_group, self.groupid = is_group, name
        if not is_group:
            self.rule = SimpleNamespace(name=name)
        self.attempt, self.restart_times = 1, 2

    def is_group(self) -> bool:
        return self._is_group


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    async def query(command: str, logger: Any) -> tuple[dict[str, str], float]:
        return {}, 0.1

    found: Any = ModuleType("snakemake_executor_plugin_slurm")
    found.query_job_status, found.Executor = query, PluginExecutor
    found.get_max_array_size = lambda: -1  # of a cluster whose MaxArraySize is 0
    entry = SimpleNamespace(executor=PluginExecutor)
    # The registry first: it imports the plugins that are installed.
    monkeypatch.setitem(ExecutorPluginRegistry().plugins, "slurm", entry)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", found)
    mend_executor.__wrapped__()
    return found


@pytest.fixture
def executor(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(slurm_executor, "_PAUSE", 0.01)
    monkeypatch.setattr(slurm_executor, "_GRACE", 0.01)
    monkeypatch.setattr(slurm_executor, "has_jobs_in_queue", lambda: True)
    monkeypatch.setattr(slurm_executor, "cancel_others", lambda run, known: True)
    said: list[str] = []
    logger = SimpleNamespace(warning=said.append, error=said.append, said=said)
    settings = SimpleNamespace(seconds_between_status_checks=15)
    workflow = SimpleNamespace(remote_execution_settings=settings)
    yield ExecutorPluginRegistry().plugins["slurm"].executor(workflow, logger)  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("wanted", "longest", "slept"), [(5, 15, 5), (180, 15, 15), (25, 60, 25), (15, 15, 15)]
)
def test_sleep_is_as_long_as_the_executor_wants_up_to_what_its_user_says(
    executor: Any, monkeypatch: pytest.MonkeyPatch, wanted: int, longest: int, slept: int
) -> None:
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    executor.workflow.remote_execution_settings.seconds_between_status_checks = longest
    executor.next_seconds_between_status_checks = wanted
    asyncio.run(executor.sleep())
    assert sum(sleeps) == slept


def test_sleep_ends_with_the_run(executor: Any) -> None:
    sleeper = threading.Thread(target=lambda: asyncio.run(executor.sleep()))
    sleeper.start()
    executor.shutdown()
    sleeper.join(PATIENCE)
    assert not sleeper.is_alive()


def test_a_cluster_without_arrays_of_jobs_is_taken(plugin: Any) -> None:
    assert plugin.get_max_array_size() >= 2


def test_check_active_jobs_yields_them_and_looks_for_their_numbers(executor: Any) -> None:
    jobs = [SimpleNamespace(external_jobid=number) for number in ("7", "8")]

    async def check() -> list[Any]:
        return [job async for job in executor.check_active_jobs(jobs)]

    assert asyncio.run(check()) == jobs
    assert executor.jobs.numbers == {"7", "8"}


def test_a_number_that_is_given_again_ends_the_job_that_had_it(executor: Any) -> None:
    old, other, new = (
        SimpleNamespace(job=Job(name), external_jobid=number)
        for name, number in (("old", "7"), ("other", "8"), ("new", "7"))
    )
    for job in (old, other, new):
        executor.report_job_submission(job)
    assert executor.active_jobs == [other, new]
    assert [job for job, _ in executor.errors] == [old.job]


PREFIX = "sbatch: error: "
AWAY = f"{PREFIX}Batch job submission failed: Unable to contact slurm controller (connect failure)"
SLOW = f"{PREFIX}Batch job submission failed: Socket timed out on send/recv operation"
FULL = f"{PREFIX}QOSMaxSubmitJobPerUserLimit\n{PREFIX}Batch job submission failed: Job violates x"
POLICY = (
    f"{PREFIX}Batch job submission failed: Job violates accounting/QOS policy (job submit limit, "
    "user's size and/or time limits)"
)
# What sbatch says, or the executor, and words of the way out.
REFUSALS = {
    "partition": (f"{PREFIX}invalid partition specified: debuq", "slurm_partition=NAME"),
    "group": (f"{PREFIX}User's group not permitted to use this partition", "slurm_partition=NAME"),
    "inactive": (
        f"{PREFIX}Required partition not available (inactive or drain)",
        "slurm_partition=NAME",
    ),
    "account": (
        f"{PREFIX}Invalid account or account/partition combination specified",
        "slurm_account=NAME",
    ),
    "no accounts": (
        "raise Unable to test the validity of the given or guessed SLURM account 'x'",
        "leave it out",
    ),
    "qos": (f"{PREFIX}Invalid qos specification", "--slurm-qos NAME"),
    "other qos": (f"{PREFIX}Job's QOS not permitted to use this partition (a b)", "--slurm-qos"),
    "reservation": (f"{PREFIX}Requested reservation is invalid", "--slurm-reservation"),
    "access": (f"{PREFIX}Access denied to requested reservation", "scontrol show reservation"),
    "feature": (f"{PREFIX}Invalid feature specification", "sinfo -o '%P %f'"),
    "memory": (f"{PREFIX}Memory specification can not be satisfied", "RULE:mem_mb="),
    "node": (f"{PREFIX}Requested node configuration is not available", "RULE:mem_mb="),
    "gpu": (f"{PREFIX}Invalid generic resource (gres) specification", "sinfo -o '%P %c %m %G'"),
    "time": (
        f"{PREFIX}Requested time limit is invalid (missing or exceeds some limit)",
        "RULE:runtime=",
    ),
    "policy": (POLICY, "--jobs NUMBER"),
    "long": ("raise [Errno 7] Argument list too long: '/bin/sh'", "--slurm-pass-command-as-script"),
    "unknown": (f"{PREFIX}Something new", ""),
}


@pytest.mark.parametrize("is_group", [True, False])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_job_ends_with_the_words_and_the_way_out_and_is_not_tried_again(
    executor: Any, name: str, is_group: bool
) -> None:
    words, way_out = REFUSALS[name]
    if words.startswith("raise ") and not is_group:
        words = words.removeprefix("raise ")
    job = Job("train", is_group)
    executor.answers = [words]
    executor.run_job(job)
    ((failed, line),) = executor.errors
    assert failed is job
    assert executor.submitted == []
    kind = "group" if is_group else "rule"
    assert line.startswith(f"Slurm takes no batch job of {kind} train (")
    assert words.split(": ")[-1].removeprefix("raise ") in line
    assert way_out in line
    assert "sbatch call" not in line
    assert job.attempt > job.restart_times
    assert (line in executor.logger.said) == is_group  # Snakemake tells that of a single job


@pytest.mark.parametrize("words", [AWAY, SLOW, FULL, "Resource temporarily unavailable"])
@pytest.mark.parametrize("is_group", [True, False])
def test_a_job_that_is_refused_for_a_time_is_submitted_until_it_is_taken(
    executor: Any, words: str, is_group: bool
) -> None:
    job = Job("train", is_group)
    executor.answers = [words] * 5
    executor.run_job(job)
    assert executor.submitted == [job]
    assert executor.errors == []
    executor.answers = [words] * 5
    executor.run_job(Job("another"))
    (line,) = executor.logger.said  # once
    assert words.splitlines()[0].split(": ")[-1] in line
    assert ("--jobs NUMBER" in line) == (words == FULL)
    assert job.attempt == 1


@pytest.mark.parametrize("words", [AWAY, SLOW])
@pytest.mark.parametrize("num_silent", [0, 3])
def test_what_was_taken_without_an_answer_is_cancelled_before_the_next_submission(
    executor: Any, monkeypatch: pytest.MonkeyPatch, words: str, num_silent: int
) -> None:
    done: list[Any] = []
    silent = [False] * num_silent

    def cancel_others(run: str, known: set[str]) -> bool:
        done.append((run, {*known}, len(executor.submitted)))
        return silent.pop() if silent else True

    monkeypatch.setattr(slurm_executor, "cancel_others", cancel_others)
    executor.report_job_submission(SimpleNamespace(external_jobid="7", job=Job("earlier")))
    executor.active_jobs.clear()  # the plugin asks for their states
    executor.answers = [words]
    executor.run_job(Job("train"))
    assert done == [("run-7", {"7"}, 0)] * (1 + num_silent)
    assert len(executor.submitted) == 1


def test_nothing_is_cancelled_after_a_limit(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_executor, "cancel_others", lambda run, known: pytest.fail("called"))
    executor.answers = [FULL]
    executor.run_job(Job("train"))
    assert len(executor.submitted) == 1


def test_nothing_is_cancelled_while_a_submission_has_no_number_yet(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def submit(self: Any, job: Any) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        order.append("submitted")

    def cancel_others(run: str, known: set[str]) -> bool:
        order.append("cancelled")
        return True

    monkeypatch.setattr(PluginExecutor, "run_job", submit)
    monkeypatch.setattr(slurm_executor, "cancel_others", cancel_others)
    submitter = threading.Thread(target=executor.run_job, args=(Job("other"),))
    submitter.start()
    assert begun.wait(PATIENCE)
    canceller = threading.Thread(target=executor._is_withdrawn, args=(AWAY,))
    canceller.start()
    canceller.join(0.1)
    go_on.set()
    submitter.join(PATIENCE)
    canceller.join(PATIENCE)
    assert order == ["submitted", "cancelled"]


def test_a_limit_that_holds_without_any_job_in_the_queue_is_final(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_executor, "has_jobs_in_queue", lambda: False)
    executor.answers = [FULL]
    executor.run_job(Job("train"))
    ((_, line),) = executor.errors
    assert "no more batch jobs in the queue" in line
    assert "--jobs NUMBER" in line


def test_a_submission_that_ends_with_the_run_is_no_refusal(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_executor, "_GRACE", PATIENCE)
    executor.answers = [f"{PREFIX}Killed by Ctrl-C"]
    submitter = threading.Thread(target=executor.run_job, args=(Job("train"),))
    submitter.start()
    executor.shutdown()
    submitter.join(PATIENCE)
    assert executor.errors == []


def test_errors_of_an_array_are_reported_as_they_come(executor: Any) -> None:
    job = Job("train")
    executor._report_job_error_threadsafe(SimpleNamespace(job=job), "Part of an array")
    assert executor.errors == [(job, "Part of an array")]


@pytest.fixture
def scancel(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    called: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], **options: Any) -> None:
        called.append(command)
        assert options["start_new_session"]  # the terminal sends Ctrl-C to all of one session
        os.kill(os.getpid(), signal.SIGINT)  # impatience

    monkeypatch.setattr(subprocess, "run", run)
    return called


def test_cancel_ends_what_waits_and_then_cancels_all_by_the_name_of_the_run(
    executor: Any,
    monkeypatch: pytest.MonkeyPatch,
    scancel: list[tuple[str, ...]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(slurm_executor, "_PAUSE", PATIENCE)
    executor.answers = [AWAY] * 2  # both threads of the plugin wait
    jobs = [Job(f"rule{number}") for number in range(9)]
    for job in jobs:
        executor._job_submission_executor.submit(executor.run_job, job)
    while executor.answers or not executor.logger.said:
        pass
    executor.cancel()
    assert scancel == [("scancel", "--me", "--name=run-7")]
    assert executor.submitted == []
    assert executor.errors == []
    assert not executor.wait
    assert "are being cancelled: wait" in capfd.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        subprocess.CalledProcessError(1, "scancel", stderr="scancel: error: no controller\n"),
        subprocess.TimeoutExpired("scancel", 60),
        FileNotFoundError(2, "No such file or directory", "scancel"),
    ],
)
def test_cancel_names_the_command_where_it_fails(
    executor: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run(command: tuple[str, ...], **options: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    executor.cancel()
    (line,) = executor.logger.said
    assert "could not be cancelled" in line
    assert line.endswith("scancel --me --name=run-7")
    assert not executor.wait

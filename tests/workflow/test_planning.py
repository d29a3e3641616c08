"""Looks that Snakemake takes once for each rule, not for each job."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from snakemake import api, common, dag, io, jobs, rules, script  # noqa: F401 (import each other)
from snakemake.exceptions import ChildIOException
from snakemake.io import AnnotatedString, IOFile, is_flagged
from snakemake.resources import Resource
from snakemake.scheduling.job_scheduler import JobRateLimiter, JobScheduler
from snakemake.settings.types import MaxJobsPerTimespan
from snakemake_interface_common.io import AnnotatedStringInterface
from snakemake_starts import run_snakemake

from hesspipe.workflow.planning import look_once

CHECK_OF_SNAKEMAKE = dag.DAG.check_directory_outputs
EVALUATOR_OF_SNAKEMAKE = Resource.cli_evaluator


@pytest.fixture(autouse=True)
def looked_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look once in this test only."""
    for owner, name in (
        (dag.ScriptProcessor, "process_job"), (common, "get_function_params"),
        (rules, "get_function_params"), (dag.DAG, "check_directory_outputs"),
        (io._IOFile, "checksum"), (jobs.Job, "conda_env_spec"), (script, "get_language"),
        (Resource, "cli_evaluator"), (JobScheduler, "_schedule_reevalutation"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, getattr(owner, name))
    kind = type(AnnotatedStringInterface)
    look_once.__wrapped__()
    yield
    AnnotatedStringInterface.__class__ = kind  # type: ignore[assignment]


class Callable:
    """A callable object that cannot be a key."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, wildcards: Any, threads: int) -> None:
        """Do nothing."""


class Rules:
    """Has methods of two kinds."""

    def method(self, wildcards: Any, threads: int) -> None:
        """Do nothing."""

    @classmethod
    def of_class(cls, wildcards: Any, attempt: int) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "function",
    [
        lambda wildcards: 1,
        lambda wildcards, **rest: 1,
        partial(lambda wildcards, threads, attempt: 1, attempt=2),
        Rules().method,
        Rules.method,
        Rules.of_class,
        Callable(),
        Path,
        Resource("mem_mb", lambda wildcards, threads: 1).evaluate,
    ],
)
def test_parameters_of_functions_are_those_of_their_signature(function: Any) -> None:
    expected = inspect.signature(function).parameters
    for _ in range(2):
        assert common.get_function_params(function) == expected


def test_parameters_that_snakemake_was_told_are_used() -> None:
    def function(*given: Any) -> None:
        """Take anything."""

    common.overwrite_function_params(function, ["wildcards"])
    assert common.get_function_params(function) == ["wildcards"]


class Cache:
    """A cache of sources that counts its readings."""

    def __init__(self, source: str | None) -> None:
        self.source, self.num_read = source, 0

    def open(self, source_file: Any) -> Any:
        """Open the text."""
        self.num_read += 1
        assert self.source is not None
        return open(self.source, encoding="utf-8")

    def get_path(self, source_file: Any) -> str:
        """Give its place."""
        return str(self.source)

    def exists(self, source_file: Any) -> bool:
        """Whether it can be read."""
        return self.source is not None


def job_of(script: str, folder: Path) -> Any:
    """A job with what is looked at."""
    rule = SimpleNamespace(script=script, basedir=str(folder))
    return SimpleNamespace(is_script=True, rule=rule, wildcards={}, params={})


@pytest.mark.parametrize(("script", "num_read"), [("one.py", 1), ("{wildcards}one.py", 3)])
def test_script_is_read_once_unless_it_depends_on_wildcards(
    script: str, num_read: int, tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text("pass")
    cache = Cache(str(tmp_path / "one.py"))
    workflow = SimpleNamespace(sourcecache=cache)
    processor = dag.ScriptProcessor(SimpleNamespace(workflow=workflow))
    for _ in range(3):
        processor.process_job(job_of(script, tmp_path))
    assert cache.num_read == num_read


def test_missing_script_is_refused_for_each_job(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("pass")
    cache = Cache(str(tmp_path / "one.py"))
    cache.exists = lambda source_file: False  # type: ignore[method-assign]
    processor = dag.ScriptProcessor(SimpleNamespace(workflow=SimpleNamespace(sourcecache=cache)))
    for _ in range(2):
        with pytest.raises(Exception, match="not accessible"):
            processor.process_job(job_of("one.py", tmp_path))


@pytest.mark.parametrize(
    ("outputs", "is_refused"),
    [
        ([["a/b"], ["a/b/c"]], True),
        ([["a/b", "a/b.c"], ["a/b/c"]], True),
        ([["a/b-c", "a/b.c"], ["a/b/c"], ["./a/b"]], True),
        ([["a/b", "a/b/c"]], False),
        ([["a/b"], ["a/bc"], ["a/b.c"]], False),
        ([["a/x"], ["b/x"], ["a/y/z"]], False),
    ],
)
def test_output_within_another_job_s_is_refused_as_by_snakemake(
    outputs: list[list[str]], is_refused: bool
) -> None:
    jobs = [SimpleJob(paths) for paths in outputs]
    graph: Any = SimpleNamespace(jobs=jobs)
    for check in (dag.DAG.check_directory_outputs, CHECK_OF_SNAKEMAKE):
        with pytest.raises(ChildIOException) if is_refused else nullcontext():
            check(graph)


@dataclass(frozen=True, order=True)
class SimpleJob:
    """A job with outputs."""

    output: list[str]

    def __hash__(self) -> int:
        """Be a member of a set."""
        return id(self)


def test_digest_of_a_file_is_computed_once_and_again_when_its_content_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []

    def file_digest(file: BinaryIO, algorithm: Any) -> Any:
        read.append(file.read())
        return hashlib.sha256(read[-1])

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    path = tmp_path / "dataset"
    path.write_bytes(b"first")
    workflow = SimpleNamespace(iocache=SimpleNamespace(active=False))
    rule = SimpleNamespace(workflow=workflow, pathvars=SimpleNamespace(apply=str))

    def checksum(threshold: int) -> str | None:
        file = io.IOFile(str(path), rule=rule)  # each job has its own
        found: str | None = asyncio.run(file.checksum(threshold))
        return found

    assert [checksum(10) for _ in range(3)] == [
        f"sha256:{hashlib.sha256(b'first').hexdigest()}"
    ] * 3
    assert read == [b"first"]
    assert checksum(4) is None  # what is kept for one limit does not answer for another
    times = path.stat()
    time.sleep(0.05)  # more than a tick of the file system's clock
    path.write_bytes(b"other")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert checksum(10) == f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    path.unlink()
    assert checksum(10) is None


@pytest.mark.parametrize(
    ("environment", "is_asked"), [("envs/one.yaml", False), (lambda wildcards, params: "one", True)]
)
def test_parameters_are_worked_out_for_environments_that_are_functions_only(
    environment: Any, is_asked: bool
) -> None:
    asked = []
    rule = SimpleNamespace(
        _conda_env=environment, expand_conda_env=lambda wildcards, params, files: ("spec", params)
    )

    class Job(jobs.Job):
        """A job that counts how often its parameters are worked out."""

        def __init__(self) -> None:
            self._conda_env_spec, self.wildcards_dict, self._input = None, {}, []
            self.rule = rule

        @property
        def params(self) -> str:
            """Work them out."""
            asked.append(1)
            return "parameters"

    job = Job()
    for _ in range(2):
        assert job.conda_env_spec == ("spec", "parameters" if is_asked else None)
    assert len(asked) == is_asked


@pytest.mark.parametrize(
    ("name", "language"),
    [("one.py", "python"), ("one.R", "r"), ("one.py.sh", "bash"), ("py", None)],
)
def test_language_of_a_script_is_that_of_its_suffix(name: str, language: str | None) -> None:
    assert script.get_language(SimpleNamespace(get_filename=lambda: name), "") == language


def test_language_of_a_notebook_is_that_in_it() -> None:
    file = SimpleNamespace(get_filename=lambda: "one.ipynb")
    metadata = {"language_info": {"name": "R"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "cells": [], "metadata": metadata}
    assert script.get_language(file, json.dumps(notebook)) == "jupyter_r"


@pytest.mark.parametrize("value", ["system_tmpdir", "'system_tmpdir'", "attempt * 2", "n1-2", "~"])
def test_resources_of_the_command_line_are_evaluated_as_by_snakemake(value: str) -> None:
    def evaluate(function: Any) -> Any:
        return function(
            "name", value, wildcards={}, input=[], attempt=3, threads=2, async_run=lambda wait: wait
        )

    evaluated = evaluate(Resource.cli_evaluator)
    assert evaluated == evaluate(EVALUATOR_OF_SNAKEMAKE)


@pytest.mark.parametrize("value", ["one", AnnotatedString("one"), len, None, Path("one")])
def test_flags_are_found_where_snakemake_finds_them(value: Any) -> None:
    is_annotated = isinstance(value, AnnotatedStringInterface)
    assert is_annotated == (AnnotatedStringInterface in type(value).__mro__)
    if is_annotated:
        value.flags["temp"] = True
    assert is_flagged(value, "temp") == is_annotated
    assert not is_flagged(value, "directory")


def test_file_of_a_rule_has_the_flags_of_its_path() -> None:
    file = IOFile(AnnotatedString("one"), rule=None)
    file.flags["temp"] = True
    assert isinstance(file, AnnotatedStringInterface)
    assert file.is_temp
    assert not file.is_directory


@pytest.mark.parametrize("is_waiting_for_input", [False, True])
@pytest.mark.parametrize("num_before", [None, 0, 1, 2])
@pytest.mark.parametrize("num_started", [0, 1])
def test_jobs_are_chosen_again_later_only_if_that_may_start_one(
    num_started: int, num_before: int | None, is_waiting_for_input: bool
) -> None:
    scheduler: Any = JobScheduler.__new__(JobScheduler)
    scheduler._open_jobs = threading.Semaphore(0)
    scheduler.job_rate_limiter = None
    if num_before is not None:
        scheduler.job_rate_limiter = JobRateLimiter(MaxJobsPerTimespan(2, "1h"))
        scheduler.job_rate_limiter.register_jobs(num_before)
    scheduler._last_job_selection_empty = not num_started
    inputs = {"a job"} if is_waiting_for_input else set()
    scheduler.workflow = SimpleNamespace(dag=SimpleNamespace(queue_input_jobs=inputs))
    scheduler._schedule_reevalutation(0.01)
    is_needed = bool(num_started or num_before == 2 or is_waiting_for_input)
    assert scheduler._open_jobs.acquire(timeout=5.0 if is_needed else 0.05) == is_needed


SNAKEFILE = """
import sys, time
from snakemake.scheduling.job_scheduler import JobRateLimiter, JobScheduler
from hesspipe.workflow.planning import look_once
look_once()
select = JobScheduler.job_selector
def job_selector(scheduler, jobs):
    chosen = select(scheduler, jobs)
    print("CHOSE", len(chosen), time.time(), file=sys.stderr)
    return chosen
JobScheduler.job_selector = job_selector
JobRateLimiter.timespan = 0.2
rule all:
    input: expand("{number}.txt", number=range(6))
rule one:
    output: "{number}.txt"
    shell: "touch {output}; sleep 0.5"
"""


@pytest.mark.parametrize("limit", [1, 100])
def test_snakemake_chooses_jobs_when_one_has_ended_and_keeps_the_rate_that_was_asked_for(
    limit: int, tmp_path: Path
) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = ["--cores", "2", "--scheduler", "greedy", f"--max-jobs-per-timespan={limit}/1h"]
    code, said = run_snakemake(arguments, tmp_path, environment)
    assert code == 0, said
    choices = [line.split()[1:] for line in said.splitlines() if line.startswith("CHOSE")]
    started = [float(at) for num, at in choices if num != "0"]
    assert len(choices) <= 2 * 7 or limit == 1  # after each end, and a while after each start
    if limit == 1:
        assert {num for num, _ in choices} == {"0", "1"}
        assert min(after - before for before, after in itertools.pairwise(started)) > 0.19

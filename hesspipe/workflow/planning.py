"""Facts that Snakemake works out for every job though they are those of the rule: here once.

Of a dry run of a thousand experiments, a third was spent on reading the same few scripts, and on
the names of the parameters of the same few functions, again for each job. What is kept here cannot
change while Snakemake plans: it runs its own copies of the scripts, which it makes at the first
look. And the digest of a dataset of 30 MB was computed once for each output of each of the jobs
that read it, half of Snakemake's time for short jobs. These places are private to Snakemake: hence
its pinned version, and tests.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from abc import ABCMeta
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any


class _Plain(ABCMeta):
    """Of an abstract class that nothing is registered with: instances are those of subclasses.

    Python's own answer to `isinstance` then does, which is asked a million times.
    """

    __instancecheck__ = type.__instancecheck__


@cache
def look_once() -> None:
    """Let Snakemake, in this process, look once at each script and at each function."""
    from snakemake import common, dag, io, jobs, resources, rules, script
    from snakemake.scheduling.job_scheduler import JobScheduler
    from snakemake_interface_common.io import AnnotatedStringInterface

    dag.ScriptProcessor.process_job = _once_for_each_script(dag.ScriptProcessor.process_job)
    parameters = _once_for_each_function(common.get_function_params)
    common.get_function_params = rules.get_function_params = parameters
    io._IOFile.checksum = _once_for_each_content(io._IOFile.checksum)
    dag.DAG.check_directory_outputs = _check_no_output_is_in_another
    jobs.Job.conda_env_spec = property(_conda_env_spec)
    JobScheduler._schedule_reevalutation = _choose_later
    script.get_language = _python_without_notebooks(script.get_language)
    evaluate = _once_for_folder(resources.Resource.cli_evaluator)
    resources.Resource.cli_evaluator = staticmethod(evaluate)
    annotated: Any = AnnotatedStringInterface
    annotated.__class__ = _Plain


def _once_for_each_script(process: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Check that the script of a rule is there for its first job only."""
    seen: set[tuple[str, str]] = set()

    def process_job(processor: Any, job: Any) -> None:
        script = str(job.rule.script)
        place = (script, str(job.rule.basedir))
        if place not in seen:
            process(processor, job)
            if job.is_script and "{" not in script:  # the same for all wildcards
                seen.add(place)

    return process_job


def _once_for_each_function(
    parameters: Callable[[Callable[..., Any]], Mapping[str, Any]],
) -> Callable[[Callable[..., Any]], Mapping[str, Any]]:
    """Inspect the signature of a function once, and that of a method once for all instances."""
    known: dict[tuple[Any, bool], Mapping[str, Any]] = {}

    def get_function_params(function: Callable[..., Any]) -> Mapping[str, Any]:
        method = getattr(function, "__func__", None)
        key = (method or function, method is not None)
        try:
            if key not in known:
                known[key] = parameters(function)
            return known[key]
        except TypeError:  # it cannot be a key
            return parameters(function)

    return get_function_params


def _once_for_each_content(
    checksum: Callable[..., Awaitable[str | None]],
) -> Callable[..., Awaitable[str | None]]:
    """Compute the digest of a file again only if its status has changed."""
    known: dict[tuple[Any, ...], str] = {}

    async def once(file: Any, *args: Any, **options: Any) -> str | None:
        if file.is_storage or not os.path.exists(file.file):
            return await checksum(file, *args, **options)
        status = os.stat(file.file)
        times = (status.st_mtime_ns, status.st_ctime_ns)
        content = (status.st_dev, status.st_ino, status.st_size, *times)
        key = (content, args, tuple(options.items()))
        if key not in known:
            found = await checksum(file, *args, **options)
            if found is None:
                return None
            known[key] = found
        return known[key]

    return once


def _check_no_output_is_in_another(graph: Any) -> None:
    """Do what the method of this name does, with texts in the place of Path objects."""
    from snakemake.exceptions import ChildIOException

    outputs = [(os.path.abspath(path), job) for job in graph.jobs for path in job.output]
    # Each folder directly before what is in it: in the order of their parts.
    outputs.sort(key=lambda output: output[0].split(os.sep))
    for parent, child in itertools.pairwise(outputs):
        if child[0].startswith(parent[0] + os.sep) and parent[1] != child[1]:
            raise ChildIOException(parent=parent, child=child)


def _conda_env_spec(job: Any) -> Any:
    """Do what the property of this name does; parameters are worked out for functions only."""
    if job._conda_env_spec is None:
        params = job.params if callable(job.rule._conda_env) else None
        job._conda_env_spec = job.rule.expand_conda_env(job.wildcards_dict, params, job.input)
    return job._conda_env_spec


def _choose_later(scheduler: Any, delay: float) -> None:
    """Choose jobs again in a second only if some were started, or the rate holds some back.

    Snakemake does so after each choice, to start 100 jobs in a second at most. Since each of these
    choices is followed by another, it chooses n times in a second once n jobs have ended.
    """
    has_started = not scheduler._last_job_selection_empty
    limiter = scheduler.job_rate_limiter
    is_held_back = limiter is not None and limiter.get_free_jobs() == 0
    if has_started or is_held_back or scheduler.workflow.dag.queue_input_jobs:
        timer = threading.Timer(delay, scheduler._open_jobs.release)
        timer.daemon = True  # the end of a run does not wait for it
        timer.start()


def _python_without_notebooks(language: Callable[[Any, str], str]) -> Callable[[Any, str], str]:
    """Tell Python from its suffix before the library for notebooks is imported."""

    def get_language(source_file: Any, source: str) -> str:
        is_python = source_file.get_filename().endswith(".py")
        return "python" if is_python else language(source_file, source)

    return get_language


def _once_for_folder(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """Look the folder for temporary files up without evaluating its name as an expression."""

    def cli_evaluator(name: str, value: str, **known: Any) -> Any:
        if value == "system_tmpdir":  # Snakemake's default, which depends on no job
            return tempfile.gettempdir()
        return evaluate(name, value, **known)

    return cli_evaluator

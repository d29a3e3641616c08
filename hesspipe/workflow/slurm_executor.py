"""What the executor for Slurm and Snakemake's groups of jobs leave undone between them.

These places are private to both: hence pinned versions, and tests.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

_PREEMPTED, _CANCELLED = "PREEMPTED", "CANCELLED"
_ENOUGH_FOR_AN_ARRAY = 11  # jobs; of fewer, users are warned


@cache
def mend_executor() -> None:
    """Let this process say why groups fail, and see soon when batch jobs have ended.

    - The executor names the rule of a job that it cannot submit. A group has none, which was an
      error of its own, in a thread: the run went on for ever without a word.
    - A group told of its error, but not of the reason, e.g. the words of `sbatch`.
    - The executor waits ten seconds more before each look at its jobs, up to three minutes, until
      one has ended: the end of a group after 50 seconds was seen after 80. Now it waits for
      `--seconds-between-status-checks` at most, as other executors do.
    - It leaves jobs that were preempted to Slurm, which puts them into its queue again only where
      the cluster is set up so (PreemptMode=REQUEUE). Others were waited for for ever; now they
      count as cancelled, and are tried again.
    - It refuses a cluster without job arrays (MaxArraySize=0), which no rule here needs.
    """
    from snakemake.jobs import GroupJob
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    group: Any = GroupJob
    group.rule = property(lambda self: next(iter(self.jobs)).rule)
    group.log_error = _with_reason(group.log_error)
    executor: Any = RemoteExecutor
    executor.sleep = _at_most(executor.sleep)
    plugin: Any = importlib.import_module("snakemake_executor_plugin_slurm")
    plugin.query_job_status = _with_an_end(plugin.query_job_status)
    most = plugin.get_max_array_size
    plugin.get_max_array_size = lambda: max(_ENOUGH_FOR_AN_ARRAY, most())


def _with_reason(log_error: Any) -> Any:
    """Log what a group is told of its error."""
    from snakemake.logging import logger

    def log_reason_and_error(self: Any, msg: str | None = None, **details: Any) -> None:
        if msg:
            logger.error(msg)
        log_error(self, msg, **details)

    return log_reason_and_error


def _at_most(sleep: Any) -> Any:
    """Let an executor sleep no longer than its user says."""

    async def sleep_at_most(self: Any) -> None:
        longest = self.workflow.remote_execution_settings.seconds_between_status_checks
        seconds = self.next_seconds_between_status_checks
        self.next_seconds_between_status_checks = min(seconds, longest)
        await sleep(self)

    return sleep_at_most


def _with_an_end(query: Any) -> Any:
    """Say that jobs are cancelled that are preempted at two looks: those in a queue again wait."""
    seen: set[str] = set()

    async def query_job_status(command: str, logger: Any) -> Any:
        states, seconds = await query(command, logger)
        if states is not None:
            preempted = {job for job, state in states.items() if state == _PREEMPTED}
            states = {**states, **dict.fromkeys(preempted & seen, _CANCELLED)}
            seen.clear()
            seen.update(preempted)
        return states, seconds

    return query_job_status

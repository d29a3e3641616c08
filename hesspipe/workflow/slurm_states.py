"""What has become of batch jobs, from all that Slurm says and does not say.

Snakemake's executor takes silence for an end: it forgets jobs when the controller does not answer,
and waits for ever for those that Slurm does not know any more.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

States = dict[str, str]
Query = Callable[[str, Any], Awaitable[tuple[States | None, float | None]]]

_CANCELLED = "CANCELLED"
# Ends that a job leaves again if it is put into the queue a second time (JobRequeue, PreemptMode).
_MAY_RETURN = {"PREEMPTED", "NODE_FAIL"}
# Ends that the executor waits at.
_OTHER_ENDS = {"REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"}
_ENDS = {
    *_MAY_RETURN, *_OTHER_ENDS, _CANCELLED, "COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY",
    "BOOT_FAIL", "DEADLINE",
}  # fmt: skip


class Plugin(Protocol):
    """What is used of the executor's module."""

    query_job_status: Query

    def query_job_status_sacct(self, runid: str) -> str:
        """Give the command that asks the accounting database for the jobs of a run."""

    def query_job_status_squeue(self, runid: str) -> str:
        """Give the command that asks the controller for the jobs of a run."""


class BatchJobs:
    """What Slurm says of the jobs of one run, look by look.

    Parameters
    ----------
    plugin : Plugin
    """

    def __init__(self, plugin: Plugin) -> None:
        self._plugin, self._query = plugin, plugin.query_job_status
        self.numbers: Collection[str] = ()  # of the jobs that are waited for
        self._is_silent = False
        self._told: set[str] = set()
        # At the last look: ended for good if no other starts them, and not listed.
        self._may_return: set[str] = set()
        self._missing: set[str] = set()

    async def ask(self, command: str, logger: Any) -> tuple[States, float]:
        """Ask for the states of all jobs, in place of the executor's function.

        - No answer is none: jobs are waited for until there is one.
        - The accounting database adds who has cancelled a job ("CANCELLED by 1000").
        - Jobs that were preempted, or lost their node, are Slurm's to start again, where the
          cluster is set up so. At a second look they have ended.
        - Jobs that are not listed have ended longer ago than the controller remembers, or it has
          lost its state. What the other command says of them counts.

        Parameters
        ----------
        command : str
            `squeue` or `sacct` with its arguments, the name of the run last.
        logger : Logger

        Returns
        -------
        tuple of (dict, float)
            The state of each job that is known, and the seconds that it took.
        """
        states, seconds = await self._answer(command, logger)
        if states is None:
            return {}, 0.0
        states = {number: _word(state) for number, state in states.items()}
        states |= dict.fromkeys((n for n, s in states.items() if s in _OTHER_ENDS), _CANCELLED)
        may_return = {number for number, state in states.items() if state in _MAY_RETURN}
        states |= dict.fromkeys(may_return & self._may_return, _CANCELLED)
        self._may_return = may_return
        missing = _not_listed(self.numbers, states)
        if lost := missing & self._missing:
            states |= await self._find(lost, command, logger)
        self._missing = missing
        return states, seconds or 0.0

    async def _answer(self, command: str, logger: Any) -> tuple[States | None, float | None]:
        """Ask, and tell once of silence and of its end. Without accounting, `sacct` fails."""
        reasons = _Reasons()
        states, seconds = await self._query(command, reasons)
        if states is None and command.startswith("sacct"):
            states, seconds = await self._query(self._other(command), reasons)
        if (states is None) != self._is_silent:
            self._is_silent = states is None
            logger.warning(
                f"Slurm does not answer ({reasons.last}). Batch jobs go on, and this run waits "
                "until it does"
                if self._is_silent
                else "Slurm answers again"
            )
        return states, seconds

    def _other(self, command: str) -> str:
        run = command.split()[-1]
        if command.startswith("squeue"):
            return self._plugin.query_job_status_sacct(run)
        return self._plugin.query_job_status_squeue(run)

    async def _find(self, lost: set[str], command: str, logger: Any) -> States:
        """Ask the other command for jobs that are not listed; without a trace, they have ended."""
        asks_controller = command.startswith("sacct")
        answer, _ = await self._query(self._other(command), _Reasons())
        if answer is None and asks_controller:
            return {}
        found = {number: _word((answer or {}).get(number, "")) for number in lost}
        gone = {number for number in lost if not found[number]}
        # Accounts of a controller that has lost its state stay open.
        is_open = {number for number in lost - gone if found[number] not in _ENDS}
        self._tell(
            logger,
            gone,
            "Slurm does not know some batch jobs any more ({jobs}): they ended while Snakemake or "
            "the controller did not answer, or it has lost its state. They count as failed",
        )
        self._tell(
            logger,
            set() if asks_controller else is_open,
            "Some batch jobs are not in Slurm's queue, and its accounts say that they go on "
            "({jobs}): this run waits for them. If they have ended, end it with Ctrl-C, and start "
            "it again",
        )
        stays = is_open | {n for n in lost - gone if found[n] not in _MAY_RETURN | _OTHER_ENDS}
        return {number: found[number] if number in stays else _CANCELLED for number in lost}

    def _tell(self, logger: Any, jobs: Collection[str], text: str) -> None:
        if new := sorted(job for job in jobs if job not in self._told):
            self._told.update(new)
            logger.warning(text.format(jobs=", ".join(new)))


def _word(state: str) -> str:
    """The state alone: not who has cancelled a job, and not that the column was too short."""
    return re.split(r"[ +]", state.strip(), maxsplit=1)[0]


def _not_listed(numbers: Collection[str], states: Mapping[str, str]) -> set[str]:
    """Those without a state; the tasks of an array may have one line (7_[1-9])."""
    listed = {number.split("_")[0] for number in states}
    return {number for number in numbers if number.split("_")[0] not in listed}


class _Reasons:
    """A logger that keeps why a query has failed."""

    last = "no reason given"

    def debug(self, text: str) -> None:
        lines = text.strip().splitlines()
        if lines:
            self.last = lines[-1].removeprefix("SLURM query command failed: ")

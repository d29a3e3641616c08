"""The executor for Slurm, with what Snakemake's plugin leaves undone.

The plugin submits jobs, and asks for their states. Whatever else a cluster does must neither let a
run wait for ever without a word, nor leave jobs of a run behind that has ended. The methods that
are changed are private to the plugin: hence its pinned version, and tests with a real Slurm.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import threading
from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING, Any

from hesspipe.workflow.ctrl_c import CtrlC
from hesspipe.workflow.slurm import cancel_others, has_jobs_in_queue
from hesspipe.workflow.slurm_reasons import (
    advise_on_refusal,
    explain_pause,
    is_full,
    passes_by_itself,
)
from hesspipe.workflow.slurm_states import BatchJobs

_ENOUGH_FOR_AN_ARRAY = 11  # jobs; of fewer, users are warned
_PATIENCE = 60.0  # seconds that scancel has
_GRACE = 1.0  # seconds before a refusal is final
_PAUSE = 15.0  # seconds between attempts to submit a job that was refused for what passes

if TYPE_CHECKING:

    class _PluginExecutor:
        """What is used of the plugin's executor."""

        workflow: Any
        logger: Any
        run_uuid: str
        wait: bool
        next_seconds_between_status_checks: float
        lock: threading.Lock
        active_jobs: list[Any]
        _job_submission_executor: Any

        def __init__(self, workflow: Any, logger: Any) -> None: ...
        def run_job(self, job: Any) -> None: ...
        def report_job_error(self, job_info: Any, msg: str | None = None) -> None: ...
        def print_job_error(self, job_info: Any, msg: str | None, **details: Any) -> None: ...
        def report_job_submission(self, job_info: Any, register_job: bool = True) -> None: ...
        def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]: ...
        def shutdown(self) -> None: ...

else:
    _PluginExecutor = object


class PatientExecutor(_PluginExecutor):
    """Methods that come before those of the plugin's executor.

    - A job that Slurm refuses for what passes, e.g. as its controller is away or as a limit allows
      no more jobs in the queue, is submitted again until it is taken. Any other refusal is final:
      an attempt with more memory and time would be refused again.
    - A busy controller may take a job and not answer in time. Such a job is cancelled before its
      next submission, as there would be two of it.
    - All jobs of a run have its name, by which Ctrl-C cancels them. The plugin cancels by their
      numbers those that it knows of: none while it asks for their states, and not those that it
      goes on to submit.
    - The plugin waits ten seconds more before each look at its jobs, up to three minutes, until one
      has ended: the end of a group after 50 seconds was seen after 80. Here it waits for
      `--seconds-between-status-checks` at most, as other executors do, and not at the end of a run.
    - A group tells the reason of its error, as a single job does.
    - A controller that has lost its state gives the numbers of jobs a second time.
    """

    jobs: BatchJobs

    def __init__(self, workflow: Any, logger: Any) -> None:
        self._has_ended = threading.Event()
        self._told: set[str] = set()
        self._refusals: dict[Any, str | None] = {}  # of the jobs that are submitted now
        self._submission = threading.Lock()
        self._numbers: set[str] = set()  # of all batch jobs that Slurm has confirmed
        self._ctrl_c = CtrlC()
        self._ctrl_c.listen()
        super().__init__(workflow, logger)  # starts a thread

    def run_job(self, job: Any) -> None:
        """Submit a job, in a thread of the plugin's, and again while it is refused for a time."""
        while not self._has_ended.is_set():
            refusal = self._submit(job)
            if refusal is None:
                return
            if not self._is_temporary(refusal):
                # Ctrl-C ends sbatch too, and may be heard there first.
                if not self._has_ended.wait(_GRACE):
                    self._give_up(job, refusal)
                return
            line = explain_pause(_words(refusal), _PAUSE)
            if line not in self._told:
                self._told.add(line)
                self.logger.warning(line)
            self._has_ended.wait(_PAUSE)
            while not self._is_withdrawn(refusal) and not self._has_ended.wait(_PAUSE):
                pass

    def _submit(self, job: Any) -> str | None:
        """Submit a job; return the words of a refusal."""
        self._refusals[job] = None
        try:
            with self._submission:
                super().run_job(job)
        except Exception as error:  # the plugin's own handler fails for groups
            self._refusals[job] = str(error.__context__ or error)
        return self._refusals.pop(job)

    def _is_withdrawn(self, refusal: str) -> bool:
        """Cancel what Slurm took and did not answer in time; whether nothing is left of it."""
        if not passes_by_itself(refusal):
            return True
        with self._submission:  # none whose number is not known yet
            return cancel_others(self.run_uuid, self._numbers)

    def _report_job_error_threadsafe(self, job_info: Any, msg: str) -> None:
        if job_info.job in self._refusals:
            self._refusals[job_info.job] = msg
        else:  # of an array
            self.report_job_error(job_info, msg=msg)

    @staticmethod
    def _is_temporary(refusal: str) -> bool:
        # Without other jobs, the limit is below one.
        return passes_by_itself(refusal) or (is_full(refusal) and has_jobs_in_queue())

    def _give_up(self, job: Any, refusal: str) -> None:
        """Report a refused job, which is not tried again."""
        from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

        job.attempt = max(job.attempt, job.restart_times + 1)
        advice = advise_on_refusal(refusal)
        line = f"Slurm takes no batch job of {_name(job)} ({_words(refusal)})"
        self.report_job_error(SubmittedJobInfo(job), msg=f"{line}. {advice}. " if advice else line)

    def print_job_error(self, job_info: Any, msg: str | None = None, **details: Any) -> None:
        """Log an error, that of a group with its reason."""
        if msg and job_info.job.is_group():
            self.logger.error(msg)
        super().print_job_error(job_info, msg, **details)

    def report_job_submission(self, job_info: Any, register_job: bool = True) -> None:
        """Take a submitted job; one with its number is of a time before the controller's reset."""
        number = job_info.external_jobid
        self._numbers.add(number)
        with self.lock:
            lost = [one for one in self.active_jobs if one.external_jobid == number]
            self.active_jobs = [one for one in self.active_jobs if one.external_jobid != number]
        for one in lost:
            self.report_job_error(one, msg=f"Slurm gave the number {number} to another batch job. ")
        super().report_job_submission(job_info, register_job=register_job)

    async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncIterator[Any]:
        """Ask for the states of jobs; yield those that go on."""
        self.jobs.numbers = {job.external_jobid for job in active_jobs}
        async for job in super().check_active_jobs(active_jobs):
            yield job

    async def sleep(self) -> None:
        """Sleep until the next look at jobs, or the end of the run."""
        longest = self.workflow.remote_execution_settings.seconds_between_status_checks
        self.next_seconds_between_status_checks = min(
            longest, self.next_seconds_between_status_checks
        )
        rest = float(self.next_seconds_between_status_checks)
        while rest > 0 and self.wait and not self._has_ended.is_set():
            await asyncio.sleep(min(0.5, rest))
            rest -= 0.5

    def cancel(self) -> None:
        """Cancel all jobs of the run, and end."""
        with self._ctrl_c.held():
            self._has_ended.set()
            self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
            self._cancel_all()
            self.shutdown()

    def _cancel_all(self) -> None:
        command = ("scancel", "--me", f"--name={self.run_uuid}")
        try:
            # In a session of its own: Ctrl-C does not reach it.
            subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=_PATIENCE,
                start_new_session=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            words = _words(getattr(error, "stderr", None) or str(error))
            self.logger.error(
                f"The batch jobs of this run could not be cancelled ({words}), and go on. Cancel "
                f"them before you start it again: {' '.join(command)}"
            )

    def shutdown(self) -> None:
        """End at once: what waits to be submitted again is not waited for."""
        self._has_ended.set()
        super().shutdown()


def _words(text: str) -> str:
    """What Slurm says of a refusal, in one line and without the command."""
    said = re.search(r"error message was '(.*?)'?\.?\n\s+sbatch call:", text, re.DOTALL)
    lines = (said[1] if said else text).strip().splitlines()
    words = (re.sub(r"^s\w+: error: |Batch job submission failed: ", "", line) for line in lines)
    return "sbatch: " * bool(said) + "; ".join(word.strip() for word in words if word.strip())


def _name(job: Any) -> str:
    return f"group {job.groupid}" if job.is_group() else f"rule {job.rule.name}"


@cache
def mend_executor() -> None:
    """Let runs of this process use the executor above."""
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    plugin: Any = importlib.import_module("snakemake_executor_plugin_slurm")
    jobs = BatchJobs(plugin)
    plugin.query_job_status = jobs.ask
    # It refuses a cluster without job arrays (MaxArraySize=0), which no rule here needs.
    most = plugin.get_max_array_size
    plugin.get_max_array_size = lambda: max(_ENOUGH_FOR_AN_ARRAY, most())
    bases = (PatientExecutor, plugin.Executor)
    ExecutorPluginRegistry().plugins["slurm"].executor = type("Executor", bases, {"jobs": jobs})

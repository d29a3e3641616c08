"""What Slurm says of partitions and accounts before jobs are submitted, and of jobs that wait.

Slurm takes jobs that it will never start, e.g. those that ask for more time than their partition
allows, and Snakemake waits for them without a word.
"""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from hesspipe.workflow.slurm_reasons import advise_on_waiting

_PATIENCE = 60.0  # seconds that Slurm's commands have to answer
_FIRST_LOOK, _LOOKS = 60.0, 300.0  # seconds: kind to the controller of a large cluster
# How states of nodes that take no jobs begin, as sinfo's %T says them.
_CLOSED = r"down|drain|fail|maint|inval"


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster.

    Attributes
    ----------
    name : str
    is_default : bool
        Whether it gets the jobs that name none.
    max_minutes : int or None
        The longest time of a job; None without a limit, or if it is not known.
    is_open : bool
        Whether any node of it takes jobs now.
    """

    name: str
    is_default: bool
    max_minutes: int | None
    is_open: bool


def partitions() -> dict[str, Partition]:
    """Ask for the partitions; none if the cluster does not answer, which its commands report."""
    found: dict[str, Partition] = {}
    for line in _answer("sinfo", "--noheader", "--format=%P|%a|%l|%T").splitlines():
        fields = line.strip().split("|")
        if len(fields) != 4:
            continue
        name, is_up, limit, state = fields
        is_open = is_up == "up" and re.match(_CLOSED, state.lower()) is None
        known = found.get(name.rstrip("*"))
        found[name.rstrip("*")] = Partition(
            name.rstrip("*"),
            name.endswith("*"),
            minutes_of(limit),
            is_open or (known is not None and known.is_open),
        )
    return found


def accounts() -> set[str]:
    """Ask for the accounts of this user, in small letters; none if the cluster does not say."""
    user = getpass.getuser()
    for command in (
        ("sacctmgr", "--noheader", "--associations", "list", "user", user, "format=account%256"),
        ("sshare", "--Users", "--noheader", "--format=Account%256"),
    ):
        if found := _answer(*command).lower().split():
            return {*found}
    return set()


def minutes_of(limit: str) -> int | None:
    """Read a time as Slurm writes it.

    Examples
    --------
    >>> [minutes_of(text) for text in ("30:00", "2:00:00", "1-12:00:00", "infinite")]
    [30, 120, 2160, None]
    """
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", limit)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return (days * 24 + hours) * 60 + minutes + (seconds > 0)


def stuck_jobs(folder: str) -> Iterator[tuple[str, str]]:
    """Find jobs of a folder that wait for what does not come by waiting.

    Parameters
    ----------
    folder : str
        Where their Snakemake runs.

    Yields
    ------
    tuple of (reason, line)
        Slurm's reason, and a line for all jobs that have it: what it means, and the way out.
    """
    options = ("--me", "--noheader", "--states=PENDING,SUSPENDED", "--format=%i|%T|%Z|%r")
    waiting: dict[str, list[str]] = {}
    for line in _answer("squeue", *options).splitlines():
        job, state, rest = line.strip().split("|", 2)
        place, _, reason = rest.rpartition("|")
        if os.path.realpath(place) == os.path.realpath(folder):
            waiting.setdefault("suspended" if state == "SUSPENDED" else reason, []).append(job)
    for reason, jobs in waiting.items():
        advice = advise_on_waiting(reason, jobs[0])
        if advice is not None:
            others = f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
            yield reason, f"Batch job {jobs[0]}{others} waits in the queue ({reason}): {advice}"


def has_jobs_in_queue() -> bool:
    """Whether this user has any job in the queue, of this run or another."""
    return bool(_answer("squeue", "--me", "--noheader").strip())


def cancel_others(run: str, known: Collection[str]) -> bool:
    """Cancel the batch jobs of a run that it does not know of.

    Parameters
    ----------
    run : str
        The name of its batch jobs.
    known : collection of str
        The numbers of those that it knows of.

    Returns
    -------
    bool
        Whether Slurm has answered, so that none is left.
    """
    listed = _ask("squeue", "--me", f"--name={run}", "--noheader", "--format=%i")
    if listed is None:
        return False
    others = sorted({*listed.split()} - {*known})
    return not others or _ask("scancel", *others) is not None


def watch_queue(tell: Callable[[str], None], folder: str) -> None:
    """Tell of stuck jobs, once for each reason, from now on until this process ends.

    Parameters
    ----------
    tell : callable
    folder : str
        See `stuck_jobs`.
    """

    def watch() -> None:
        told: set[str] = set()
        time.sleep(_FIRST_LOOK)
        while True:
            for reason, line in stuck_jobs(folder):
                if reason not in told:
                    told.add(reason)
                    tell(line)
            time.sleep(_LOOKS)

    threading.Thread(target=watch, name="queue of Slurm", daemon=True).start()


def _answer(*command: str) -> str:
    return _ask(*command) or ""


def _ask(*command: str) -> str | None:
    """Run one of Slurm's commands; None if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

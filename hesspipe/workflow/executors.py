"""Where jobs run: on this machine, or on others that an executor of Snakemake's hands them to.

What is known of this machine, its memory and its GPU, says nothing of the others. And what their
executor needs is checked before it is asked, as it would fail at its first job with a traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hesspipe.workflow.slurm import Partition, accounts, partitions, watch_queue

_HERE = ("local", "dryrun", "touch")


@dataclass(frozen=True)
class Executor:
    """An executor of Snakemake's.

    Attributes
    ----------
    name : str
    is_dry_run : bool
        Whether jobs are only listed, or their outputs touched.
    partition : str, optional
        Of Slurm, for every job; or several, with commas.
    account : str, optional
        The same, of accounts.
    group_sizes : mapping
        How many jobs of a group make one batch job.
    array_jobs : str, optional
        The rules whose jobs are to be arrays of Slurm's.
    """

    name: str = "local"
    is_dry_run: bool = False
    partition: str | None = None
    account: str | None = None
    group_sizes: Mapping[str, int] = field(default_factory=dict)
    array_jobs: str | None = None

    @classmethod
    def of(cls, arguments: Sequence[str], num_jobs: int | None) -> Executor:
        """Find the executor of a command line and its profiles.

        Parameters
        ----------
        arguments : sequence of str
            Of Snakemake's command line.
        num_jobs : int or None
            The option --jobs, which every executor but the local one needs: without it, nothing is
            read.
        """
        if num_jobs is None:
            return cls()
        from snakemake.cli import parse_args

        try:
            with contextlib.redirect_stderr(io.StringIO()):  # it has named the profile before
                _, options = parse_args(list(arguments))
        except SystemExit:  # not Snakemake's command line: a program has called its API
            return cls()
        return cls(
            options.executor or "local",
            bool(options.dryrun or options.touch),
            _name(options.default_resources, "slurm_partition"),
            _name(options.default_resources, "slurm_account"),
            dict(options.group_components or {}),
            _text(getattr(options, "slurm_array_jobs", None)),
        )

    @property
    def is_remote(self) -> bool:
        """Whether jobs run on other machines."""
        return self.name not in _HERE

    def mistakes(self, gpus: int | str) -> Iterator[str]:
        """Find what would make every job fail, or run otherwise than its user expects.

        Parameters
        ----------
        gpus : int or str
            See `hesspipe.config.schema.Config.gpus`.

        Yields
        ------
        str
            A line for each: what is wrong, and the way out.
        """
        if self.is_remote and gpus == "auto":
            yield (
                f"gpus must be 0 or 1 for jobs of --executor {self.name}, got 'auto', which looks "
                "for a GPU on this machine; add --config gpus=0, or gpus=1 for jobs with a GPU "
                "(--config replaces that of a profile)"
            )
        if self.name == "slurm" and not self.is_dry_run:
            yield from self._mistakes_of_slurm()

    def _mistakes_of_slurm(self) -> Iterator[str]:
        if self.array_jobs:
            yield (
                f"--slurm-array-jobs must be left out, got {self.array_jobs!r}: the jobs of a rule "
                "ask for what each of them takes, and all of an array get what its first asks for; "
                "--group-components puts several jobs into one batch job"
            )
        missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            yield (
                f"--executor slurm needs {', '.join(missing)}, which this machine does not have; "
                "run this on a login node of the cluster, or leave the profile out to run jobs here"
            )
            return
        yield from _unknown("slurm_partition", self.partition, self._known, "sinfo")
        if self.account:
            # Slurm reads accounts without case.
            yield from _unknown(
                "slurm_account",
                self.account.lower(),
                accounts(),
                "sacctmgr show user $USER withassoc",
            )

    def longest_minutes(self, group: str | None = None) -> int | None:
        """Give the longest time of a job in its partition: all jobs of a batch job share it.

        Parameters
        ----------
        group : str, optional
            Of the job's rule.

        Returns
        -------
        int or None
            None if there is no limit, or it is not known.
        """
        limits = [partition.max_minutes for partition in self._chosen]
        known = [minutes for minutes in limits if minutes is not None]
        if not known or len(known) < len(limits):
            return None
        return max(1, max(known) // self.group_sizes.get(group or "", 1))

    def warnings(self) -> Iterator[str]:
        """Say what will let jobs wait, if nobody changes it.

        Yields
        ------
        str
        """
        if self._chosen and not any(partition.is_open for partition in self._chosen):
            names = ", ".join(partition.name for partition in self._chosen)
            yield (
                f"no node of partition {names} takes jobs now (sinfo says why): batch jobs will "
                "wait in the queue until one does; or choose another partition with "
                "--default-resources slurm_partition=NAME"
            )

    def watch(self, tell: Callable[[str], None]) -> None:
        """Hear from the cluster, as long as this process runs, of what would be waited for in vain.

        Parameters
        ----------
        tell : callable
            Of one line.
        """
        if self.name == "slurm" and not self.is_dry_run:
            from hesspipe.workflow.slurm_executor import mend_executor

            mend_executor()
            watch_queue(tell, str(Path.cwd()))

    @cached_property
    def _known(self) -> dict[str, Partition]:
        """The partitions of the cluster, by name; none for jobs that are only listed."""
        return partitions() if self.name == "slurm" and not self.is_dry_run else {}

    @property
    def _chosen(self) -> list[Partition]:
        """The partitions of most jobs: those that are named, or the default one."""
        if self.partition is None:
            return [partition for partition in self._known.values() if partition.is_default]
        return [self._known[name] for name in self.partition.split(",") if name in self._known]


def _unknown(key: str, given: str | None, known: Collection[str], command: str) -> Iterator[str]:
    """Find names that the cluster does not know; none if it does not say what it knows."""
    for name in given.split(",") if given and known else []:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            meant = f" (did you mean {nearest[0]}?)" if nearest else ""
            yield (
                f"{key} must be one of {', '.join(sorted(known))}, got {name!r}{meant}; see "
                f"{command}"
            )


def _text(option: object) -> str | None:
    """Read an option of a plugin's, whose default is a mark that nothing is given."""
    return option if isinstance(option, str) else None


def _name(default_resources: Any, key: str) -> str | None:
    """Read a name from the default resources; None for an expression of Python's."""
    resource = default_resources and default_resources.get(key)
    text = str(getattr(resource, "raw", None) or "").strip("'\"")
    return text if re.fullmatch(r"[\w.,-]+", text) else None

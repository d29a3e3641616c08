"""Jobs that this machine cannot do, found from the configuration alone before any job starts.

A result that does not exist yet and that this machine cannot hold, or would compute for more than
a year, is an error at the dry run. Whatever may still fit is left to the job, which compares its
forecast with the memory that is free when it starts. For jobs that run elsewhere,
$HESSPIPE_MEMORY_GIB and $HESSPIPE_DISK_GIB say what is there.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hesspipe.config.datasets import CIFAR10Images
from hesspipe.config.experiments import UserModel
from hesspipe.config.producers import inputs_of
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.data.cifar10_files import missing_files
from hesspipe.hardware import has_gpu, total_bytes
from hesspipe.workflow.needs import Need, needs
from hesspipe.workflow.resources import ON_A_GPU
from hesspipe.workflow.user_networks import needs_of_user_network

if TYPE_CHECKING:
    from hesspipe.config.schema import Config

_GIB, _MIB = 2**30, 2**20
_DAY = 86_400.0
_LONGEST_DAYS = 365.0  # of one job
_LONG_DAYS = 7.0  # worth a warning
# Multiplications and additions a second of one core, and of a GPU: high, so that no job is refused
# that another machine does in time.
_RATES = {False: 1e11, True: 1e14}


@dataclass(frozen=True)
class Machine:
    """What jobs may use.

    Attributes
    ----------
    memory_bytes, disk_bytes : int
    has_gpu : bool
    """

    memory_bytes: int
    disk_bytes: int
    has_gpu: bool

    @classmethod
    def present(cls, mem_mb: int | None = None) -> Machine:
        """Describe this machine, or the one that the environment states.

        Parameters
        ----------
        mem_mb : int, optional
            Of `--resources`, which no job may exceed.
        """
        return cls(
            _at_most(_stated_bytes("HESSPIPE_MEMORY_GIB") or total_bytes(), mem_mb),
            _disk_bytes(),
            has_gpu(),
        )

    @classmethod
    def elsewhere(cls, gpus: int | str, mem_mb: int | None = None) -> Machine:
        """Describe the machines of an executor, of which only what is stated is known.

        Parameters
        ----------
        gpus : int or str
            See `hesspipe.config.schema.Config.gpus`.
        mem_mb : int, optional
            Of `--resources`, which no job may exceed.
        """
        memory = _stated_bytes("HESSPIPE_MEMORY_GIB") or sys.maxsize
        return cls(_at_most(memory, mem_mb), _disk_bytes(), gpus == 1)

    def excesses(self, need: Need) -> Iterator[tuple[float, bool, str]]:
        """How many times too much a need is, whether jobs would fail, and why."""
        # What is computed on a GPU is held in its memory, whose size is not known here.
        is_certain = not (self.has_gpu and need.kind in ON_A_GPU)
        for needed, there, what in (
            (need.memory_bytes, self.memory_bytes, "of memory"),
            (need.disk_bytes, self.disk_bytes, "of disk space"),
        ):
            if needed > there:
                text = f"{_gib(needed)} {what}, and {_gib(there)} are there"
                yield needed / max(1, there), is_certain or what == "of disk space", text
        days = (need.operations / _RATES[self.has_gpu] + need.seconds) / _DAY
        if days > _LONG_DAYS:
            text = f"about {days:,.0f} days for each job"
            yield days / _LONGEST_DAYS, days > _LONGEST_DAYS, text


def excessive_needs(
    config: Config, arguments: Iterable[str], machine: Machine
) -> tuple[list[str], list[str]]:
    """Find entries whose missing results need more than there is.

    Parameters
    ----------
    config : Config
    arguments : iterable of str
        Of Snakemake's command line, as its targets are not known before it has read every rule.
        Those that are files of the workflow are the targets; without any, everything is one.
    machine : Machine

    Returns
    -------
    errors, warnings : list of str
        At most one line for each entry: the key, the need, what is there, and what to change.
    """
    found = [need for need in needs(config) if any(machine.excesses(need))]
    built = [name for name, plan in config.experiments.items() if isinstance(plan.model, UserModel)]
    if not (found or built):
        return [], []
    wanted = {(key.kind, key.experiment) for key in missing_results(config, arguments)}
    for name in built:
        if (ResultKind.SPECTRA, name) in wanted:  # to build a network is to import torch
            found += needs_of_user_network(name, config.experiments[name])
    worst: dict[str, tuple[float, bool, str]] = {}
    for need in found:
        excesses = [*machine.excesses(need)]
        if excesses and (need.kind, need.owner) in wanted:
            ratio, is_error, text = max(excesses)
            line = f"{need.key}: {need.what} needs {text}; {need.advice}"
            known = worst.get(need.owner, (0.0, False, ""))
            worst[need.owner] = max(known, (ratio, is_error, line))
    errors = [line for _, is_error, line in worst.values() if is_error]
    return errors, [line for _, is_error, line in worst.values() if not is_error]


def missing_results(config: Config, targets: Iterable[str]) -> set[ResultKey]:
    """Collect the results that are asked for and do not exist, and what they need that does not.

    Parameters
    ----------
    config : Config
    targets : iterable of str
        See `excessive_needs`.
    """
    named = [keys for target in targets if (keys := _keys_of(target, config)) is not None]
    waiting = [key for keys in named for key in keys] if named else _all_keys(config)
    found: set[ResultKey] = set()
    while waiting:
        key = waiting.pop()
        if key in found or os.path.exists(key.path):
            continue
        found.add(key)
        for inputs in inputs_of(key, config).values():
            waiting += [inputs] if isinstance(inputs, ResultKey) else inputs
    return found


def _keys_of(target: str, config: Config) -> list[ResultKey] | None:
    """The results behind a file of the workflow, None for anything else."""
    section, name = Path(target).parent.as_posix(), Path(target).stem
    if section in ("figures", "tables") and name in getattr(config, section):
        reads: list[ResultKey] = getattr(config, section)[name].reads(config)
        return [] if os.path.exists(target) else reads
    try:
        return [ResultKey.from_path(target)]
    except ValueError:
        return None


def _all_keys(config: Config) -> list[ResultKey]:
    """Everything that is computed or read, except what needs a download that is not there."""
    keys = [key for name, plan in config.experiments.items() for key in plan.computes(name)]
    keys += [key for _, entry in config.readers() for key in entry.reads(config)]
    absent = {
        name
        for name, plan in config.experiments.items()
        if isinstance(data := config.datasets[plan.dataset], CIFAR10Images)
        and missing_files(data.folder)
    }
    return [key for key in keys if key.experiment not in absent]


def _at_most(num_bytes: int, mem_mb: int | None) -> int:
    return num_bytes if mem_mb is None else min(num_bytes, mem_mb * _MIB)


def _disk_bytes() -> int:
    return _stated_bytes("HESSPIPE_DISK_GIB") or shutil.disk_usage(Path.cwd()).free


def _stated_bytes(variable: str) -> int | None:
    """Bytes that a variable of the environment states in GiB."""
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        number = float(text)
        if not 0 < number < 2**40:
            raise ValueError
    except ValueError:
        raise ValueError(f"{variable} must be a number of GiB above 0, got {text!r}") from None
    return int(number * _GIB)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:,.1f} GiB"

"""Memory and run time that jobs ask for, from the forecasts of `hesspipe.workflow.needs`.

The forecasts are lower bounds, made to refuse what cannot fit. What a batch system grants has to
suffice: so a job asks for several times its forecast, above what every job takes, and for as many
times more when it is tried again. The factors are from the 261 jobs of the paper (the last
lines of their logs), of which none took more than two thirds of the memory, or a sixth of the time
(two fifths where ten others shared its core), that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod
from typing import TYPE_CHECKING, Any, NamedTuple

from hesspipe.config.results import ResultKind
from hesspipe.workflow.executors import Executor
from hesspipe.workflow.needs import Need, facts_of, needs
from hesspipe.workflow.user_networks import held_bytes

if TYPE_CHECKING:
    from hesspipe.config.schema import Config

Wildcards = Any  # Snakemake's: an attribute for each wildcard, a string
Request = Callable[[Wildcards, int], int]

_MIB = 2**20
# Python with torch, and in a batch job the two processes of Snakemake that start it.
_PROCESS_MB = 1000
# Arrays of a few samples at a time, which are given up to 1 GiB; linear models hold two.
_WORK_MB = {
    ResultKind.SPECTRA: 1000,
    ResultKind.DENSITIES: 1000,
    ResultKind.EIGENPAIRS: 1000,
    ResultKind.DIRECTIONS: 1000,
    ResultKind.RANDOM_MATRICES: 2000,
}
# The Hessian of the network of width 70 takes 2.7 times the forecast of its matrix. Densities and
# searches count every vector they hold, and make do with less.
_TIMES_MEMORY = dict.fromkeys(
    (ResultKind.DENSITIES, ResultKind.EIGENPAIRS, ResultKind.DIRECTIONS), 1.5
)
_TIMES_OTHER_MEMORY = 3
_USER_NETWORK_MB = 4000  # nothing is known of its activations
_UNKNOWN_MINUTES = 60
_COPIES_OF_DATA = 3 * 8  # bytes of a number: read, converted, and a batch's
_START_MINUTES = 10
# Multiplications and additions a second of one core: a fifth of the slowest job of its kind.
_RATES = {
    ResultKind.CHECKPOINTS: 1e9,
    ResultKind.LANDSCAPE: 5e9,
    ResultKind.EIGENPAIRS: 1e8,
    ResultKind.DENSITIES: 5e8,
}
_OTHER_RATE = 3e8
_TIMES_SECONDS = 500  # of the steps of the smallest networks, whose forecast is of bare arithmetic
_GPU_SPEED = 10
_WITH_PROCESSES = (ResultKind.DENSITIES, ResultKind.EIGENPAIRS)
# Results of batch jobs, and the group of their rule. All others take seconds on the machine where
# Snakemake runs (`localrules`).
_GROUPS = {
    ResultKind.CHECKPOINTS: "training",
    ResultKind.SPECTRA: "spectra",
    ResultKind.DIRECTIONS: "directions",
    ResultKind.LANDSCAPE: "landscape",
    ResultKind.RANDOM_MATRICES: "random_matrices",
    ResultKind.DENSITIES: None,
    ResultKind.EIGENPAIRS: None,
}
ON_A_GPU = {*_GROUPS} - {ResultKind.RANDOM_MATRICES}


class Amount(NamedTuple):
    """What one job asks for at its first attempt.

    Attributes
    ----------
    mem_mb : int
        In MiB, as Slurm counts megabytes; of all processes together.
    runtime : int
        In minutes.
    mem_mb_of_process : int
        Enough for any one of its processes.
    """

    mem_mb: int
    runtime: int
    mem_mb_of_process: int


@dataclass(frozen=True)
class JobResources:
    """The `group:`, `threads:` and `resources:` of the rules.

    Attributes
    ----------
    config : Config
    gpus : int
        Of a process of a job that can use one.
    executor : Executor
        By default, jobs run here.
    tell : callable, optional
        Of one line, about jobs that get less time than they need.
    counts_parameters : bool
        Whether users' networks are built to count their parameters, which imports torch.
    """

    config: Config
    gpus: int
    executor: Executor = field(default_factory=Executor)
    tell: Callable[[str], None] | None = None
    counts_parameters: bool = False

    def group(self, kind: ResultKind) -> str | None:
        """Name the group of a rule: none here, where groups mean nothing and hide jobs in lists."""
        return _GROUPS[kind] if self.executor.is_remote else None

    def of(self, kind: ResultKind) -> dict[str, Any]:
        """Give the resources of the rule that makes a kind of result.

        No batch job asks for more time than its partition allows: Slurm would take it and never
        start it.

        Parameters
        ----------
        kind : ResultKind

        Returns
        -------
        dict
            `mem_mb` and `runtime`, as functions of the wildcards and the number of the attempt,
            and `gpu` if the job asks for any: some executors refuse a job with the key, even at 0.
        """
        is_batch_job = kind in _GROUPS
        longest = self.executor.longest_minutes(_GROUPS[kind]) if is_batch_job else None

        def mem_mb(wildcards: Wildcards, attempt: int) -> int:
            return self.amount(kind, wildcards[0]).mem_mb * attempt

        def runtime(wildcards: Wildcards, attempt: int) -> int:
            minutes = self.amount(kind, wildcards[0]).runtime
            if longest is None or minutes * attempt <= longest:
                return minutes * attempt
            self._tell_of_less(minutes, longest)
            return longest

        def gpu(wildcards: Wildcards) -> int:
            return self.gpus * self.num_processes(kind, wildcards[0])

        gpus = {"gpu": gpu} if self.gpus and kind in ON_A_GPU else {}
        return {"mem_mb": mem_mb, "runtime": runtime, **gpus, **self._tasks(kind)}

    def _tell_of_less(self, minutes: int, longest: int) -> None:
        """Say once that a job gets less time than it asks for at its first attempt."""
        if minutes > longest and self.tell is not None and not self._told:
            self._told.append(minutes)
            self.tell(
                f"some jobs ask for {minutes:,} minutes or more, several times their forecast, "
                f"and get {longest:,}: their partition ends batch jobs after its limit (sinfo), "
                "and the jobs of a group share it. A training or a search that is not done by "
                "then goes on at its next attempt (`retries`); for others, name a partition for "
                "longer jobs with --default-resources slurm_partition=NAME, or use "
                "--group-components GROUP=1"
            )

    @cached_property
    def _told(self) -> list[int]:
        return []

    def num_processes(self, kind: ResultKind, owner: str) -> int:
        """Give the number of processes of a job."""
        plan = self.config.experiments[owner].matrix_free if kind in _WITH_PROCESSES else None
        return 1 if plan is None else plan.processes

    def threads(self, kind: ResultKind) -> Callable[[Wildcards], int]:
        """Give the `threads:` of a rule: one for each process."""
        return lambda wildcards: self.num_processes(kind, wildcards[0])

    def _tasks(self, kind: ResultKind) -> dict[str, Any]:
        """Give what Slurm's plugin asks for several processes with; None is left out."""
        owners = self.config.experiments if kind in _WITH_PROCESSES else ()
        if all(self.num_processes(kind, owner) == 1 for owner in owners):
            return {}

        def if_several(value: Callable[[str], Any]) -> Callable[[Wildcards], Any]:
            def resource(wildcards: Wildcards) -> Any:
                several = self.num_processes(kind, wildcards[0]) > 1
                return value(wildcards[0]) if several else None

            return resource

        def mem_mb_per_cpu(wildcards: Wildcards, attempt: int) -> Any:
            # Of `mem_mb`, each node would get as much as all processes take together.
            mem_mb = self.amount(kind, wildcards[0]).mem_mb_of_process
            return if_several(lambda _: mem_mb * attempt)(wildcards)

        per_gpu = {"tasks_per_gpu": if_several(lambda _: 1)} if self.gpus else {}
        return {
            "tasks": if_several(lambda owner: self.num_processes(kind, owner)),
            "cpus_per_task": if_several(lambda _: 1),
            "mem_mb_per_cpu": mem_mb_per_cpu,
            "mpi": if_several(lambda _: "srun"),
            **per_gpu,
        }

    @staticmethod
    def small() -> dict[str, int]:
        """Give the resources of a rule that only reads results: a table, a figure, a count."""
        return {"mem_mb": _PROCESS_MB, "runtime": _START_MINUTES}

    def amount(self, kind: ResultKind, owner: str) -> Amount:
        """Give what a job asks for.

        Parameters
        ----------
        kind : ResultKind
        owner : str
            Of its result: see `hesspipe.config.results.ResultKey.experiment`.
        """
        known = self._amounts.get((kind, owner))
        if known is None:
            known = self._amounts[kind, owner] = self._amount(kind, owner)
        return known

    @cached_property
    def _amounts(self) -> dict[tuple[ResultKind, str], Amount]:
        return {}

    @cached_property
    def _needs(self) -> dict[tuple[ResultKind, str], Need]:
        return {(need.kind, need.owner): need for need in needs(self.config)}

    def _amount(self, kind: ResultKind, owner: str) -> Amount:
        need = self._needs.get((kind, owner))
        is_unknown = need is None and kind in ON_A_GPU
        memory_mb = _PROCESS_MB + _WORK_MB.get(kind, 0) + self._data_mb(kind, owner)
        # Each process has the network, reads the data and multiplies; only the first has a basis.
        memory_mb += _USER_NETWORK_MB * is_unknown
        number = self.num_processes(kind, owner)
        if need is None:
            minutes = _UNKNOWN_MINUTES if is_unknown else _START_MINUTES
            held_mb = self._held_mb(kind, owner) if is_unknown else 0
            return Amount(memory_mb * number + held_mb, minutes, memory_mb + held_mb)
        times = _TIMES_MEMORY.get(kind, _TIMES_OTHER_MEMORY)
        basis_mb = ceil(times * max(need.memory_bytes, need.preferred_bytes) / _MIB)
        rate = _RATES.get(kind, _OTHER_RATE) * (_GPU_SPEED if self.gpus else 1)
        seconds = need.operations / rate + need.seconds * _TIMES_SECONDS
        minutes = _START_MINUTES + ceil(seconds / 60)
        return Amount(
            memory_mb * number + basis_mb,
            _UNKNOWN_MINUTES if kind is ResultKind.DIRECTIONS else minutes,
            memory_mb + basis_mb,
        )

    def _held_mb(self, kind: ResultKind, owner: str) -> int:
        """Memory of what grows with the number of parameters of a user's network."""
        if not self.counts_parameters:
            return 0
        held = held_bytes(kind, self.config.experiments[owner])
        return ceil(_TIMES_MEMORY.get(kind, _TIMES_OTHER_MEMORY) * held / _MIB)

    def _data_mb(self, kind: ResultKind, owner: str) -> int:
        """Memory of the dataset that a job makes or reads, where its size is known."""
        if kind in ON_A_GPU:
            owner = self.config.experiments[owner].dataset
        elif kind is not ResultKind.DATASETS:
            return 0
        data = self.config.datasets[owner]
        facts = facts_of(data)
        if facts is None:
            return 0
        shape, _, num_test = facts
        numbers = (getattr(data, "num_train", 0) + num_test) * prod(shape)
        return ceil(numbers * _COPIES_OF_DATA / _MIB)

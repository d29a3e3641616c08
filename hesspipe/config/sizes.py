"""Numbers of files and of results that are too many, found by arithmetic before any is listed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hesspipe.config.experiments import Experiment, SavedState
from hesspipe.config.types import MOST_CHECKPOINTS, MOST_RECORDS
from hesspipe.curvature.matrix import Matrix

if TYPE_CHECKING:
    from hesspipe.config.schema import Config

# Each is a file, a line of Snakemake's plan and about 20 microseconds of every dry run.
MOST_RESULTS = 150_000
_LONGEST_CHAIN = 50  # of trainings that continue each other
_KINDS_OF_LINES = 5  # results between two seeds: see `Experiment.produces`


def too_much(config: Config) -> Iterator[str]:
    """Find experiments with too many checkpoints or results.

    Parameters
    ----------
    config : Config
        With every key of the right type and range.

    Yields
    ------
    str
        One line for each key that has to change.
    """
    total = 0
    for name, experiment in config.experiments.items():
        yield from _too_many_records(f"experiments.{name}.training", experiment)
        total += len(experiment.seeds) * _results_of_a_run(experiment)
        if _length_of_chain(name, config) > _LONGEST_CHAIN:
            yield (
                f"experiments.{name}.starts_from must continue at most {_LONGEST_CHAIN} trainings "
                "in a row, got more"
            )
    if total > MOST_RESULTS:
        yield (
            f"experiments must have at most {MOST_RESULTS:,} results together, got {total:,}; use "
            "fewer seeds, steps or checkpoints, or several configurations"
        )
    for key, entry in config.readers():
        sizes = [len(getattr(entry, part, None) or [0]) for part in ("seeds", "steps")]
        number = len(entry.owners()) * math.prod(sizes) * len(Matrix)
        if number > MOST_RESULTS:
            yield f"{key} must read at most {MOST_RESULTS:,} results, got up to {number:,}"


def num_checkpoints(experiment: Experiment) -> int:
    """Count the checkpoints of one run, without listing their steps."""
    training = experiment.training
    if isinstance(training, SavedState):
        return 1
    return -(-training.num_steps // training.checkpoint_every) + 1


def _too_many_records(key: str, experiment: Experiment) -> Iterator[str]:
    training = experiment.training
    if isinstance(training, SavedState):
        return
    for name, what, most in (
        ("checkpoint_every", "checkpoints", MOST_CHECKPOINTS),
        ("record_every", "records", MOST_RECORDS),
    ):
        every = getattr(training, name)
        number = -(-training.num_steps // every) + 1
        if number > most:
            least = -(-training.num_steps // (most - 1))
            yield (
                f"{key}.{name} must be at least {least:,} for at most {most:,} {what} of a run, "
                f"got {every}: {number:,} {what}"
            )


def _results_of_a_run(experiment: Experiment) -> int:
    """Bound the number of results of one seed."""
    number = num_checkpoints(experiment)
    for plan in (experiment.spectra, experiment.matrix_free):
        if plan is not None:
            steps = num_checkpoints(experiment) if plan.steps == "all" else len(plan.steps)
            number += steps * len(plan.matrices)
    if experiment.matrix_free is not None:
        number += steps * len(experiment.matrix_free.densities)
    if experiment.starts_from is not None:
        number += _KINDS_OF_LINES * len(experiment.seeds)
    return number


def _length_of_chain(name: str, config: Config) -> int:
    """Number of trainings that one continues, up to the limit; a circle has no end."""
    length, start = 0, config.experiments[name].starts_from
    while start in config.experiments and length <= _LONGEST_CHAIN and start != name:
        length, start = length + 1, config.experiments[start].starts_from
    return length

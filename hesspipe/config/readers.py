"""Common base of figures, tables and claims, which read results of other entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Literal

from hesspipe.config.random_matrices import source_key
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.types import Names, Section, Seed
from hesspipe.curvature.matrix import Matrix
from hesspipe.outliers import OutlierRule

if TYPE_CHECKING:
    from hesspipe.config.schema import Config


class Reader(Section):
    """An entry that reads results."""

    # The section of the entries whose results are read.
    owner_section: ClassVar[str] = "experiments"
    # Whether the data must have class labels.
    needs_classes: ClassVar[bool] = False
    # Whether the experiment must continue another one's training.
    needs_start: ClassVar[bool] = False

    def owners(self) -> list[str]:
        """Name the entries whose results are read."""
        raise NotImplementedError

    def reads(self, config: Config) -> list[ResultKey]:
        """List the results that are read, in the order in which they are passed on."""
        raise NotImplementedError


class OfExperiment(Reader):
    """An entry that reads one experiment."""

    experiment: str

    def owners(self) -> list[str]:
        """Name the experiment."""
        return [self.experiment]


class OfRun(OfExperiment):
    """An entry that reads one experiment for one seed."""

    seed: Seed


class OfDecomposition(OfRun):
    """An entry that shows the stored decomposition H = G + R of one run, for one rule."""

    kind: Literal["decomposition"]
    rule: OutlierRule

    def reads(self, config: Config) -> list[ResultKey]:
        """List the decomposition."""
        return [ResultKey(ResultKind.DECOMPOSITIONS, self.experiment, self.seed)]


class OfExperiments(Reader):
    """An entry that reads several experiments."""

    experiments: Names

    def owners(self) -> list[str]:
        """Name the experiments."""
        return self.experiments


class OfSources(Reader):
    """An entry that reads random matrices or linear models."""

    owner_section: ClassVar[str] = "random_matrices"
    # The kind that every source must have.
    source_kind: ClassVar[str]

    sources: Names

    def owners(self) -> list[str]:
        """Name the sources."""
        return self.sources

    def parts(self, *names: str) -> list[ResultKey]:
        """List a part of the results of every source, then the next part."""
        return [source_key(source, part) for part in names for source in self.sources]


def spectra(
    experiments: Iterable[str],
    seeds: Iterable[int],
    steps: Iterable[int],
    matrices: Iterable[Matrix] = (Matrix.HESSIAN,),
) -> list[ResultKey]:
    """List exact spectra by experiment, seed, step and matrix, the last varying fastest."""
    return [
        ResultKey(ResultKind.SPECTRA, name, seed, step, matrix)
        for name, seed, step, matrix in product(experiments, seeds, steps, matrices)
    ]


def outliers(experiments: Iterable[str], seeds: Sequence[int]) -> list[ResultKey]:
    """List outlier tables by experiment and seed."""
    return [ResultKey(ResultKind.OUTLIERS, name, seed) for name in experiments for seed in seeds]


def line(experiment: str, seed: int, to: str = "") -> ResultKey:
    """Name the line through both ends of a continuation, or to another seed's end."""
    return ResultKey(ResultKind.LANDSCAPE, experiment, seed, group=f"line{to}")


def last_directions(experiments: Iterable[str], seed: int, config: Config) -> list[ResultKey]:
    """List the directions at the end of each training."""
    return [
        ResultKey(ResultKind.DIRECTIONS, name, seed, config.experiments[name].last_step)
        for name in experiments
    ]


def both_parts(experiment: str, config: Config) -> list[str]:
    """Name a continuation after the experiment from whose end it starts."""
    start = config.experiments[experiment].starts_from
    return [start, experiment] if start in config.experiments else [experiment]

"""Tables in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hesspipe.config.readers import (
    OfDecomposition,
    OfExperiment,
    OfExperiments,
    OfSources,
    both_parts,
    last_directions,
    line,
    outliers,
    spectra,
)
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.types import Distinct, Matrices, NumPairs, PathName, Seed, Seeds, Step
from hesspipe.curvature.matrix import Matrix
from hesspipe.outliers import OutlierRule

if TYPE_CHECKING:
    from hesspipe.config.schema import Config


class OutlierCountsTable(OfExperiments):
    """Outlier counts of several experiments next to published ones."""

    needs_classes = True

    kind: Literal["outlier_counts"]
    published: PathName = Field(min_length=1)
    seed: Seed
    step: Step

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectrum of each experiment, then its outliers."""
        return spectra(self.experiments, [self.seed], [self.step]) + outliers(
            self.experiments, [self.seed]
        )


class InertiaTable(OfExperiments):
    """Signs of the eigenvalues of several experiments, for several seeds and matrices."""

    kind: Literal["inertia"]
    seeds: Seeds
    step: Step
    matrices: Matrices

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectra by experiment, seed and matrix."""
        return spectra(self.experiments, self.seeds, [self.step], self.matrices)


class BarriersTable(OfExperiment):
    """Barriers between the ends of both parts, and between two seeds, aligned and not."""

    needs_start = True

    kind: Literal["barriers"]
    seeds: Seeds

    def reads(self, config: Config) -> list[ResultKey]:
        """List the line of each seed, then the lines between pairs of seeds."""
        keys = [line(self.experiment, seed) for seed in self.seeds]
        for number, seed in enumerate(self.seeds):
            for other in self.seeds[number + 1 :]:
                keys += [
                    line(self.experiment, seed, f"_to_seed{other}{end}") for end in ("", "_aligned")
                ]
        return keys


class SharpnessTable(OfExperiment):
    """The largest eigenvalues of the Hessian at the ends of both parts."""

    needs_start = True

    kind: Literal["sharpness"]
    seeds: Seeds
    num_largest: NumPairs

    def reads(self, config: Config) -> list[ResultKey]:
        """List the eigenpairs by seed and part, in the order of training."""
        return [
            ResultKey(
                ResultKind.EIGENPAIRS,
                name,
                seed,
                config.experiments[name].last_step,
                Matrix.HESSIAN,
            )
            for seed in self.seeds
            for name in both_parts(self.experiment, config)
        ]


class LawsTable(OfSources):
    """Linear models next to the laws that predict them."""

    source_kind = "linear_model"

    kind: Literal["laws"]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the laws of all sources, then their outliers."""
        return self.parts("law", "outliers")


class SpikesTable(OfSources):
    """The largest eigenvalue of a spiked model next to Theorem 1."""

    source_kind = "spikes"

    kind: Literal["spikes"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)

    def reads(self, config: Config) -> list[ResultKey]:
        """List the positions."""
        return self.parts("positions")


class SpikedSpectraTable(OfSources):
    """Spiked models' spectra next to Theorem 2."""

    source_kind = "spiked_spectra"

    kind: Literal["spiked_spectra"]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the parts of each spectrum."""
        return self.parts("parts")


class DecompositionTable(OfDecomposition):
    """H = G + R at every step of one experiment, as numbers."""


class DirectionsTable(OfExperiments):
    """Leading eigenvectors against class-mean gradients, one row for each experiment."""

    needs_classes = True

    kind: Literal["directions"]
    seed: Seed
    rule: OutlierRule

    def reads(self, config: Config) -> list[ResultKey]:
        """List the directions of each experiment, then its outliers."""
        return last_directions(self.experiments, self.seed, config) + outliers(
            self.experiments, [self.seed]
        )


Table = Annotated[
    OutlierCountsTable
    | InertiaTable
    | BarriersTable
    | SharpnessTable
    | LawsTable
    | SpikesTable
    | SpikedSpectraTable
    | DecompositionTable
    | DirectionsTable,
    Field(discriminator="kind"),
]

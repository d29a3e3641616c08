"""Figures in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hesspipe.config.experiments import WHOLE_NETWORK
from hesspipe.config.readers import (
    OfDecomposition,
    OfExperiments,
    OfRun,
    OfSources,
    both_parts,
    last_directions,
    line,
    outliers,
    spectra,
)
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.types import (
    MOST_PAIRS,
    Distinct,
    Label,
    Matrices,
    MatrixName,
    NumPairs,
    NumPoints,
    Positive,
    Seed,
    Seeds,
    Share,
    Step,
    Steps,
)
from hesspipe.curvature.matrix import Matrix
from hesspipe.outliers import OutlierRule

if TYPE_CHECKING:
    from hesspipe.config.schema import Config


class EndpointsFigure(OfRun):
    """All eigenvalues of one experiment in order, at several steps."""

    kind: Literal["endpoints"]
    steps: Steps = Field(min_length=1)
    num_largest: int = Field(ge=2, le=MOST_PAIRS)

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectrum of each step."""
        return spectra([self.experiment], [self.seed], self.steps)


class GapsFigure(OfExperiments):
    """The top of several ordered spectra, with the gap below the outliers marked."""

    needs_classes = True

    kind: Literal["gaps"]
    seed: Seed
    step: Step
    rule: OutlierRule
    num_largest: int = Field(ge=2, le=MOST_PAIRS)

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectrum of each experiment, then its outliers."""
        return spectra(self.experiments, [self.seed], [self.step]) + outliers(
            self.experiments, [self.seed]
        )


class _Compared(OfExperiments):
    labels: Annotated[list[Label], Distinct]
    seeds: Seeds
    step: Step

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectra by experiment and seed."""
        return spectra(self.experiments, self.seeds, [self.step])


class RightEdgeFigure(_Compared):
    """The largest eigenvalues of several experiments in one plot, for several seeds."""

    kind: Literal["right_edge"]
    num_largest: int = Field(ge=2, le=MOST_PAIRS)


class NegativePartFigure(_Compared):
    """The negative eigenvalues of several experiments against their percentage."""

    kind: Literal["negative_part"]


class TrainingFigure(OfRun):
    """Loss and accuracy of one training."""

    kind: Literal["training"]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the history."""
        return [ResultKey(ResultKind.HISTORIES, self.experiment, self.seed)]


class BasinsFigure(OfRun):
    """Losses and accuracies of two parts of one training, on one axis of steps."""

    needs_start = True

    kind: Literal["basins"]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the histories of both parts, in the order of training."""
        return [
            ResultKey(ResultKind.HISTORIES, name, self.seed)
            for name in both_parts(self.experiment, config)
        ]


class LineFigure(OfRun):
    """Losses and accuracies on the line from the start to the end of a continuation."""

    needs_start = True

    kind: Literal["line"]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the line."""
        return [line(self.experiment, self.seed)]


class PlaneFigure(OfRun):
    """The loss on a plane through the ends of both parts and of another seed's continuation."""

    needs_start = True

    kind: Literal["plane"]
    other_seed: Seed

    def reads(self, config: Config) -> list[ResultKey]:
        """List the loss on the plane, then the points marked on it."""
        plane = f"plane_to_seed{self.other_seed}"
        return [
            ResultKey(ResultKind.LANDSCAPE, self.experiment, self.seed, group=group)
            for group in (plane, f"{plane}_points")
        ]


class BulksFigure(OfSources):
    """Histograms of linear models' spectra with the laws that predict them."""

    source_kind = "linear_model"

    kind: Literal["bulks"]
    num_columns: Annotated[int, Field(ge=1, le=20)]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the histograms of all sources, then their outliers."""
        return self.parts("histogram", "outliers")


class SpikesFigure(OfSources):
    """Positions and fluctuations of the largest eigenvalue of a spiked model."""

    source_kind = "spikes"

    kind: Literal["spikes"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)
    below: Positive
    above: Positive

    def reads(self, config: Config) -> list[ResultKey]:
        """List the positions, then the fluctuations."""
        return self.parts("positions", "fluctuations")


class SpikedSpectraFigure(OfSources):
    """Histograms of spiked models' spectra, outliers marked."""

    source_kind = "spiked_spectra"

    kind: Literal["spiked_spectra"]
    num_bins: NumPoints

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectra of all sources, then their parts."""
        return self.parts("spectra", "parts")


class DecompositionFigure(OfDecomposition):
    """H = G + R at every step of one experiment, as curves."""


class DirectionsFigure(OfExperiments):
    """Leading eigenvectors against class-mean gradients of the outputs, as curves."""

    needs_classes = True

    kind: Literal["directions"]
    seed: Seed
    labels: Annotated[list[Label], Distinct]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the directions of each experiment."""
        return last_directions(self.experiments, self.seed, config)


class OrderedFigure(OfRun):
    """Magnitudes of all eigenvalues in order, at several steps."""

    kind: Literal["ordered"]
    steps: Steps = Field(min_length=1)
    matrix: MatrixName

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectrum of each step."""
        return spectra([self.experiment], [self.seed], self.steps, [self.matrix])


class ExtremesFigure(OfRun):
    """The extreme eigenvalues of one run, from its spectra or, without these, its eigenpairs."""

    def extremes(self, config: Config, steps: list[int], matrices: list[Matrix]) -> list[ResultKey]:
        """List the spectra or eigenpairs by step and matrix."""
        kind = config.experiments[self.experiment].extremes_kind
        return [
            ResultKey(kind, self.experiment, self.seed, step, matrix)
            for step in steps
            for matrix in matrices
        ]


class OverlayFigure(ExtremesFigure):
    """Both ends of the spectra of several matrices in one plot."""

    kind: Literal["overlay"]
    step: Step
    matrices: Matrices
    num_largest: NumPairs
    num_smallest: NumPairs

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectrum or eigenpairs of each matrix."""
        return self.extremes(config, [self.step], self.matrices)


class OverTrainingFigure(ExtremesFigure):
    """Both ends of the spectrum of one matrix during training."""

    kind: Literal["over_training"]
    steps: Steps = Field(min_length=2)
    matrix: MatrixName
    num_largest: NumPairs
    num_smallest: int = Field(ge=0, le=MOST_PAIRS)

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectrum or eigenpairs of each step."""
        return self.extremes(config, self.steps, [self.matrix])


class OutliersFigure(ExtremesFigure):
    """The largest eigenvalues, and the cutoff of each rule."""

    kind: Literal["outliers"]
    step: Step
    matrix: MatrixName
    num_largest: int = Field(ge=2, le=MOST_PAIRS)

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectrum or eigenpairs, then the outliers."""
        return self.extremes(config, [self.step], [self.matrix]) + outliers(
            [self.experiment], [self.seed]
        )


class CurvesFigure(OfRun):
    """Smoothed densities, which a separate job computes."""

    step: Step
    relative_width: Share = Field(gt=0)
    num_points: NumPoints

    def reads(self, config: Config) -> list[ResultKey]:
        """List the curves, which are stored under the figure's name."""
        (name,) = [name for name, figure in config.figures.items() if figure is self]
        return [ResultKey(ResultKind.CURVES, name)]

    def densities(self) -> list[ResultKey]:
        """List the densities that the curves are computed from."""
        raise NotImplementedError

    def produces(self, name: str, config: Config) -> list[ResultKey]:
        """List the curves, the only results that belong to a figure."""
        return [ResultKey(ResultKind.CURVES, name)]


class DensitiesFigure(CurvesFigure):
    """Smoothed densities of several matrices, with error bars."""

    kind: Literal["densities"]
    matrices: Matrices

    def densities(self) -> list[ResultKey]:
        """List the density of each matrix."""
        run = ResultKind.DENSITIES, self.experiment, self.seed, self.step
        return [ResultKey(*run, matrix, WHOLE_NETWORK) for matrix in self.matrices]


class LayersFigure(CurvesFigure):
    """Smoothed densities of the network and of its parts, with error bars."""

    kind: Literal["layers"]
    matrix: MatrixName
    # The title of each group's panel, in order.
    titles: dict[str, Label] = Field(min_length=1)

    def densities(self) -> list[ResultKey]:
        """List the density of each group."""
        run = ResultKind.DENSITIES, self.experiment, self.seed, self.step
        return [ResultKey(*run, self.matrix, group) for group in self.titles]


Figure = Annotated[
    EndpointsFigure
    | GapsFigure
    | RightEdgeFigure
    | NegativePartFigure
    | TrainingFigure
    | BasinsFigure
    | LineFigure
    | PlaneFigure
    | BulksFigure
    | SpikesFigure
    | SpikedSpectraFigure
    | DecompositionFigure
    | DirectionsFigure
    | OrderedFigure
    | OverlayFigure
    | OverTrainingFigure
    | OutliersFigure
    | DensitiesFigure
    | LayersFigure,
    Field(discriminator="kind"),
]

"""Figures, tables and claims in config.yaml: the entries that read results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hesspipe.config.gallery import GalleryFigure
from hesspipe.config.theory import (
    BulksFigure,
    LawsTable,
    SpikedSpectraFigure,
    SpikedSpectraTable,
    SpikesFigure,
    SpikesTable,
)
from hesspipe.config.types import (
    Distinct,
    Matrix,
    OutlierRule,
    Section,
    Seed,
    Step,
)


class EndpointsFigure(Section):
    """All eigenvalues of one experiment in order, at several steps."""

    kind: Literal["endpoints"]
    experiment: str
    seed: Seed
    steps: Annotated[list[Step], Distinct] = Field(min_length=1)
    num_largest: int = Field(ge=2)


class GapsFigure(Section):
    """The top of several ordered spectra, with the gap below the outliers marked."""

    kind: Literal["gaps"]
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    seed: Seed
    step: Step
    rule: OutlierRule
    num_largest: int = Field(ge=2)


class _OverSeeds(Section):
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)
    step: Step


class RightEdgeFigure(_OverSeeds):
    """The largest eigenvalues of several experiments over each other, for several seeds."""

    kind: Literal["right_edge"]
    labels: Annotated[list[str], Distinct]
    num_largest: int = Field(ge=2)


class NegativePartFigure(_OverSeeds):
    """The negative eigenvalues of several experiments against their percentage."""

    kind: Literal["negative_part"]
    labels: Annotated[list[str], Distinct]


class BasinsFigure(Section):
    """Losses and accuracies of two parts of one training, on one axis of steps."""

    kind: Literal["basins"]
    experiment: str
    seed: Seed


class LineFigure(Section):
    """Losses and accuracies on the line from the start to the end of a continuation."""

    kind: Literal["line"]
    experiment: str
    seed: Seed


class PlaneFigure(Section):
    """The loss on a plane through the ends of both parts and of another seed's continuation."""

    kind: Literal["plane"]
    experiment: str
    seed: Seed
    other_seed: Seed


class BarriersTable(Section):
    """Barriers between the ends of both parts, and between two seeds, aligned and not."""

    kind: Literal["barriers"]
    experiment: str
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)


class SharpnessTable(Section):
    """The largest eigenvalues of the Hessian at the ends of both parts."""

    kind: Literal["sharpness"]
    experiment: str
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)
    num_largest: int = Field(ge=1)


class InertiaTable(_OverSeeds):
    """Signs of the eigenvalues of several experiments, for several seeds and matrices."""

    kind: Literal["inertia"]
    matrices: Annotated[list[Matrix], Distinct] = Field(min_length=1)


class OutlierCountsTable(Section):
    """Outlier counts of several experiments beside published ones."""

    kind: Literal["outlier_counts"]
    published: str
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    seed: Seed
    step: Step


class _Decomposition(Section):
    kind: Literal["decomposition"]
    experiment: str
    seed: Seed
    rule: OutlierRule

    @property
    def steps(self) -> list[int]:
        """None by name: every step with spectra is shown."""
        return []

    @property
    def matrices(self) -> list[Matrix]:
        """Which spectra are read."""
        return ["hessian", "ggn", "residual"]


class DecompositionFigure(_Decomposition):
    """H = G + R at every step of one experiment, as curves."""


class DecompositionTable(_Decomposition):
    """H = G + R at every step of one experiment, as numbers."""


class _Directions(Section):
    kind: Literal["directions"]
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    seed: Seed

    @property
    def steps(self) -> list[int]:
        """None by name: the end of each training is looked at."""
        return []


class DirectionsFigure(_Directions):
    """Leading eigenvectors against class-mean gradients of the outputs, as curves."""

    labels: Annotated[list[str], Distinct]


class DirectionsTable(_Directions):
    """The same, summarized in a row for each experiment."""

    rule: OutlierRule


Figure = Annotated[
    EndpointsFigure
    | GapsFigure
    | RightEdgeFigure
    | NegativePartFigure
    | BasinsFigure
    | LineFigure
    | PlaneFigure
    | BulksFigure
    | SpikesFigure
    | SpikedSpectraFigure
    | DecompositionFigure
    | DirectionsFigure
    | GalleryFigure,
    Field(discriminator="kind"),
]
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

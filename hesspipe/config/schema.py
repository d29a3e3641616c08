"""config.yaml as pydantic models: everything is checked before any job starts.

No key that affects a result has a default: every number that affects a result is in config.yaml,
next to its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from hesspipe.config.claims import Claim
from hesspipe.config.datasets import Data
from hesspipe.config.experiments import Experiment, Model, Training
from hesspipe.config.figures import CurvesFigure, Figure
from hesspipe.config.random_matrices import RandomMatrix
from hesspipe.config.readers import Reader
from hesspipe.config.results import ResultKey
from hesspipe.config.tables import Table
from hesspipe.config.types import (
    MOST_PAIRS,
    MOST_PLANE_POINTS,
    MOST_POINTS,
    Distinct,
    Name,
    NumPairs,
    NumPoints,
    Section,
    Share,
    Tolerance,
)
from hesspipe.outliers import OutlierRule


class SpectrumSettings(Section):
    """Counting of signs of eigenvalues; see `hesspipe.curvature.spectra`."""

    zero_tolerance: Annotated[float, Field(gt=0, le=1e6)]


class OutlierSettings(Section):
    """Counting of outliers; see `hesspipe.outliers`."""

    rules: Annotated[list[OutlierRule], Distinct] = Field(min_length=1)
    num_candidates: int = Field(ge=2, le=MOST_PAIRS)


class LineSettings(Section):
    """Points of a straight line at which the loss is evaluated.

    See `hesspipe.landscape.paths.line_coefficients`.
    """

    num_between: NumPoints
    num_beyond: int = Field(ge=0, le=MOST_POINTS)


class PlaneSettings(Section):
    """Points of a plane at which the loss is evaluated; see `hesspipe.landscape.paths`."""

    num_points: int = Field(ge=2, le=MOST_PLANE_POINTS)
    margin: Share


class DirectionSettings(Section):
    """Comparison of eigenvectors with gradients; see `hesspipe.experiments.directions`."""

    num_beyond: NumPairs
    tolerance: Tolerance


class Config(Section):
    """The whole of config.yaml, with every name, group and grid expanded."""

    # Named, so that experiments can refer to them.
    models: dict[Name, Model] = Field(default_factory=dict)
    trainings: dict[Name, Training] = Field(default_factory=dict)
    datasets: dict[Name, Data] = Field(min_length=1)
    experiments: dict[Name, Experiment] = Field(min_length=1)
    spectrum: SpectrumSettings
    outliers: OutlierSettings
    # Needed by entries that compare eigenvectors with gradients.
    directions: DirectionSettings | None = None
    # Needed by entries that read a training which continues another one.
    lines: LineSettings | None = None
    planes: PlaneSettings | None = None
    figures: dict[Name, Figure]
    # Optional: a user's project needs none of these.
    random_matrices: dict[Name, RandomMatrix] = Field(default_factory=dict)
    tables: dict[Name, Table] = Field(default_factory=dict)
    claims: dict[Name, Claim] = Field(default_factory=dict)
    # GPUs of a job that can use one: auto is what this machine has. A profile for jobs that run
    # elsewhere says 0 or 1, as the machine that submits them knows nothing of theirs.
    gpus: Literal["auto", 0, 1] = "auto"

    def readers(self) -> Iterator[tuple[str, Reader]]:
        """Iterate over every figure, table and claim, with its place in the file."""
        for section in ("figures", "tables", "claims"):
            for name, entry in getattr(self, section).items():
                yield f"{section}.{name}", entry

    def results(self) -> set[ResultKey]:
        """Collect every result that can be computed."""
        curves = {
            name: figure
            for name, figure in self.figures.items()
            if isinstance(figure, CurvesFigure)
        }
        return {
            key
            for entries in (self.datasets, self.experiments, self.random_matrices, curves)
            for name, entry in entries.items()
            for key in entry.produces(name, self)
        }

"""The gallery in config.yaml: figures of any experiment, its networks known whole or not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hesspipe.config.types import Distinct, Matrix, Section, Seed, Share, Step

_Steps = Annotated[list[Step], Distinct]


class _OfOneRun(Section):
    experiment: str
    seed: Seed


class OrderedFigure(_OfOneRun):
    """Magnitudes of all eigenvalues in order, at several steps."""

    kind: Literal["ordered"]
    steps: _Steps = Field(min_length=1)
    matrix: Matrix


class _Ends(_OfOneRun):
    num_largest: int = Field(ge=1)
    num_smallest: int = Field(ge=1)


class OverlayFigure(_Ends):
    """Both ends of the spectra of several matrices over each other."""

    kind: Literal["overlay"]
    step: Step
    matrices: Annotated[list[Matrix], Distinct] = Field(min_length=1)


class OverTrainingFigure(_Ends):
    """Both ends of the spectrum of one matrix as training goes on."""

    kind: Literal["over_training"]
    steps: _Steps = Field(min_length=2)
    matrix: Matrix


class OutliersFigure(_OfOneRun):
    """The largest eigenvalues, and where each rule cuts them off."""

    kind: Literal["outliers"]
    step: Step
    matrix: Matrix
    num_largest: int = Field(ge=2)


class _Densities(_OfOneRun):
    step: Step
    relative_width: Share = Field(gt=0)
    num_points: int = Field(ge=2)


class DensitiesFigure(_Densities):
    """Smoothed densities of several matrices, with error bars."""

    kind: Literal["densities"]
    matrices: Annotated[list[Matrix], Distinct] = Field(min_length=1)


class LayersFigure(_Densities):
    """Smoothed densities of the network and of its parts, with error bars."""

    kind: Literal["layers"]
    matrix: Matrix
    titles: dict[str, str] = Field(min_length=1)


GalleryFigure = (
    OrderedFigure | OverlayFigure | OverTrainingFigure | OutliersFigure | DensitiesFigure
    | LayersFigure
)  # fmt: skip

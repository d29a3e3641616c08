"""Random matrices and linear models in a configuration: Appendix B."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.types import (
    MOST_COUNTED,
    MOST_POINTS,
    MOST_STEPS,
    Count,
    Distinct,
    NumPoints,
    Positive,
    Section,
    Seed,
)

if TYPE_CHECKING:
    from hesspipe.config.schema import Config


class _RandomMatrix(Section):
    parts: ClassVar[tuple[str, ...]] = ()

    def produces(self, name: str, config: Config) -> list[ResultKey]:
        """List the results that can be computed from this entry."""
        return [source_key(name, part) for part in self.parts]


class LinearModel(_RandomMatrix):
    """Logistic regression or softmax on blobs; see `hesspipe.experiments.linear_models`."""

    parts = ("spectrum", "samples", "law", "outliers", "histogram")

    kind: Literal["linear_model"]
    model: Literal["logistic", "softmax"]
    num_features: int = Field(ge=2, le=MOST_COUNTED)
    num_samples: int = Field(ge=2, le=MOST_COUNTED)
    signal: Positive
    initial_norm: Positive
    step_size: Positive
    num_steps: int = Field(ge=0, le=MOST_STEPS)
    seed: Seed
    num_groups: Count
    num_positions: int = Field(ge=10, le=MOST_POINTS)
    num_bins: NumPoints


class Spikes(_RandomMatrix):
    """The largest eigenvalue of a spiked model across the transition, for several sizes."""

    parts = ("spikes", "positions", "fluctuations")

    kind: Literal["spikes"]
    aspect_ratio: Positive
    strengths: Annotated[list[Positive], Distinct] = Field(min_length=2, max_length=1000)
    num_samples: Annotated[list[Annotated[int, Field(ge=2, le=MOST_COUNTED)]], Distinct] = Field(
        min_length=1, max_length=1000
    )
    num_repeats: int = Field(ge=10, le=MOST_COUNTED)
    seed: Seed


class SpikedSpectra(_RandomMatrix):
    """Whole spectra of a sample covariance with a few spikes."""

    parts = ("spectra", "parts")

    kind: Literal["spiked_spectra"]
    strengths: Annotated[list[Positive], Distinct] = Field(min_length=1, max_length=1000)
    num_parameters: int = Field(ge=2, le=MOST_COUNTED)
    num_samples: int = Field(ge=2, le=MOST_COUNTED)
    num_repeats: int = Field(ge=2, le=MOST_COUNTED)
    seed: Seed


RandomMatrix = Annotated[LinearModel | Spikes | SpikedSpectra, Field(discriminator="kind")]


def source_key(source: str, part: str) -> ResultKey:
    """Name one part of the results of an entry of random_matrices."""
    return ResultKey(ResultKind.RANDOM_MATRICES, source, group=part)

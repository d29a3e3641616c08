"""Experiments on random matrices and linear models in config.yaml, and what shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hesspipe.config.types import Distinct, Positive, Section, Seed


class LinearModelExperiment(Section):
    """Logistic regression or softmax on blobs; see `hesspipe.experiments.linear_models`."""

    kind: Literal["linear_model"]
    model: Literal["logistic", "softmax"]
    num_features: int = Field(ge=2)
    num_samples: int = Field(ge=2)
    signal: Positive
    initial_norm: Positive
    step_size: Positive
    num_steps: int = Field(ge=0)
    seed: Seed
    num_groups: int = Field(ge=1)
    num_positions: int = Field(ge=10)


class SpikesExperiment(Section):
    """The largest eigenvalue of a spiked model across the transition, for several sizes."""

    kind: Literal["spikes"]
    aspect_ratio: Positive
    strengths: Annotated[list[Positive], Distinct] = Field(min_length=2)
    num_samples: Annotated[list[Annotated[int, Field(ge=2)]], Distinct] = Field(min_length=1)
    num_repeats: int = Field(ge=10)
    seed: Seed


class SpikedSpectraExperiment(Section):
    """Whole spectra of a sample covariance with a few spikes."""

    kind: Literal["spiked_spectra"]
    strengths: Annotated[list[Positive], Distinct] = Field(min_length=1)
    num_parameters: int = Field(ge=2)
    num_samples: int = Field(ge=2)
    num_repeats: int = Field(ge=2)
    seed: Seed


RandomMatrixExperiment = Annotated[
    LinearModelExperiment | SpikesExperiment | SpikedSpectraExperiment,
    Field(discriminator="kind"),
]


class BulksFigure(Section):
    """Histograms of linear models' spectra with the laws that predict them."""

    kind: Literal["bulks"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1)
    num_columns: int = Field(ge=1)
    num_bins: int = Field(ge=2)


class SpikesFigure(Section):
    """Positions and fluctuations of the largest eigenvalue of a spiked model."""

    kind: Literal["spikes"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)
    below: Positive
    above: Positive


class SpikedSpectraFigure(Section):
    """Histograms of spiked models' spectra, outliers marked."""

    kind: Literal["spiked_spectra"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1)
    num_bins: int = Field(ge=2)


class LawsTable(Section):
    """Linear models beside the laws that predict them."""

    kind: Literal["laws"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1)


class SpikesTable(Section):
    """The largest eigenvalue of a spiked model beside Theorem 1."""

    kind: Literal["spikes"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)


class SpikedSpectraTable(Section):
    """Spiked models' spectra beside Theorem 2."""

    kind: Literal["spiked_spectra"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1)


# What the entries of each kind of figure, table and claim read.
SOURCE_KINDS = {
    "bulks": "linear_model",
    "laws": "linear_model",
    "spikes": "spikes",
    "spiked_spectra": "spiked_spectra",
    "plain_law": "linear_model",
    "generalized_law": "linear_model",
    "large_outlier": "linear_model",
    "spike_positions": "spikes",
    "spike_fluctuations": "spikes",
    "spectrum_parts": "spiked_spectra",
}

"""config.yaml as pydantic models: everything is checked before any job starts.

No key that a result needs has a default. Every number that decides a result stands in
config.yaml, with its source beside it, so that a default can neither hide there nor be written
twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from hesspipe.config.checks import broken_references
from hesspipe.config.claims import Claim
from hesspipe.config.entries import Figure, Table
from hesspipe.config.messages import explain
from hesspipe.config.own import DataFile, MatrixFree, OwnData, OwnModel, SavedState
from hesspipe.config.theory import RandomMatrixExperiment
from hesspipe.config.types import (
    Activation,
    Distinct,
    Finite,
    Matrix,
    Name,
    OutlierRule,
    Positive,
    Section,
    Seed,
    Share,
    Step,
)
from hesspipe.errors import ConfigError


class GaussianClusters(Section):
    """Isotropic Gaussian clusters, one per class; see `hesspipe.data.dataset.gaussian_clusters`."""

    kind: Literal["gaussian_clusters"]
    num_clusters: int = Field(ge=2)
    cluster_std: Positive
    num_features: int = Field(ge=1)
    center_low: Finite
    center_high: Finite
    num_train: int = Field(ge=1)
    num_test: int = Field(ge=1)
    seed: Seed


class MNISTDigits(Section):
    """Handwritten digits; see `hesspipe.data.dataset.mnist_digits`."""

    kind: Literal["mnist_digits"]
    source: Literal["embedded", "folder", "download"]
    folder: str | None
    num_train: int = Field(ge=1)
    seed: Seed


class CIFAR10Images(Section):
    """Small color photographs; see `hesspipe.data.dataset.cifar10_images`."""

    kind: Literal["cifar10_images"]
    source: Literal["folder", "download"]
    folder: str = Field(min_length=1)
    num_train: int = Field(ge=1)
    seed: Seed


class MLP(Section):
    """A fully connected network; see `hesspipe.networks.architectures.mlp`."""

    kind: Literal["mlp"]
    hidden_widths: list[Annotated[int, Field(ge=1)]]
    activation: Activation
    initial_std: Positive


class ConvNet(Section):
    """Two convolutions and two fully connected layers.

    See `hesspipe.networks.architectures.convnet`.
    """

    kind: Literal["convnet"]
    channels: list[Annotated[int, Field(ge=1)]] = Field(min_length=2, max_length=2)
    kernel_size: int = Field(ge=1)
    hidden_width: int = Field(ge=1)
    initial_std: Positive


class AlexNet(Section):
    """Convolutions and one fully connected layer; see `hesspipe.networks.architectures.alexnet`."""

    kind: Literal["alexnet"]
    channels: list[Annotated[int, Field(ge=1)]] = Field(min_length=5, max_length=5)
    kernel_sizes: list[Annotated[int, Field(ge=1)]] = Field(min_length=5, max_length=5)
    first_stride: int = Field(ge=1)
    pool_after: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Distinct]
    initial_gain: Positive


class _Training(Section):
    step_size: Positive
    num_steps: int = Field(ge=1)
    record_every: int = Field(ge=1)
    checkpoint_every: int = Field(ge=1)
    dtype: Literal["float32", "float64"]


class GradientDescent(_Training):
    """Constant-step descent on the whole training set."""

    algorithm: Literal["gd"]


class StochasticGradientDescent(_Training):
    """Constant-step descent on mini-batches."""

    algorithm: Literal["sgd"]
    batch_size: int = Field(ge=1)
    # Absent, a record is measured on the whole training set.
    num_recorded: int | None = Field(default=None, ge=1)


class Spectra(Section):
    """At which steps the exact spectra of which matrices are computed."""

    steps: Literal["ends", "all"] | Annotated[list[Step], Distinct]
    matrices: Annotated[list[Matrix], Distinct] = Field(min_length=1)


class Experiment(Section):
    """One network trained on one dataset, for one or more seeds."""

    dataset: str
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)
    # Absent, the network starts at a random point; else at the end of this experiment.
    starts_from: str | None = None
    model: Annotated[MLP | ConvNet | AlexNet | OwnModel, Field(discriminator="kind")]
    training: Annotated[
        GradientDescent | StochasticGradientDescent | SavedState, Field(discriminator="algorithm")
    ]
    # Absent, none are computed; one of the two must be there.
    spectra: Spectra | None = None
    matrix_free: MatrixFree | None = None

    @property
    def checkpoint_steps(self) -> list[int]:
        """Steps with a checkpoint: 0, every `checkpoint_every`, and the last, ascending."""
        if isinstance(self.training, SavedState):
            return [0]
        last = self.training.num_steps
        return sorted({*range(0, last, self.training.checkpoint_every), last})

    @property
    def spectrum_steps(self) -> list[int]:
        """Steps with exact spectra, ascending."""
        return self.steps_of(self.spectra)

    @property
    def matrix_free_steps(self) -> list[int]:
        """Steps with densities and extreme eigenpairs, ascending."""
        return self.steps_of(self.matrix_free)

    @property
    def ends(self) -> Spectra | MatrixFree | None:
        """Where the extreme eigenvalues are found: in all of them, if they are computed."""
        return self.spectra or self.matrix_free

    def steps_of(self, plan: Spectra | MatrixFree | None) -> list[int]:
        """Steps of a part of the experiment, ascending."""
        if plan is None:
            return []
        if plan.steps == "ends":
            return sorted({self.checkpoint_steps[0], self.checkpoint_steps[-1]})
        if plan.steps == "all":
            return self.checkpoint_steps
        return sorted(set(plan.steps))


class SpectrumSettings(Section):
    """How the signs of eigenvalues are counted; see `hesspipe.curvature.spectra`."""

    zero_tolerance: Positive


class OutlierSettings(Section):
    """How outliers are counted; see `hesspipe.outliers`."""

    rules: Annotated[list[OutlierRule], Distinct] = Field(min_length=1)
    num_candidates: int = Field(ge=2)


class LineSettings(Section):
    """Where the loss on a straight line is evaluated.

    See `hesspipe.landscape.paths.line_coefficients`.
    """

    num_between: int = Field(ge=2)
    num_beyond: int = Field(ge=0)


class PlaneSettings(Section):
    """Where the loss on a plane is evaluated; see `hesspipe.landscape.paths.plane_grid`."""

    num_points: int = Field(ge=2)
    margin: Share


class DirectionSettings(Section):
    """How eigenvectors are compared with gradients; see `hesspipe.experiments.directions`."""

    num_beyond: int = Field(ge=1)
    tolerance: Positive


Data = Annotated[
    GaussianClusters | MNISTDigits | CIFAR10Images | OwnData | DataFile, Field(discriminator="kind")
]


class Config(Section):
    """The whole of config.yaml."""

    datasets: dict[Name, Data] = Field(min_length=1)
    experiments: dict[Name, Experiment] = Field(min_length=1)
    spectrum: SpectrumSettings
    outliers: OutlierSettings
    # Needed by what compares eigenvectors with gradients.
    directions: DirectionSettings | None = None
    # Needed by what reads a training that goes on from another one.
    lines: LineSettings | None = None
    planes: PlaneSettings | None = None
    figures: dict[Name, Figure]
    # Absent, there are none: a project of one's own need not name what is the paper's.
    random_matrices: dict[Name, RandomMatrixExperiment] = Field(default_factory=dict)
    tables: dict[Name, Table] = Field(default_factory=dict)
    claims: dict[Name, Claim] = Field(default_factory=dict)

    def readers(self) -> Iterable[tuple[str, Any]]:
        """Every figure, table and claim, with its place in the file."""
        for section in ("figures", "tables", "claims"):
            for name, entry in getattr(self, section).items():
                yield f"{section}.{name}", entry


def validate_config(raw: Mapping[str, Any], source: str = "config.yaml") -> Config:
    """Check a configuration and give it its types.

    Parameters
    ----------
    raw : mapping
        The content of a YAML file.
    source : str
        The file's name, for messages.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        With one line for each mistake: the key, the value, and what is allowed.

    Examples
    --------
    >>> validate_config({})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    hesspipe.config.schema.ConfigError: config.yaml: datasets is missing...
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = explain([dict(mistake) for mistake in error.errors()], raw, _known_keys())
    else:
        lines = list(broken_references(config))
    if lines:
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None
    return config


def load_config(path_to_config: str | Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError
        If the file is not YAML, not a mapping, or has mistakes (see `validate_config`).
    """
    try:
        raw = yaml.safe_load(Path(path_to_config).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path_to_config} is not valid YAML: {error}") from None
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path_to_config} must hold a mapping, got {type(raw).__name__}")
    return validate_config(raw, str(path_to_config))


def _known_keys(section: type[BaseModel] = Section) -> set[str]:
    """Every key that some section of the file may have."""
    keys = set(section.model_fields)
    return keys.union(*(_known_keys(part) for part in section.__subclasses__()))

"""Datasets in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.types import (
    MOST_COUNTED,
    Arguments,
    Finite,
    FunctionName,
    NumSamples,
    NumUnits,
    PathName,
    Positive,
    Section,
    Seed,
)

if TYPE_CHECKING:
    from hesspipe.config.schema import Config


class _Data(Section):
    # Height and width of the inputs, if they are images.
    image_size: ClassVar[int | None] = None
    # Whether targets are class labels, if the configuration determines it.
    has_classes: ClassVar[bool] = True

    def produces(self, name: str, config: Config) -> list[ResultKey]:
        """List the results that can be computed from this entry."""
        return [ResultKey(ResultKind.DATASETS, name)]


class GaussianClusters(_Data):
    """Isotropic Gaussian clusters, one per class; see `hesspipe.data.clusters`."""

    kind: Literal["gaussian_clusters"]
    num_clusters: int = Field(ge=2, le=MOST_COUNTED)
    cluster_std: Positive
    num_features: NumUnits
    center_low: Finite
    center_high: Finite
    num_train: NumSamples
    num_test: NumSamples
    seed: Seed


class MNISTDigits(_Data):
    """Handwritten digits; see `hesspipe.data.mnist`."""

    image_size: ClassVar[int | None] = 28

    kind: Literal["mnist_digits"]
    source: Literal["embedded", "folder", "download", "own_files"]
    folder: PathName | None
    num_train: NumSamples
    seed: Seed


class CIFAR10Images(_Data):
    """Small color photographs; see `hesspipe.data.cifar10`."""

    image_size: ClassVar[int | None] = 32

    kind: Literal["cifar10_images"]
    source: Literal["folder", "download", "own_files"]
    folder: PathName = Field(min_length=1)
    num_train: NumSamples
    seed: Seed


class UserData(_Data):
    """The data that a user function returns."""

    has_classes: ClassVar[bool] = False

    kind: Literal["user"]
    function: FunctionName
    arguments: Arguments


class DataFile(_Data):
    """Tensors in a safetensors file of the user."""

    has_classes: ClassVar[bool] = False

    kind: Literal["file"]
    path: PathName = Field(min_length=1)


Data = Annotated[
    GaussianClusters | MNISTDigits | CIFAR10Images | UserData | DataFile,
    Field(discriminator="kind"),
]

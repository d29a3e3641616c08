"""Networks, data and losses of one's own in config.yaml, and spectra without the matrix."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hesspipe.config.types import Distinct, Matrix, Name, Positive, Section, Seed, Step
from hesspipe.imports import is_function_name

# The name of the group of all parameters; other groups of an experiment are its own.
WHOLE_NETWORK = "network"


def _of_the_form(name: str) -> str:
    if not is_function_name(name):
        raise ValueError("a name of the form package.module:function")
    return name


FunctionName = Annotated[str, AfterValidator(_of_the_form)]


class OwnData(Section):
    """What a function of one's own returns; see `hesspipe.networks.build.make_own_dataset`."""

    kind: Literal["own"]
    function: FunctionName
    arguments: dict[str, Any]


class DataFile(Section):
    """Tensors in a safetensors file; see `hesspipe.networks.build.make_own_dataset`."""

    kind: Literal["file"]
    path: str = Field(min_length=1)


class OwnModel(Section):
    """A network and its loss, each built by a function of one's own."""

    kind: Literal["own"]
    function: FunctionName
    arguments: dict[str, Any]
    loss: FunctionName
    loss_arguments: dict[str, Any]

    @property
    def functions(self) -> list[str]:
        """Names of the functions."""
        return [self.function, self.loss]


class SavedState(Section):
    """No training: a state dict in a safetensors file."""

    algorithm: Literal["saved"]
    path: str = Field(min_length=1)


class DensitySettings(Section):
    """Stochastic Lanczos quadrature; see `hesspipe.linalg.density.density`."""

    num_probes: int = Field(ge=2)
    num_steps: int = Field(ge=2)
    seed: Seed


class EigenpairSettings(Section):
    """Both ends of a spectrum; see `hesspipe.linalg.eigenpairs.eigenpairs`."""

    num_smallest: int = Field(ge=0)
    num_largest: int = Field(ge=1)
    tolerance: Positive
    max_products: int = Field(ge=1)
    seed: Seed


class MatrixFree(Section):
    """What is computed from products alone, where a network is too large for all eigenvalues.

    Groups are parts of the network: from a name to patterns of names of parameters. Each has
    densities of its own, of the matrices of `group_matrices`, besides those of the whole network.
    """

    steps: Literal["ends", "all"] | Annotated[list[Step], Distinct]
    matrices: Annotated[list[Matrix], Distinct] = Field(min_length=1)
    dtype: Literal["float32", "float64"]
    batch_size: Annotated[int, Field(ge=1)] | None
    groups: dict[Name, Annotated[list[str], Field(min_length=1)]]
    group_matrices: Annotated[list[Matrix], Distinct]
    density: DensitySettings
    eigenpairs: EigenpairSettings

    @property
    def all_groups(self) -> list[str]:
        """The whole network first, then its parts."""
        return [WHOLE_NETWORK, *self.groups]

    @property
    def densities(self) -> list[tuple[Matrix, str]]:
        """Matrix and group of each density."""
        whole = [(matrix, WHOLE_NETWORK) for matrix in self.matrices]
        return whole + [(matrix, group) for matrix in self.group_matrices for group in self.groups]

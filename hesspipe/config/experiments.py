"""Experiments in a configuration: models, trainings, and spectra."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.types import (
    MOST_LANCZOS_STEPS,
    MOST_LAYERS,
    MOST_PAIRS,
    MOST_PROBES,
    MOST_PROCESSES,
    Activation,
    Arguments,
    Distinct,
    Dtype,
    FunctionName,
    Matrices,
    MatrixName,
    Name,
    NumPairs,
    NumSamples,
    NumSteps,
    NumUnits,
    PathName,
    Positive,
    Section,
    Seed,
    Seeds,
    Steps,
    Text,
    Tolerance,
)
from hesspipe.curvature.matrix import Matrix

if TYPE_CHECKING:
    from hesspipe.config.schema import Config

# The group of all parameters; an experiment names the other groups.
WHOLE_NETWORK = "network"


class MLP(Section):
    """A fully connected network; see `hesspipe.networks.architectures.mlp`."""

    kind: Literal["mlp"]
    hidden_widths: list[NumUnits] = Field(max_length=MOST_LAYERS)
    activation: Activation
    initial_std: Positive


class ConvNet(Section):
    """Two convolutions and two fully connected layers.

    See `hesspipe.networks.architectures.convnet`.
    """

    kind: Literal["convnet"]
    channels: list[NumUnits] = Field(min_length=2, max_length=2)
    kernel_size: Annotated[int, Field(ge=1, le=1000)]
    hidden_width: NumUnits
    initial_std: Positive


class AlexNet(Section):
    """Convolutions and one fully connected layer; see `hesspipe.networks.architectures.alexnet`."""

    kind: Literal["alexnet"]
    channels: list[NumUnits] = Field(min_length=5, max_length=5)
    kernel_sizes: list[Annotated[int, Field(ge=1, le=1000)]] = Field(min_length=5, max_length=5)
    first_stride: Annotated[int, Field(ge=1, le=1000)]
    pool_after: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Distinct]
    initial_gain: Positive


class UserModel(Section):
    """A network and its loss, each built by a user function."""

    kind: Literal["user"]
    function: FunctionName
    arguments: Arguments
    loss: FunctionName
    loss_arguments: Arguments

    @property
    def functions(self) -> list[str]:
        """Names of the functions."""
        return [self.function, self.loss]


class _Training(Section):
    step_size: Positive
    num_steps: NumSteps
    record_every: NumSteps
    checkpoint_every: NumSteps
    dtype: Dtype


class GradientDescent(_Training):
    """Constant-step descent on the whole training set."""

    algorithm: Literal["gd"]


class StochasticGradientDescent(_Training):
    """Constant-step descent on mini-batches."""

    algorithm: Literal["sgd"]
    batch_size: NumSamples
    # Absent, a record is measured on the whole training set.
    num_recorded: NumSamples | None = None


class SavedState(Section):
    """No training: the state dict of a trained network; see `hesspipe.networks.saved_states`."""

    algorithm: Literal["saved"]
    path: PathName = Field(min_length=1)


class Spectra(Section):
    """Steps and matrices of the exact spectra."""

    steps: Literal["ends", "all"] | Steps
    matrices: Matrices


class DensitySettings(Section):
    """Stochastic Lanczos quadrature; see `hesspipe.linalg.density.density`."""

    num_probes: int = Field(ge=2, le=MOST_PROBES)
    num_steps: int = Field(ge=2, le=MOST_LANCZOS_STEPS)
    seed: Seed


class EigenpairSettings(Section):
    """Both ends of a spectrum, of G the upper one; see `hesspipe.linalg.eigenpairs.eigenpairs`."""

    num_smallest: int = Field(ge=0, le=MOST_PAIRS)
    num_largest: NumPairs
    tolerance: Tolerance
    max_products: NumSteps
    seed: Seed


class MatrixFree(Section):
    """Densities and eigenpairs of a network that is too large for all eigenvalues.

    A group is a part of the network: a name, and patterns of parameter names. Besides those of
    the whole network, there is a density of each of `group_matrices` for each group.
    """

    steps: Literal["ends", "all"] | Steps
    matrices: Matrices
    dtype: Dtype
    batch_size: NumSamples | None
    # Each with a part of the training set, started by torchrun; see docs/several_processes.md.
    processes: int = Field(default=1, ge=1, le=MOST_PROCESSES)
    groups: dict[Name, Annotated[list[Text], Field(min_length=1)]]
    group_matrices: Annotated[list[MatrixName], Distinct]
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


Model = Annotated[MLP | ConvNet | AlexNet | UserModel, Field(discriminator="kind")]
Training = Annotated[
    GradientDescent | StochasticGradientDescent | SavedState, Field(discriminator="algorithm")
]


class Experiment(Section):
    """One network trained on one dataset, for one or more seeds."""

    dataset: str
    seeds: Seeds
    # Absent, the network starts at a random point; else at the end of this experiment.
    starts_from: str | None = None
    model: Model
    training: Training
    # At least one of the two must be given.
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
    def last_step(self) -> int:
        """The step at which training ends."""
        return self.checkpoint_steps[-1]

    @property
    def spectrum_steps(self) -> list[int]:
        """Steps with exact spectra, ascending."""
        return self._steps_of(self.spectra)

    @property
    def matrix_free_steps(self) -> list[int]:
        """Steps with densities and extreme eigenpairs, ascending."""
        return self._steps_of(self.matrix_free)

    @property
    def extremes_kind(self) -> ResultKind:
        """Kind of result with the largest eigenvalues: exact spectra, if they are computed."""
        return ResultKind.SPECTRA if self.spectra else ResultKind.EIGENPAIRS

    def spectra_of(self, name: str, seed: int) -> list[ResultKey]:
        """List the exact spectra of one run, by step and matrix."""
        return [
            ResultKey(ResultKind.SPECTRA, name, seed, step, matrix)
            for step in self.spectrum_steps
            for matrix in (self.spectra.matrices if self.spectra else [])
        ]

    def densities_of(self, name: str, seed: int) -> list[ResultKey]:
        """List the densities of one run, by step, matrix and group."""
        return [
            ResultKey(ResultKind.DENSITIES, name, seed, step, matrix, group)
            for step in self.matrix_free_steps
            for matrix, group in (self.matrix_free.densities if self.matrix_free else [])
        ]

    def eigenpairs_of(self, name: str, seed: int) -> list[ResultKey]:
        """List the extreme eigenpairs of one run, by step and matrix."""
        return [
            ResultKey(ResultKind.EIGENPAIRS, name, seed, step, matrix)
            for step in self.matrix_free_steps
            for matrix in (self.matrix_free.matrices if self.matrix_free else [])
        ]

    def extremes_of(self, name: str, seed: int) -> list[ResultKey]:
        """List the results of one run in which outliers are counted."""
        return self.spectra_of(name, seed) if self.spectra else self.eigenpairs_of(name, seed)

    def computes(self, name: str) -> list[ResultKey]:
        """List the spectra, densities and eigenpairs of the entry, for every seed."""
        return [
            key
            for seed in self.seeds
            for keys in (self.spectra_of, self.densities_of, self.eigenpairs_of)
            for key in keys(name, seed)
        ]

    def produces(self, name: str, config: Config) -> list[ResultKey]:
        """List the results that can be computed from this entry: of all seeds, of every kind.

        Those of `computes` are always computed, the others only if a figure, table or claim reads
        them.
        """
        keys = self.computes(name)
        for seed in self.seeds:
            keys += [
                ResultKey(ResultKind.CHECKPOINTS, name, seed, step)
                for step in self.checkpoint_steps
            ]
            if not isinstance(self.training, SavedState):
                keys.append(ResultKey(ResultKind.HISTORIES, name, seed))
            if self.extremes_of(name, seed):
                keys.append(ResultKey(ResultKind.OUTLIERS, name, seed))
            if self.spectrum_steps and self.spectra and {*self.spectra.matrices} == {*Matrix}:
                keys.append(ResultKey(ResultKind.DECOMPOSITIONS, name, seed))
            if config.directions:
                keys.append(ResultKey(ResultKind.DIRECTIONS, name, seed, self.last_step))
            if self.matrix_free:
                # The table of sharpness reads these whatever `steps` says.
                keys += [
                    ResultKey(ResultKind.EIGENPAIRS, name, seed, self.last_step, matrix)
                    for matrix in self.matrix_free.matrices
                ]
        return list(dict.fromkeys(keys + self._landscape(name, config)))

    def _landscape(self, name: str, config: Config) -> list[ResultKey]:
        """Lines and planes, which exist for trainings that continue another one."""
        if self.starts_from is None:
            return []
        parts = [(seed, "line") for seed in self.seeds if config.lines]
        for seed, other in permutations(self.seeds, 2):
            to = f"to_seed{other}"
            parts.append((seed, f"aligned_{to}"))
            if config.lines:
                parts += [(seed, f"line_{to}"), (seed, f"line_{to}_aligned")]
            if config.planes:
                parts += [(seed, f"plane_{to}"), (seed, f"plane_{to}_points")]
        return [ResultKey(ResultKind.LANDSCAPE, name, seed, group=group) for seed, group in parts]

    def _steps_of(self, plan: Spectra | MatrixFree | None) -> list[int]:
        if plan is None:
            return []
        if plan.steps == "ends":
            return sorted({self.checkpoint_steps[0], self.checkpoint_steps[-1]})
        if plan.steps == "all":
            return self.checkpoint_steps
        return sorted(plan.steps)

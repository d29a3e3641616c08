"""What the jobs of each entry of a configuration take: memory, disk space and operations.

Sizes follow from the configuration for the paper's networks on data of known shape. For a network
of the user see `hesspipe.workflow.user_networks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hesspipe import forecasts
from hesspipe.config.checks import NUM_EMBEDDED
from hesspipe.config.datasets import CIFAR10Images, GaussianClusters, MNISTDigits
from hesspipe.config.experiments import Experiment, SavedState
from hesspipe.config.figures import CurvesFigure
from hesspipe.config.random_matrices import LinearModel, SpikedSpectra, Spikes
from hesspipe.config.results import ResultKind
from hesspipe.config.sizes import num_checkpoints
from hesspipe.curvature.matrix import Matrix

if TYPE_CHECKING:
    from hesspipe.config.schema import Config

_SECONDS_PER_STEP = 2e-5  # of the smallest network
_SECONDS_PER_DRAW = 1e-4  # of a largest eigenvalue
_ELEMENT_BYTES = {"float32": 4, "float64": 8}
_NUM_MNIST, _NUM_CIFAR_TEST = 70_000, 10_000


@dataclass(frozen=True)
class Need:
    """What the jobs behind one kind of result of one entry take.

    Attributes
    ----------
    kind : ResultKind
    owner : str
        The entry's name.
    key : str
        The key of the configuration that decides it.
    what : str
        What is computed, with its size.
    advice : str
    memory_bytes : int
        Of one job, at least.
    disk_bytes : int
        Of all jobs together.
    operations : float
        Multiplications and additions of one job.
    seconds : float
        Of one job, besides these.
    preferred_bytes : int
        Memory of one job that takes more where it is there, and then less time; 0 for the others.
    """

    kind: ResultKind
    owner: str
    key: str
    what: str
    advice: str
    memory_bytes: int = 0
    disk_bytes: int = 0
    operations: float = 0.0
    seconds: float = 0.0
    preferred_bytes: int = 0


def needs(config: Config) -> Iterator[Need]:
    """Forecast every entry of a configuration.

    Yields
    ------
    Need
    """
    for name, data in config.datasets.items():
        if isinstance(data, GaussianClusters):
            num_points = data.num_train + data.num_test
            num_bytes = forecasts.clusters_bytes(num_points, data.num_features)
            yield Need(
                ResultKind.DATASETS,
                name,
                f"datasets.{name}.num_train",
                f"drawing {num_points:,} points of {data.num_features:,} features",
                "use fewer points or features",
                memory_bytes=num_bytes,
                disk_bytes=num_bytes // 3,
            )
    for name, experiment in config.experiments.items():
        yield from _needs_of_experiment(name, experiment, config)
    for name, entry in config.random_matrices.items():
        yield _need_of_random_matrix(f"random_matrices.{name}", name, entry)
    for name, figure in config.figures.items():
        if isinstance(figure, CurvesFigure):
            plan = config.experiments[figure.experiment].matrix_free
            nodes = plan.density.num_steps if plan else 0
            yield Need(
                ResultKind.CURVES,
                name,
                f"figures.{name}.num_points",
                f"a curve of {figure.num_points:,} points from {nodes:,} nodes",
                "use fewer points",
                memory_bytes=forecasts.curve_bytes(figure.num_points, nodes),
            )


def _needs_of_experiment(name: str, experiment: Experiment, config: Config) -> Iterator[Need]:
    """The needs of a network whose size is known."""
    data, model = config.datasets[experiment.dataset], experiment.model
    facts = facts_of(data)
    if facts is None:
        return
    shape, num_classes, num_test = facts
    size = forecasts.network_size(model.model_dump(), shape, num_classes)
    if size is None:
        return
    key = f"experiments.{name}"
    num_train: int = getattr(data, "num_train", 0)
    layers = "hidden_widths" if model.kind == "mlp" else "channels"
    parameters = f"P = {size.num_parameters:,} parameters"
    if not isinstance(experiment.training, SavedState):
        yield _need_of_training(key, name, experiment, size, (num_train, num_test), layers)
    if experiment.spectra is not None:
        yield _need_of_spectra(key, name, experiment, size, num_train * (num_classes - 1))
    yield from _needs_of_matrix_free(key, name, experiment, size, num_train)
    if config.directions is not None:
        number = num_classes + config.directions.num_beyond
        # The gradients of all classes follow the search, whose basis is gone by then.
        gradients = forecasts.basis_bytes(number + num_classes**2, size.num_parameters, 8)
        least, preferred = forecasts.search_bytes(number, size.num_parameters, 8)
        yield Need(
            ResultKind.DIRECTIONS,
            name,
            f"{key}.model.{layers}",
            f"comparing {number:,} eigenvectors of {parameters} with gradients",
            "use a smaller network",
            memory_bytes=max(least, gradients),
            preferred_bytes=max(preferred, gradients),
        )
    if experiment.starts_from is not None and not isinstance(experiment.training, SavedState):
        yield from _needs_of_landscape(key, name, experiment, config, size, num_train)


def _need_of_training(
    key: str,
    name: str,
    experiment: Experiment,
    size: forecasts.NetworkSize,
    numbers: tuple[int, int],
    layers: str,
) -> Need:
    training: Any = experiment.training
    num_train, num_test = numbers
    batch_size = getattr(training, "batch_size", num_train)
    element_bytes = _ELEMENT_BYTES[training.dtype]
    memory = forecasts.training_bytes(size, batch_size, element_bytes)
    number = len(experiment.seeds) * num_checkpoints(experiment)
    disk = number * size.num_parameters * element_bytes
    # A gradient takes three times the evaluation, at two operations a multiplication.
    recorded = getattr(training, "num_recorded", None) or num_train
    records = training.num_steps // training.record_every + 1
    operations = size.num_products * (
        6.0 * training.num_steps * batch_size + records * (6.0 * recorded + 2.0 * num_test)
    )
    is_disk = disk > memory
    return Need(
        ResultKind.CHECKPOINTS,
        name,
        f"{key}.training.checkpoint_every" if is_disk else f"{key}.model.{layers}",
        f"training P = {size.num_parameters:,} parameters for {training.num_steps:,} steps of "
        f"{batch_size:,} samples with {number:,} checkpoints",
        "use a smaller network, smaller batches, or fewer steps, seeds and checkpoints",
        memory,
        disk,
        operations,
        training.num_steps * _SECONDS_PER_STEP,
    )


def _need_of_spectra(
    key: str, name: str, experiment: Experiment, size: forecasts.NetworkSize, rank: int
) -> Need:
    """Of the method with the smallest matrix: for fully connected layers, that of the rank of G."""
    assert experiment.spectra is not None
    rows, number = size.num_parameters, len(experiment.seeds) * len(experiment.spectra_of(name, 0))
    if experiment.model.kind == "mlp":
        # R alone may need less.
        rows = min(rows, rank) if {*experiment.spectra.matrices} - {Matrix.RESIDUAL} else 0
    return Need(
        ResultKind.SPECTRA,
        name,
        f"{key}.spectra",
        f"the exact spectrum for P = {size.num_parameters:,} parameters",
        "use matrix_free, which forms no matrix, or a smaller network",
        memory_bytes=forecasts.matrix_bytes(rows),
        disk_bytes=8 * size.num_parameters * number,
        operations=4 / 3 * rows**3,
    )


def _needs_of_matrix_free(
    key: str, name: str, experiment: Experiment, size: forecasts.NetworkSize, num_train: int
) -> Iterator[Need]:
    plan = experiment.matrix_free
    if plan is None:
        return
    num_parameters, element_bytes = size.num_parameters, _ELEMENT_BYTES[plan.dtype]
    # A product takes four evaluations' work or more, at two operations a multiplication.
    product = 8.0 * size.num_products * num_train
    num_steps = min(plan.density.num_steps, num_parameters)
    all_steps = plan.density.num_probes * num_steps
    least, preferred = forecasts.density_bytes(num_steps, num_parameters, element_bytes)
    yield Need(
        ResultKind.DENSITIES,
        name,
        f"{key}.matrix_free.density.num_steps",
        f"a basis of {num_steps:,} vectors of P = {num_parameters:,}, "
        f"for each of {plan.density.num_probes:,} probes,",
        "use fewer steps or probes, dtype: float32 or a smaller network",
        memory_bytes=least,
        preferred_bytes=preferred,
        operations=all_steps * (product + 4.0 * num_steps * num_parameters),
    )
    wanted = plan.eigenpairs.num_smallest + plan.eigenpairs.num_largest
    least, preferred = forecasts.search_bytes(wanted, num_parameters, element_bytes)
    yield Need(
        ResultKind.EIGENPAIRS,
        name,
        f"{key}.matrix_free.eigenpairs.num_largest",
        f"a search with a basis of {min(num_parameters, forecasts.least_basis_capacity(wanted)):,} "
        f"vectors or more of P = {num_parameters:,}",
        "use fewer eigenpairs, dtype: float32 or a smaller network",
        memory_bytes=least,
        preferred_bytes=preferred,
        operations=wanted * product,
    )


def _needs_of_landscape(
    key: str,
    name: str,
    experiment: Experiment,
    config: Config,
    size: forecasts.NetworkSize,
    num_train: int,
) -> Iterator[Need]:
    training: Any = experiment.training
    number, element_bytes = num_checkpoints(experiment), _ELEMENT_BYTES[training.dtype]
    if experiment.starts_from in config.experiments:
        number += num_checkpoints(config.experiments[experiment.starts_from])
    points = max(
        config.planes.num_points**2 if config.planes else 0,
        config.lines.num_between + 2 * config.lines.num_beyond if config.lines else 0,
    )
    evaluation = 2.0 * size.num_products * (getattr(training, "num_recorded", None) or num_train)
    yield Need(
        ResultKind.LANDSCAPE,
        name,
        f"{key}.training.checkpoint_every" if config.planes else "lines.num_between",
        f"evaluating {points:,} points between {number:,} checkpoints",
        "use fewer points in planes and lines, fewer checkpoints or a smaller network",
        memory_bytes=forecasts.plane_bytes(number, size.num_parameters, element_bytes),
        operations=points * evaluation,
    )


def _need_of_random_matrix(key: str, name: str, entry: Any) -> Need:
    if isinstance(entry, LinearModel):
        outputs = 1 if entry.model == "logistic" else 2
        sizes = entry.num_features, entry.num_samples
        rows = min(entry.num_features * outputs, entry.num_samples)
        return Need(
            ResultKind.RANDOM_MATRICES,
            name,
            f"{key}.num_samples",
            f"a linear model of {entry.num_samples:,} samples of {entry.num_features:,} features",
            "use fewer samples, features or steps",
            memory_bytes=forecasts.linear_model_bytes(*sizes, outputs),
            operations=4 / 3 * rows**3 + 4.0 * math.prod(sizes) * outputs * entry.num_steps,
        )
    if isinstance(entry, Spikes):
        draws = len(entry.strengths) * len(entry.num_samples) * entry.num_repeats
        return Need(
            ResultKind.RANDOM_MATRICES,
            name,
            f"{key}.num_repeats",
            f"a table of {draws:,} draws",
            "use fewer repeats, strengths or sizes",
            memory_bytes=forecasts.spikes_bytes(draws),
            seconds=draws * _SECONDS_PER_DRAW,
        )
    assert isinstance(entry, SpikedSpectra)
    rows = entry.num_parameters
    return Need(
        ResultKind.RANDOM_MATRICES,
        name,
        f"{key}.num_parameters",
        f"{entry.num_repeats:,} spectra of {rows:,} parameters and {entry.num_samples:,} samples",
        "use fewer parameters, samples or repeats",
        memory_bytes=forecasts.spiked_spectra_bytes(rows, entry.num_samples, entry.num_repeats),
        operations=float(entry.num_repeats) * rows**2 * (2 * entry.num_samples + 4 * rows / 3),
    )


def facts_of(data: Any) -> tuple[list[int], int, int] | None:
    """Shape of an input, number of classes and of held-out samples, where they are known."""
    if isinstance(data, GaussianClusters):
        return [data.num_features], data.num_clusters, data.num_test
    if isinstance(data, MNISTDigits):
        total = NUM_EMBEDDED if data.source == "embedded" else _NUM_MNIST
        return [1, 28, 28], 10, max(0, total - data.num_train)
    return ([3, 32, 32], 10, _NUM_CIFAR_TEST) if isinstance(data, CIFAR10Images) else None

"""Mistakes in what is one's own: functions, files and groups that are not there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hesspipe.config.own import WHOLE_NETWORK
from hesspipe.imports import mistake_in

if TYPE_CHECKING:
    from hesspipe.config.schema import Config, Experiment

_OWN_DATA = ("own", "file")
# Figures and claims that compare counts with the number of classes.
_NEED_CLASSES = ("gaps", "counts_match", "outlier_counts")
_DENSITIES = ("densities", "layers")
_ENDS = ("overlay", "over_training", "outliers")


def broken_own_data(key: str, data: Any) -> Iterable[str]:
    """Find a dataset whose function or file is not there."""
    if data.kind == "own":
        yield from _broken_function(f"{key}.function", data.function)
    else:
        yield from _absent_file(f"{key}.path", data.path)


def broken_own_experiment(key: str, experiment: Experiment, config: Config) -> Iterable[str]:
    """Find what does not fit in an experiment that is one's own, or matrix-free."""
    model, training, plan = experiment.model, experiment.training, experiment.matrix_free
    if experiment.ends is None:
        yield f"{key} must have spectra, matrix_free or both, got neither"
    if model.kind == "own":
        yield from _broken_function(f"{key}.model.function", model.function)
        yield from _broken_function(f"{key}.model.loss", model.loss)
    elif config.datasets[experiment.dataset].kind in _OWN_DATA:
        yield f"{key}.model.kind must be 'own' for data of one's own, got {model.kind!r}"
    if training.algorithm == "saved":
        yield from _absent_file(f"{key}.training.path", training.path)
        if len(experiment.seeds) > 1:
            yield f"{key}.seeds must be one seed for one saved state, got {experiment.seeds}"
    if plan is None:
        return
    if WHOLE_NETWORK in plan.groups:
        yield f"{key}.matrix_free.groups must not be named {WHOLE_NETWORK}: that is all of them"
    num_candidates, num_largest = config.outliers.num_candidates, plan.eigenpairs.num_largest
    if experiment.spectra is None and num_candidates > num_largest:
        yield (
            f"outliers.num_candidates must be at most {key}.matrix_free.eigenpairs.num_largest "
            f"({num_largest}), got {num_candidates}"
        )


def plan_behind(entry: Any, experiment: Experiment) -> tuple[str, Any]:
    """Pick the part of an experiment that a figure, table or claim reads, and its name."""
    if entry.kind in _DENSITIES:
        return "densities", experiment.matrix_free
    if entry.kind in _ENDS:
        return "eigenvalues", experiment.ends
    return "spectra", experiment.spectra


def broken_gallery_entry(
    key: str, entry: Any, experiment: Experiment, name: str, config: Config
) -> Iterable[str]:
    """Find a figure, table or claim that reads more of an experiment than there is."""
    data = config.datasets.get(experiment.dataset)
    if data is not None and data.kind in _OWN_DATA and entry.kind in _NEED_CLASSES:
        yield f"{key} must name experiments on data with known classes, got {name!r}"
    if entry.kind == "layers" and experiment.matrix_free is not None:
        known = experiment.matrix_free.all_groups
        for group in entry.titles:
            if group not in known:
                yield f"{key}.titles must be of {name}'s groups {known}, got {group!r}"
            elif entry.matrix in experiment.matrix_free.matrices and (
                (entry.matrix, group) not in experiment.matrix_free.densities
            ):
                yield f"{key} reads the {entry.matrix} of {group}, which {name} does not compute"
    if entry.kind in _ENDS and experiment.spectra is None and experiment.matrix_free is not None:
        for end in ("num_largest", "num_smallest"):
            limit = getattr(experiment.matrix_free.eigenpairs, end)
            if getattr(entry, end, 0) > limit:
                yield (
                    f"{key}.{end} must be at most that of {name}'s eigenpairs ({limit}), "
                    f"got {getattr(entry, end)}"
                )


def _broken_function(key: str, name: str) -> Iterable[str]:
    mistake = mistake_in(name)
    if mistake is not None:
        yield f"{key} {mistake}"


def _absent_file(key: str, path: str) -> Iterable[str]:
    if not Path(path).is_file():
        yield f"{key} must be a file, and there is none, got {path!r}"

"""Check that every result that a figure, table or claim reads can be computed.

`reads` of the entry must be a part of `produces` of the experiments. Where it is not, one line
names the entry, the result, and the key of the configuration that has to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hesspipe.config.datasets import GaussianClusters
from hesspipe.config.experiments import MLP, Experiment
from hesspipe.config.figures import (
    CurvesFigure,
    ExtremesFigure,
    OverTrainingFigure,
    PlaneFigure,
    SpikesFigure,
)
from hesspipe.config.messages import unknown_name
from hesspipe.config.random_matrices import Spikes
from hesspipe.config.readers import OfSources, Reader, both_parts
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.config.tables import OutlierCountsTable, SharpnessTable
from hesspipe.curvature.matrix import Matrix

if TYPE_CHECKING:
    from hesspipe.config.schema import Config


def broken_references(config: Config) -> Iterator[str]:
    """Find figures, tables and claims that read results that cannot be computed.

    Parameters
    ----------
    config : Config
        With every key of the right type and range.

    Yields
    ------
    str
        One line for each key that has to change.
    """
    produced = config.results()
    for key, entry in config.readers():
        lines = [*_unknown_owners(key, entry, config)]
        if not lines:
            lines = [*_wrong_settings(key, entry, config)]
            lines += _missing_results(key, entry, produced, config)
        yield from lines


def _unknown_owners(key: str, entry: Reader, config: Config) -> Iterator[str]:
    """Find names of entries that do not exist, or are of another kind."""
    owners: dict[str, Any] = getattr(config, entry.owner_section)
    known = [
        name
        for name, owner in owners.items()
        if (not isinstance(entry, OfSources) or owner.kind == entry.source_kind)
        and (not entry.needs_start or owner.starts_from is not None)
    ]
    what = " with starts_from" if entry.needs_start else ""
    for name in entry.owners():
        if name not in known:
            yield unknown_name(f"{key} must read {entry.owner_section}{what},", known, name)


def _missing_results(
    key: str, entry: Reader, produced: set[ResultKey], config: Config
) -> Iterator[str]:
    """Find results that are read and cannot be computed."""
    if isinstance(entry, PlaneFigure) and entry.seed == entry.other_seed:
        return  # reported as a setting
    needed = entry.densities() if isinstance(entry, CurvesFigure) else entry.reads(config)
    known: set[str] = set()
    for result in needed:
        if result not in produced:
            requirement = _requirement(result, config)
            if requirement not in known:
                yield f"{key} reads {_describe(result)}; {requirement}"
            known.add(requirement)


def _describe(key: ResultKey) -> str:
    """Describe the result of a key."""
    steps = f"step {key.step}" if key.step is not None else None
    parts = [part for part in (key.matrix, key.group, steps, f"seed {key.seed}") if part]
    return f"{key.kind} of {key.experiment} ({', '.join(parts)})"


def _requirement(key: ResultKey, config: Config) -> str:
    """Describe the change of the configuration that lets a result of a run be computed."""
    place, plan = f"experiments.{key.experiment}", config.experiments[key.experiment]
    if key.seed not in plan.seeds:
        return f"{place}.seeds must include {key.seed}, got {plan.seeds}"
    if key.kind in (ResultKind.SPECTRA, ResultKind.DECOMPOSITIONS):
        return _spectra_requirement(place, plan, key)
    if key.kind in (ResultKind.EIGENPAIRS, ResultKind.DENSITIES):
        return _matrix_free_requirement(place, plan, key)
    if key.kind is ResultKind.DIRECTIONS:
        return "directions must be set, got nothing"
    if key.kind is ResultKind.LANDSCAPE and key.group is not None:
        kind, _, other = key.group.partition("_to_seed")
        section = "planes" if kind == "plane" else "lines"
        if getattr(config, section) is None:
            return f"{section} must be set, got nothing"
        return f"{place}.seeds must include {other.partition('_')[0]}, got {plan.seeds}"
    if key.kind is ResultKind.OUTLIERS:
        return f"{place}.spectra.steps must not be empty, got []"
    algorithm = plan.training.algorithm
    return f"{place}.training.algorithm must be 'gd' or 'sgd', got {algorithm!r}"


def _spectra_requirement(place: str, plan: Experiment, key: ResultKey) -> str:
    if plan.spectra is None:
        return f"{place}.spectra must be set, got nothing"
    for matrix in [key.matrix] if key.matrix else Matrix:
        if matrix not in plan.spectra.matrices:
            given = [*map(str, plan.spectra.matrices)]
            return f"{place}.spectra.matrices must include {str(matrix)!r}, got {given}"
    if key.step is None:
        return f"{place}.spectra.steps must not be empty, got []"
    return f"{place}.spectra.steps must include {key.step}, got {plan.spectrum_steps}"


def _matrix_free_requirement(place: str, plan: Experiment, key: ResultKey) -> str:
    place, free = f"{place}.matrix_free", plan.matrix_free
    if free is None:
        return f"{place} must be set, got nothing"
    if key.step not in plan.matrix_free_steps:
        return f"{place}.steps must include {key.step}, got {plan.matrix_free_steps}"
    if key.group is not None and key.group not in free.all_groups:
        return f"{place}.groups must include {key.group!r}, got {[*free.groups]}"
    is_part = key.matrix in free.matrices and key.group is not None
    part = "group_matrices" if is_part else "matrices"
    given = [*map(str, getattr(free, part))]
    return f"{place}.{part} must include {str(key.matrix)!r}, got {given}"


def _wrong_settings(key: str, entry: Reader, config: Config) -> Iterator[str]:
    """Find settings of an entry that do not fit the results that it reads."""
    names, rules = entry.owners(), config.outliers.rules
    labels, rule = getattr(entry, "labels", None), getattr(entry, "rule", None)
    if labels is not None and len(labels) != len(names):
        yield f"{key}.labels must be as many as the experiments ({len(names)}), got {labels}"
    if rule is not None and rule not in rules:
        yield f"{key}.rule must be one of outliers.rules {rules}, got {rule!r}"
    if isinstance(entry, OutlierCountsTable):
        yield from _wrong_counts(key, entry, config)
    if isinstance(entry, SharpnessTable):
        for name in both_parts(entry.experiment, config):
            yield from _too_many(key, entry, name, config)
    if isinstance(entry, ExtremesFigure) and config.experiments[entry.experiment].spectra is None:
        yield from _too_many(key, entry, entry.experiment, config)
    if isinstance(entry, PlaneFigure) and entry.seed == entry.other_seed:
        yield f"{key}.other_seed must be another than seed, got {entry.other_seed}"
    if isinstance(entry, SpikesFigure):
        yield from _unknown_strengths(key, entry, config)
    if entry.needs_classes:
        for name in names:
            dataset = config.datasets.get(config.experiments[name].dataset)
            if dataset is not None and not dataset.has_classes:
                yield f"{key} must read experiments on data with known classes, got {name!r}"


def _wrong_counts(key: str, entry: OutlierCountsTable, config: Config) -> Iterator[str]:
    if len(config.outliers.rules) < 3:
        rules = config.outliers.rules
        yield f"outliers.rules must be gap, ratio and elbow for {key}, got {rules}"
    for name in entry.experiments:
        plan = config.experiments[name]
        is_on_clusters = isinstance(config.datasets.get(plan.dataset), GaussianClusters | None)
        if not (is_on_clusters and isinstance(plan.model, MLP)):
            yield f"{key} must read experiments with an mlp on gaussian_clusters, got {name!r}"


def _too_many(key: str, entry: Reader, name: str, config: Config) -> Iterator[str]:
    """Find entries that show more eigenvalues than the eigenpairs have."""
    free = config.experiments[name].matrix_free
    if isinstance(entry, OverTrainingFigure) and entry.matrix is Matrix.GGN and entry.num_smallest:
        yield (
            f"{key}.num_smallest must be 0 for eigenpairs of the ggn, which are its largest, got "
            f"{entry.num_smallest}"
        )
    for end in ("num_largest", "num_smallest"):
        limit = getattr(free.eigenpairs, end) if free else None
        if limit is not None and getattr(entry, end, 0) > limit:
            yield (
                f"{key}.{end} must be at most experiments.{name}.matrix_free.eigenpairs.{end} "
                f"({limit}), got {getattr(entry, end)}"
            )


def _unknown_strengths(key: str, entry: SpikesFigure, config: Config) -> Iterator[str]:
    for name in entry.sources:
        source = config.random_matrices[name]
        strengths = source.strengths if isinstance(source, Spikes) else []
        for field in ("below", "above"):
            value = getattr(entry, field)
            if value not in strengths:
                yield f"{key}.{field} must be one of {name}'s strengths {strengths}, got {value}"

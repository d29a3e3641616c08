"""The results that the job of each result reads.

Figures, tables and claims list the results that they show (`reads`). This module lists the other
results that a job needs in order to compute one of those. Snakemake's rules
take their inputs from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hesspipe.config.figures import CurvesFigure
from hesspipe.config.results import ResultKey, ResultKind

if TYPE_CHECKING:
    from hesspipe.config.schema import Config

Inputs = Mapping[str, ResultKey | list[ResultKey]]

_AT_A_CHECKPOINT = (
    ResultKind.SPECTRA,
    ResultKind.DENSITIES,
    ResultKind.EIGENPAIRS,
    ResultKind.DIRECTIONS,
)


def inputs_of(key: ResultKey, config: Config) -> Inputs:
    """Name the results that the job behind a result reads.

    Parameters
    ----------
    key : ResultKey
        Any of `Config.results`.
    config : Config

    Returns
    -------
    mapping
        From the name of an input to a key, or to several in a fixed order:

        - training and saved states: dataset, and start if the training continues another one;
        - spectra, densities, eigenpairs, directions: dataset, checkpoint;
        - outliers: spectra (or eigenpairs, where there are no spectra);
        - decompositions: spectra, outliers;
        - lines: dataset, start, end; aligned networks: dataset, reference, other;
        - planes: dataset, first_part, second_part, other;
        - curves: densities;
        - datasets and random matrices: none.
    """
    if key.kind in (ResultKind.DATASETS, ResultKind.RANDOM_MATRICES):
        return {}
    if key.kind is ResultKind.CURVES:
        figure = config.figures[key.experiment]
        return {"densities": figure.densities() if isinstance(figure, CurvesFigure) else []}
    return _inputs_of_run(key, config)


def _inputs_of_run(key: ResultKey, config: Config) -> Inputs:
    """The inputs of a result of one run of an experiment."""
    name, seed = key.experiment, key.seed or 0
    plan = config.experiments[name]
    dataset = {"dataset": ResultKey(ResultKind.DATASETS, plan.dataset)}
    if key.kind in (ResultKind.CHECKPOINTS, ResultKind.HISTORIES):
        if plan.starts_from is None:
            return dataset
        return dataset | {"start": last_checkpoint(plan.starts_from, seed, config)}
    if key.kind in _AT_A_CHECKPOINT:
        checkpoint = ResultKey(ResultKind.CHECKPOINTS, name, seed, key.step)
        return dataset | {"checkpoint": checkpoint}
    if key.kind is ResultKind.OUTLIERS:
        return {"spectra": plan.extremes_of(name, seed)}
    if key.kind is ResultKind.DECOMPOSITIONS:
        outliers = ResultKey(ResultKind.OUTLIERS, name, seed)
        return {"spectra": plan.spectra_of(name, seed), "outliers": outliers}
    return dataset | _landscape_inputs(name, seed, key.group or "", config)


def _landscape_inputs(
    name: str, seed: int, group: str, config: Config
) -> dict[str, ResultKey | list[ResultKey]]:
    """Name the checkpoints of a line, a plane or an aligned network."""
    start = config.experiments[name].starts_from or name
    end = last_checkpoint(name, seed, config)
    if group == "line":
        return {"start": last_checkpoint(start, seed, config), "end": end}
    what, _, rest = group.partition("_to_seed")
    number, _, suffix = rest.partition("_")
    other = int(number)
    if what == "aligned":
        return {"reference": last_checkpoint(name, other, config), "other": end}
    aligned = ResultKey(ResultKind.LANDSCAPE, name, other, group=f"aligned_to_seed{seed}")
    if what == "line":
        is_aligned = suffix == "aligned"
        return {
            "start": end,
            "end": aligned if is_aligned else last_checkpoint(name, other, config),
        }
    return {
        "first_part": checkpoints_of(start, seed, config),
        "second_part": checkpoints_of(name, seed, config),
        "other": aligned,
    }


def last_checkpoint(experiment: str, seed: int, config: Config) -> ResultKey:
    """Name the checkpoint at the end of one run."""
    return checkpoints_of(experiment, seed, config)[-1]


def checkpoints_of(experiment: str, seed: int, config: Config) -> list[ResultKey]:
    """List every checkpoint of one run, in the order of training."""
    return [
        ResultKey(ResultKind.CHECKPOINTS, experiment, seed, step)
        for step in config.experiments[experiment].checkpoint_steps
    ]

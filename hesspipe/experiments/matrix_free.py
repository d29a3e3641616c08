"""Densities and extreme eigenpairs at one checkpoint, from matrix-vector products only."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hesspipe.curvature.diagonal_blocks import DiagonalBlock
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import OPERATORS
from hesspipe.curvature.spectra import density as estimate
from hesspipe.curvature.spectra import eigenpairs as find
from hesspipe.errors import ForeignStateError
from hesspipe.experiments.loading import load_objective
from hesspipe.experiments.processes import folder_of, run_in_processes
from hesspipe.files import digest
from hesspipe.hardware import pick_device
from hesspipe.linalg.search_state import start_again
from hesspipe.linalg.spectral_density import Density
from hesspipe.objective.objective import Objective
from hesspipe.saving.forms import FORMS
from hesspipe.tables.store import Result
from hesspipe.unfinished import lock, remove_state, state_root

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def estimate_density(
    *,
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: Mapping[str, Any],
    matrix: Matrix | str,
    group: str,
    patterns: Sequence[str] | None,
    dtype: str,
    batch_size: int | None,
    density: Mapping[str, Any],
    processes: int = 1,
    process_group: ProcessGroup | None = None,
) -> Result:
    """Estimate the spectral density of H, G or R, or of their diagonal block of a group.

    A block with fewer rows than steps takes as many steps as rows, which find everything.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    model : mapping
        The experiment's `model` in config.yaml.
    matrix : Matrix or str
    group : str
        Name of the parameter group.
    patterns : sequence of str or None
        Of the names of the group's parameters, with wildcards; None is the whole network.
    dtype, batch_size
        See `hesspipe.experiments.loading.load_objective`; dtype by its name.
    density : mapping
        num_probes, num_steps and seed; see `hesspipe.linalg.density.density`.
    processes : int
        To start, each with a part of the training set.
    process_group : ProcessGroup, optional
        The processes of which this is one, where they have been started.

    Returns
    -------
    Result
        Of kind "density": probe, node, weight, coupling. The provenance has the training's, the
        step, the matrix and how it was computed; num_parameters is the size of the block.

    Raises
    ------
    ValueError
        If a pattern matches no parameter.
    """
    if processes > 1:
        settings = _plain(locals(), "processes", "process_group")
        return run_in_processes("density", _digest_of(settings), settings, processes)
    objective, provenance = load_objective(
        path_to_dataset,
        path_to_checkpoint,
        model,
        dtype=getattr(torch, dtype),
        batch_size=batch_size,
        parameters=patterns,
        process_group=process_group,
    )
    whole = OPERATORS[Matrix(matrix)](objective)
    operator = whole if patterns is None else DiagonalBlock(whole, objective.is_varied)
    steps = min(density["num_steps"], operator.shape[0])
    found = estimate(operator, matrix, progress=True, **{**density, "num_steps": steps})
    provenance |= {
        **_processes(objective),
        "matrix": Matrix(matrix),
        "group": group,
        "patterns": None if patterns is None else list(patterns),
        "num_parameters": operator.shape[0],
        "density": dict(density),
        **_origin(found),
    }
    return Result("density", FORMS["density"].to_table(found)[0], provenance)


def _origin(density: Density) -> dict[str, Any]:
    """Say how a density was computed, and what its intervals need."""
    return {
        "method": "stochastic Lanczos quadrature",
        "squared_lengths": density.squared_lengths.tolist(),
        "eps": density.eps,
        "asymmetry": density.asymmetry,
    }


@contextlib.contextmanager
def find_eigenpairs(
    *,
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: Mapping[str, Any],
    matrix: Matrix | str,
    dtype: str,
    batch_size: int | None,
    eigenpairs: Mapping[str, Any],
    user_code: Sequence[str | Path] = (),
    processes: int = 1,
) -> Iterator[Result]:
    """Compute the extreme eigenvalues of H, G or R with the norms of their true residuals.

    An unfinished search is kept below `hesspipe.unfinished.state_root`, and the next call with the
    same arguments resumes it. It is removed after the block in which the result is stored, so that
    a full disk or a kill there does not lose it.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    model : mapping
        The experiment's `model` in config.yaml.
    matrix : Matrix or str
    dtype, batch_size
        See `hesspipe.experiments.loading.load_objective`; dtype by its name.
    eigenpairs : mapping
        num_smallest, num_largest, tolerance, max_products and seed; see
        `hesspipe.linalg.eigenpairs.eigenpairs`. Of G, which has no negative eigenvalues, the
        largest are computed only: its smallest are zeros, too many to converge.
    user_code : sequence of path
        Files of the user's functions, and of any other code that decides the numbers; a search is
        only resumed if they are the same.
    processes : int
        To start, each with a part of the training set.

    Yields
    ------
    Result
        Of kind "eigenpairs": end ("smallest" or "largest"), rank (0 = smallest), eigenvalue,
        residual_norm. The provenance has the training's, the step, the matrix and how it was
        computed.
    """
    matrix = Matrix(matrix)
    if matrix is Matrix.GGN:
        eigenpairs = {**eigenpairs, "num_smallest": 0}
    settings: dict[str, Any] = {
        "path_to_dataset": path_to_dataset,
        "path_to_checkpoint": path_to_checkpoint,
        "model": model,
        "matrix": matrix,
        "dtype": dtype,
        "batch_size": batch_size,
        "eigenpairs": eigenpairs,
    }
    # A search that gave up goes on when it is allowed more products.
    decisive = {key: value for key, value in eigenpairs.items() if key != "max_products"}
    state = _path_to_state(
        [matrix, model, dtype, pick_device().type, batch_size, decisive]
        + [f"{processes} processes"] * (processes > 1),
        [path_to_dataset, path_to_checkpoint, *user_code],
    )
    # Rank 0 of several processes holds the state itself.
    with lock(state if processes == 1 else folder_of(state.stem)):
        settings["state"] = state
        if processes > 1:
            settings = _plain(settings)
            yield run_in_processes("eigenpairs", state.stem, settings, processes)
        else:
            yield _found_eigenpairs(**settings)
        remove_state(state)


def _found_eigenpairs(
    *,
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: Mapping[str, Any],
    matrix: Matrix | str,
    dtype: str,
    batch_size: int | None,
    eigenpairs: Mapping[str, Any],
    state: str | Path,
    process_group: ProcessGroup | None = None,
) -> Result:
    """Search for eigenpairs, or go on with a search, whose state this process may use."""
    objective, provenance = load_objective(
        path_to_dataset,
        path_to_checkpoint,
        model,
        dtype=getattr(torch, dtype),
        batch_size=batch_size,
        process_group=process_group,
    )
    options = {"progress": True, "state": state, "keep_state": True, **eigenpairs}
    try:
        found = find(objective, matrix, **options)
    except ForeignStateError as error:
        # Its name says that it is of this search: something has changed that is not in it.
        if objective.ranks is None or objective.ranks.is_first:
            start_again(Path(state), error)
        found = find(objective, matrix, **options)
    provenance |= _processes(objective) | {
        "matrix": matrix,
        "method": "thick-restart Lanczos",
        "num_products": found.num_products,
        "eigenpairs": dict(eigenpairs),
    }
    values = replace(found, eigenvectors=found.eigenvectors[:, :0])
    return Result("eigenpairs", FORMS["eigenpairs"].to_table(values)[0], provenance)


def compute(kind: str, process_group: ProcessGroup, **settings: Any) -> Result:
    """Compute a result as one of several processes.

    Parameters
    ----------
    kind : {"density", "eigenpairs"}
    process_group : ProcessGroup
    **settings
        Of `estimate_density`, or of `find_eigenpairs` with the path of the state.
    """
    functions: dict[str, Callable[..., Result]] = {
        "density": estimate_density,
        "eigenpairs": _found_eigenpairs,
    }
    return functions[kind](process_group=process_group, **settings)


def _processes(objective: Objective) -> dict[str, int]:
    """What a result records of several processes: their sums are rounded differently."""
    return {} if objective.ranks is None else {"processes": objective.ranks.size}


def _plain(settings: Mapping[str, Any], *without: str) -> dict[str, Any]:
    """Turn paths into text, for JSON."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in settings.items()
        if name not in without
    }


def _digest_of(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _path_to_state(settings: Sequence[Any], files: Sequence[str | Path]) -> Path:
    """Where an unfinished search is kept: equal settings, files and rounding share it."""
    rounding = [torch.__version__, torch.get_num_threads()]
    text = json.dumps([*settings, *rounding, [digest(path) for path in files]], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Path(state_root(), "eigenpairs", f"{name}.safetensors")

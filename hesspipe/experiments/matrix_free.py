"""Densities and extreme eigenpairs at a checkpoint, as tables: from products alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hesspipe.curvature.diagonal_blocks import DiagonalBlock
from hesspipe.curvature.operators import OPERATORS
from hesspipe.curvature.spectra import density, eigenpairs
from hesspipe.experiments.spectra import load_objective
from hesspipe.files import digest


def density_table(
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    matrix: str,
    patterns: list[str] | None,
    model: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Estimate the spectral density of H, G or R, or of their block of some parameters.

    A block of fewer rows than steps takes as many steps as rows: then nothing is left to find.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    matrix : {"hessian", "ggn", "residual"}
    patterns : list of str or None
        Names of the block's parameters, with wildcards; None is the whole network.
    model : dict
        The experiment's `model` in config.yaml.
    settings : dict
        dtype, batch_size and density of its `matrix_free`.

    Returns
    -------
    table : DataFrame
        probe, node, weight.
    provenance : dict
        The training's, the step, the matrix and how it was computed; num_parameters is the
        size of the block.
    """
    objective, provenance = load_objective(
        path_to_dataset, path_to_checkpoint, model, parameters=patterns, **_precision(settings)
    )
    operator: Any = OPERATORS[matrix](objective)
    if patterns is not None:
        operator = DiagonalBlock(operator, objective.is_varied)
    wanted = settings["density"]
    num_steps = min(wanted["num_steps"], operator.shape[0])
    result = density(operator, progress=True, **(wanted | {"num_steps": num_steps}))
    num_probes, num_nodes = result.nodes.shape
    table = pd.DataFrame(
        {
            "probe": torch.arange(num_probes).repeat_interleave(num_nodes).numpy(),
            "node": result.nodes.flatten().numpy(),
            "weight": result.weights.flatten().numpy(),
        }
    )
    return table, provenance | {
        "matrix": matrix,
        "method": "stochastic Lanczos quadrature",
        "patterns": patterns,
        "num_parameters": operator.shape[0],
        "density": wanted,
    }


def eigenpairs_table(
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    matrix: str,
    model: dict[str, Any],
    settings: dict[str, Any],
    own_code: Sequence[str | Path] = (),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compute the extreme eigenvalues of H, G or R with the norms of their true residuals.

    An unfinished search is kept below .hesspipe; a job that was killed goes on from there.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    matrix : {"hessian", "ggn", "residual"}
    model : dict
        The experiment's `model` in config.yaml.
    settings : dict
        dtype, batch_size and eigenpairs of its `matrix_free`.
    own_code : sequence of path
        Files behind functions of one's own: an unfinished search of others is not gone on with.

    Returns
    -------
    table : DataFrame
        end ("smallest" or "largest"), rank (0 = smallest), eigenvalue, residual_norm.
    provenance : dict
        The training's, the step, the matrix and how it was computed.
    """
    objective, provenance = load_objective(
        path_to_dataset, path_to_checkpoint, model, **_precision(settings)
    )
    wanted = settings["eigenpairs"]
    files = [path_to_dataset, path_to_checkpoint, *own_code]
    specification = [matrix, model, settings, [digest(path) for path in files]]
    name = hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()[:16]
    path_to_state = Path(".hesspipe", "eigenpairs", f"{name}.safetensors")
    path_to_state.parent.mkdir(parents=True, exist_ok=True)
    operator = OPERATORS[matrix](objective)
    found = eigenpairs(operator, progress=True, state=path_to_state, **wanted)
    size, num_smallest = objective.num_parameters, wanted["num_smallest"]
    num_largest = wanted["num_largest"]
    table = pd.DataFrame(
        {
            "end": ["smallest"] * num_smallest + ["largest"] * num_largest,
            "rank": [*range(num_smallest), *range(size - num_largest, size)],
            "eigenvalue": found.eigenvalues.numpy(),
            "residual_norm": found.residual_norms.numpy(),
        }
    )
    return table, provenance | {
        "matrix": matrix,
        "method": "thick-restart Lanczos",
        "num_products": found.num_products,
        "eigenpairs": wanted,
    }


def _precision(settings: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": getattr(torch, settings["dtype"]), "batch_size": settings["batch_size"]}

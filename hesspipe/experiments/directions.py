"""Overlaps of the leading eigenvectors of H with class-mean gradients of the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hesspipe.curvature.class_means import (
    class_mean_gradients,
    direction_groups,
    squared_overlaps,
)
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.spectra import eigenpairs
from hesspipe.experiments.loading import load_objective
from hesspipe.forecasts import basis_bytes
from hesspipe.hardware import require
from hesspipe.tables.store import Result


def measure_directions(
    *,
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: Mapping[str, Any],
    num_beyond: int,
    tolerance: float,
) -> Result:
    """Compare the leading eigenvectors of H with the class-mean gradients at a checkpoint.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    model : mapping
        The experiment's `model` in config.yaml.
    num_beyond : int
        Eigenvectors after the first C.
    tolerance : float
        Of the eigenpairs; see `hesspipe.linalg.eigenpairs.eigenpairs`.

    Returns
    -------
    Result
        Of kind "directions": order (1 = largest), eigenvalue, own, every, shared, flat: squared
        overlaps with the spans of `hesspipe.curvature.class_means.direction_groups`. The provenance
        is that of the training, with the step and the rank of each span.
    """
    objective, provenance = load_objective(path_to_dataset, path_to_checkpoint, model)
    num_classes, size = provenance["num_classes"], objective.num_parameters
    require(
        basis_bytes(num_classes**2, size, objective.theta.element_size()),
        f"the class-mean gradients of {num_classes:,} classes and P = {size:,} parameters",
        "use a smaller network",
        device=objective.device,
    )
    num_pairs = num_classes + num_beyond
    pairs = eigenpairs(objective, Matrix.HESSIAN, num_largest=num_pairs, tolerance=tolerance)
    vectors = pairs.eigenvectors.flip(1)
    columns, ranks = {}, {}
    for name, group in direction_groups(class_mean_gradients(objective)).items():
        overlaps, ranks[name] = squared_overlaps(vectors, group)
        columns[name] = overlaps.cpu().numpy()
    table = pd.DataFrame(
        {
            "order": range(1, num_pairs + 1),
            "eigenvalue": pairs.eigenvalues.flip(0).numpy(),
            **columns,
        }
    )
    settings = {"num_beyond": num_beyond, "tolerance": tolerance}
    described = {"matrix": Matrix.HESSIAN, "directions": settings, "ranks": ranks}
    return Result("directions", table, provenance | described)

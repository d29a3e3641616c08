"""What the outliers are: leading eigenvectors of H against class-mean gradients of the outputs.

G is a mean of J_n^T S_n J_n. If the samples of a class share their gradients J_n, it acts within
the span of the class means of these gradients alone, and so do its outliers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import OPERATORS
from hesspipe.experiments.loading import load_objective
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.objective.objective import Objective
from hesspipe.tables.store import Result


def class_mean_gradients(objective: Objective) -> Tensor:
    """Average the gradient of each output over the samples of each class.

    Parameters
    ----------
    objective : Objective
        With class labels as targets.

    Returns
    -------
    Tensor, shape (C, C, P)
        Entry [c, j] is the gradient of output j, averaged over the samples of class c.

    Raises
    ------
    ValueError
        If a class has no sample.
    """
    theta = objective.theta.clone().requires_grad_()
    sums: Tensor | float = 0.0
    counts: Tensor | float = 0.0
    for batch in objective.batches:
        outputs = objective.outputs(theta, batch.inputs)
        members = torch.nn.functional.one_hot(batch.targets, outputs.shape[1]).to(outputs.dtype)
        sums = sums + members.T @ outputs
        counts = counts + members.sum(0)
    if not isinstance(sums, Tensor) or not isinstance(counts, Tensor) or not counts.all():
        raise ValueError(f"each class must have at least one sample, got {counts} of each")
    means = (sums / counts[:, None]).flatten()
    units = torch.eye(len(means), dtype=means.dtype, device=means.device)
    rows = [torch.autograd.grad(means, theta, unit, retain_graph=True)[0] for unit in units]
    return torch.stack(rows).view(len(counts), len(counts), -1)


def direction_groups(gradients: Tensor) -> dict[str, Tensor]:
    """Group class-mean gradients into the spans that the outliers are compared with.

    Softmax does not change when one number is added to all outputs, so a gradient counts
    relative to the mean over the outputs; that mean itself is a direction without curvature.

    Parameters
    ----------
    gradients : Tensor, shape (C, C, P)
        What `class_mean_gradients` gives.

    Returns
    -------
    dict of Tensor, shape (r, P)
        own: of the class's own output, relative to the mean over outputs, r = C;
        every: of every output, relative to that mean, r = C^2 and rank at most C (C - 1);
        shared: averaged over all classes, r = C and rank at most C - 1;
        flat: the means over the outputs, r = C, in which softmax has no curvature.
    """
    num_classes = len(gradients)
    flat = gradients.mean(1)
    relative = gradients - flat[:, None]
    index = torch.arange(num_classes)
    return {
        "own": relative[index, index],
        "every": relative.flatten(0, 1),
        "shared": relative.mean(0),
        "flat": flat,
    }


def squared_overlaps(vectors: Tensor, directions: Tensor) -> tuple[Tensor, int]:
    """Project vectors onto the span of some directions.

    Parameters
    ----------
    vectors : Tensor, shape (P, m)
        Of unit length.
    directions : Tensor, shape (r, P)
        Of any lengths; dependent ones are counted once.

    Returns
    -------
    overlaps : Tensor, shape (m,)
        Squared lengths of the projections, 0 to 1; of a random vector, rank / P on average.
    rank : int
        Dimension of the span.
    """
    _, singular, right = torch.linalg.svd(directions, full_matrices=False)
    limit = torch.finfo(directions.dtype).eps * max(directions.shape) * singular[0]
    rank = int((singular > limit).sum())
    return (right[:rank] @ vectors).square().sum(0), rank


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
        overlaps with the spans of `direction_groups`. The provenance has the training's, the step,
        and the rank of each span.
    """
    objective, provenance = load_objective(path_to_dataset, path_to_checkpoint, model)
    num_pairs = provenance["num_classes"] + num_beyond
    pairs = eigenpairs(
        OPERATORS[Matrix.HESSIAN](objective),
        num_largest=num_pairs,
        tolerance=tolerance,
    )
    vectors = pairs.eigenvectors.flip(1)
    columns, ranks = {}, {}
    for name, group in direction_groups(class_mean_gradients(objective)).items():
        overlaps, ranks[name] = squared_overlaps(vectors, group)
        columns[name] = overlaps.numpy()
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

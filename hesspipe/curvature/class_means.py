"""Class-mean gradients of the outputs, and overlaps of other vectors with their span.

    delta_cj = mean of df_j(theta; x_n)/dtheta over the samples n of class c

G is a mean of J_n^T S_n J_n. If the samples of a class share their gradients J_n, G acts within the
span of their class means only, and its outliers lie in that span.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective


@differentiating()
def class_mean_gradients(objective: Objective) -> Tensor:
    """Average the gradient of each output over the samples of each class.

    Parameters
    ----------
    objective : Objective
        With class labels as targets; those that are not 0 to C - 1 are ignored.

    Returns
    -------
    Tensor, shape (C, C, P)
        Entry [c, j] is delta_cj, the gradient of output j averaged over the samples of class c.

    Raises
    ------
    ValueError
        If a class has no sample, or targets are not one label per sample.
    """
    theta = objective.theta.clone().requires_grad_()
    sums, counts = theta.new_zeros(0, 0, len(theta)), theta.new_zeros(0)
    for batch in objective.batches:
        for inputs, targets in _parts(objective, batch):
            with objective.explained(batch):
                outputs = objective.outputs(theta, inputs)
            _require_labels(targets, len(outputs))
            num_classes = outputs.shape[1]
            if not len(sums):
                sums = theta.new_zeros(num_classes, num_classes, len(theta))
                counts = theta.new_zeros(num_classes)
            classes = torch.arange(num_classes, device=outputs.device)
            members = (targets.unsqueeze(1) == classes).to(outputs.dtype)  # (n, C)
            counts += members.sum(0)
            for label in members.any(0).nonzero().flatten().tolist():
                sums[label] += _gradients(members[:, label] @ outputs, theta)
    if not counts.all() or not len(counts):
        raise ValueError(f"each class must have at least one sample, got {counts} of each")
    return sums / counts[:, None, None]


def _parts(objective: Objective, batch: Batch) -> Iterator[tuple[Any, Tensor]]:
    """Inputs and targets of a batch, class by class where samples are independent.

    The gradients of a class then take passes through its own samples only.
    """
    if not objective.is_separable or not _are_labels(batch.targets, batch.num_samples):
        yield batch.inputs, batch.targets
        return
    for label in batch.targets.unique():
        members = (batch.targets == label).nonzero().flatten()
        yield batch.inputs[members], batch.targets[members]


def _gradients(values: Tensor, theta: Tensor) -> Tensor:
    """Gradient of each of the values (C,), a pass for each: (C, P)."""
    units = torch.eye(len(values), dtype=values.dtype, device=values.device)
    return torch.stack(
        [
            torch.autograd.grad(values, theta, unit, retain_graph=True, materialize_grads=True)[0]
            for unit in units
        ]
    )


def _are_labels(targets: Any, num_samples: int) -> bool:
    is_tensor = isinstance(targets, Tensor)
    return is_tensor and targets.shape == (num_samples,) and not targets.is_floating_point()


def _require_labels(targets: Any, num_samples: int) -> None:
    if _are_labels(targets, num_samples):
        return
    is_tensor = isinstance(targets, Tensor)
    found = f"{targets.dtype} of shape {tuple(targets.shape)}" if is_tensor else type(targets)
    raise ValueError(
        f"targets must be one class label per sample ({num_samples}) for class means, got {found}"
    )


def direction_groups(gradients: Tensor) -> dict[str, Tensor]:
    """Group class-mean gradients into the spans that the outliers are compared with.

    Softmax does not change when one number is added to all outputs. So gradients are taken relative
    to their mean over the outputs, and that mean is a direction without curvature.

    Parameters
    ----------
    gradients : Tensor, shape (C, C, P)
        From `class_mean_gradients`.

    Returns
    -------
    dict of Tensor, shape (r, P)
        own: of the output of the same class, relative to the mean over outputs, r = C;
        every: of every output, relative to that mean, r = C^2 and rank at most C (C - 1);
        shared: averaged over all classes, r = C and rank at most C - 1;
        flat: the means over the outputs, r = C, in which softmax has no curvature.
    """
    if gradients.ndim != 3 or gradients.shape[0] != gradients.shape[1]:
        raise ValueError(
            "gradients must be those of class_mean_gradients, of shape (C, C, P), got "
            f"{tuple(gradients.shape)}"
        )
    num_classes = len(gradients)
    flat = gradients.mean(1)
    relative = gradients - flat[:, None]
    index = torch.arange(num_classes, device="cpu")
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
        Of any lengths; linearly dependent ones are counted once.

    Returns
    -------
    overlaps : Tensor, shape (m,)
        Squared lengths of the projections, 0 to 1; for a random vector, rank / P on average.
    rank : int
        Dimension of the span.
    """
    if vectors.ndim != 2 or directions.ndim != 2 or vectors.shape[0] != directions.shape[1]:
        raise ValueError(
            "vectors and directions must be of shapes (P, m) and (r, P), got "
            f"{tuple(vectors.shape)} and {tuple(directions.shape)}"
        )
    if vectors.dtype != directions.dtype:
        raise ValueError(
            f"vectors and directions must be of one dtype, got {vectors.dtype} and "
            f"{directions.dtype}"
        )
    _, singular, right = torch.linalg.svd(directions, full_matrices=False)
    limit = torch.finfo(directions.dtype).eps * max(directions.shape) * singular[0]
    rank = int((singular > limit).sum())
    return (right[:rank] @ vectors).square().sum(0), rank

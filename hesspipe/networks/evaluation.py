"""Loss, accuracy and gradient norm of a network over a whole set, in batches where exact."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hesspipe.objective.reductions import LossFunction, known_denominator

# The largest batch that the paper trains on, so a network that can be trained on it also fits in
# memory here. Larger ones were not faster.
_BATCH_SIZE = 1000


def loss_and_accuracy(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss_fn: LossFunction = nn.functional.cross_entropy,
) -> tuple[float, float | None]:
    """Evaluate a network on a set of any size.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    inputs, targets : Tensor, shape (N, ...)
    loss_fn : callable (outputs, targets) -> scalar Tensor
        A loss of torch is computed in batches, each weighted by what the loss divides by on it;
        any other loss is computed on the whole set at once.

    Returns
    -------
    loss : float
    accuracy : float or None
        Share of the samples whose label has the largest output, 0 to 1; None if the targets are
        not class labels.
    """
    loss, total, num_right, num_labels = 0.0, 0.0, 0, 0
    with torch.no_grad():
        for part, part_targets in _batches(inputs, targets, loss_fn):
            outputs = model(part)
            weight = _weight(loss_fn, outputs, part_targets, len(inputs))
            loss += weight * loss_fn(outputs, part_targets).item()
            total += weight
            right, labels = _count_right(outputs, part_targets, loss_fn)
            num_right, num_labels = num_right + right, num_labels + labels
    return loss / total, num_right / num_labels if num_labels else None


def loss_accuracy_and_slope(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss_fn: LossFunction = nn.functional.cross_entropy,
) -> tuple[float, float | None, float]:
    """Evaluate a network and the norm of its loss's gradient in one pass.

    Parameters
    ----------
    model, inputs, targets, loss_fn
        See `loss_and_accuracy`; the parameters' `.grad` is not changed.

    Returns
    -------
    loss, accuracy : float
        See `loss_and_accuracy`.
    gradient_norm : float
        Norm of the gradient of the loss in all parameters.
    """
    parameters = list(model.parameters())
    slopes = [torch.zeros_like(parameter) for parameter in parameters]
    loss, total, num_right, num_labels = 0.0, 0.0, 0, 0
    for part, part_targets in _batches(inputs, targets, loss_fn):
        outputs = model(part)
        weight = _weight(loss_fn, outputs, part_targets, len(inputs))
        part_loss = loss_fn(outputs, part_targets)
        torch._foreach_add_(slopes, torch.autograd.grad(part_loss, parameters), alpha=weight)
        loss, total = loss + weight * part_loss.item(), total + weight
        right, labels = _count_right(outputs, part_targets, loss_fn)
        num_right, num_labels = num_right + right, num_labels + labels
    norm = torch.stack([slope.norm() for slope in slopes]).norm().item()
    return loss / total, num_right / num_labels if num_labels else None, norm / total


def _batches(
    inputs: Tensor, targets: Tensor, loss_fn: LossFunction
) -> Iterator[tuple[Tensor, Tensor]]:
    """Split into batches, or not at all for a loss whose denominator is unknown."""
    size = _BATCH_SIZE
    try:
        known_denominator(loss_fn)
    except ValueError:
        size = max(len(inputs), 1)
    return zip(inputs.split(size), targets.split(size), strict=True)


def _weight(loss_fn: LossFunction, outputs: Tensor, targets: Tensor, num_samples: int) -> float:
    """Weigh a batch; the whole set has weight 1, so that nothing is rounded."""
    if len(outputs) == num_samples:
        return 1.0
    return known_denominator(loss_fn)(outputs, targets)


def _count_right(outputs: Tensor, targets: Tensor, loss_fn: LossFunction) -> tuple[int, int]:
    """Count the labels with the largest output, and all labels; 0, 0 without class labels."""
    # Class labels have the shape of the outputs without the second dimension, the classes.
    if targets.is_floating_point() or targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        return 0, 0
    is_label = targets != getattr(loss_fn, "ignore_index", -100)
    is_right = (outputs.argmax(1) == targets) & is_label
    return int(is_right.sum().item()), int(is_label.sum().item())

"""Loss, accuracy and gradient of a classifier over a whole set, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

# As large as the largest batch that the paper trains on, so a network that can be trained there
# fits in memory here. Larger ones were not faster.
_BATCH_SIZE = 1000


def loss_and_accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Evaluate a classifier on a set of any size.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    inputs : Tensor, shape (N, ...)
    targets : Tensor, shape (N,), int64

    Returns
    -------
    loss : float
        Mean cross-entropy, in nats.
    accuracy : float
        Share of the inputs whose largest output is their target's, 0 to 1.
    """
    loss, num_right = 0.0, 0
    with torch.no_grad():
        for part, part_targets, share in _batches(inputs, targets):
            outputs = model(part)
            loss += share * nn.functional.cross_entropy(outputs, part_targets).item()
            num_right += _count_right(outputs, part_targets)
    return loss, num_right / len(targets)


def loss_accuracy_and_slope(
    model: nn.Module, inputs: Tensor, targets: Tensor
) -> tuple[float, float, float]:
    """Evaluate a classifier and the norm of its loss's gradient in one pass.

    Parameters
    ----------
    model : nn.Module
        Not changed, its `.grad` neither.
    inputs, targets : Tensor
        See `loss_and_accuracy`.

    Returns
    -------
    loss, accuracy : float
        See `loss_and_accuracy`.
    gradient_norm : float
        Norm of the gradient of the mean loss in all parameters, in nats per unit of them.
    """
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    loss, num_right = 0.0, 0
    for part, part_targets, share in _batches(inputs, targets):
        outputs = model(part)
        part_loss = nn.functional.cross_entropy(outputs, part_targets)
        torch._foreach_add_(total, torch.autograd.grad(part_loss, parameters), alpha=share)
        loss += share * part_loss.item()
        num_right += _count_right(outputs, part_targets)
    norm = torch.stack([gradient.norm() for gradient in total]).norm().item()
    return loss, num_right / len(targets), norm


def _batches(inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Batches, each with its share of the samples."""
    for start in range(0, len(inputs), _BATCH_SIZE):
        part = inputs[start : start + _BATCH_SIZE]
        yield part, targets[start : start + _BATCH_SIZE], len(part) / len(inputs)


def _count_right(outputs: Tensor, targets: Tensor) -> int:
    return int((outputs.argmax(1) == targets).sum().item())

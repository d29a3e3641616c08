"""Whether the loss is a function of the outputs that the model returns, by which G is defined."""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.pytrees import map_tensors, named_tensors
from hesspipe.objective.reductions import LossFunction


def reason_without_ggn(
    model: FlatModel, loss_fn: LossFunction, batch: Batch, *, has_rows: bool
) -> str | None:
    """Say why the outputs do not define G and R; None where they do.

    Parameters
    ----------
    model : FlatModel
    loss_fn : callable (outputs, targets) -> scalar Tensor
    batch : Batch
    has_rows : bool
        Whether the outputs have one row per sample, so that none of them is the loss.
    """
    if _uses_theta_beside_outputs(model, loss_fn, batch):
        return (
            "G and R need a loss of the outputs only, got one that uses what the model "
            "stored in its last call; return that as an output, or use the hessian"
        )
    if not has_rows and _is_an_output(model, loss_fn, batch):
        return (
            "G and R need the outputs that the loss is computed from, got the loss itself "
            "as an output of the model, in which it is linear; return the logits or "
            "predictions, and compute the loss of them, or use the hessian"
        )
    return None


def _uses_theta_beside_outputs(model: FlatModel, loss_fn: LossFunction, batch: Batch) -> bool:
    """Whether the loss depends on theta other than through the outputs that the model returns."""
    point = model.theta.detach().requires_grad_()
    outputs = map_tensors(
        lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()),
        model(point, batch.inputs),
    )
    loss = loss_fn(outputs, batch.targets)
    if not loss.requires_grad:
        return False
    (slope,) = torch.autograd.grad(loss, point, allow_unused=True)
    return slope is not None and bool(slope.any())


def _is_an_output(model: FlatModel, loss_fn: LossFunction, batch: Batch) -> bool:
    """Whether the loss is one of the outputs by name: G would be zero, and R all of H.

    A model that returns a single tensor says that this is its output.
    """
    returned = model(model.theta, batch.inputs)
    if isinstance(returned, Tensor):
        return False
    outputs = map_tensors(
        lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()), returned
    )
    loss = loss_fn(outputs, batch.targets)
    leaves = [tensor for _, tensor in named_tensors(outputs, "") if tensor.requires_grad]
    if not loss.requires_grad:
        return False
    slopes = torch.autograd.grad(loss, leaves, materialize_grads=True)
    used = [n for n, slope in enumerate(slopes) if slope.any()]
    return len(used) == 1 and leaves[used[0]].ndim == 0 and torch.equal(leaves[used[0]], loss)

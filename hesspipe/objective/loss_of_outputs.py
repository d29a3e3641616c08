"""Whether the loss is a function of the outputs that the model returns, by which G is defined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.pytrees import map_tensors, named_tensors
from hesspipe.objective.reductions import LossFunction


@dataclass(frozen=True)
class LossOfOutputs:
    """What one evaluation shows of the loss as a function of the outputs.

    Attributes
    ----------
    uses_theta_beside : bool
        Whether it depends on theta other than through the outputs that the model returns.
    is_an_output : bool
        Whether it is one of the outputs by name: G would be zero, and R all of H. A model that
        returns a single tensor says that this is its output.
    """

    uses_theta_beside: bool
    is_an_output: bool

    @classmethod
    def of(cls, loss_fn: LossFunction, batch: Batch, returned: Any, point: Tensor) -> LossOfOutputs:
        """Differentiate the loss by the outputs of the model's last call, and by theta beside them.

        Parameters
        ----------
        loss_fn : callable (outputs, targets) -> scalar Tensor
        batch : Batch
        returned : nested tensors
            Outputs at `point`.
        point : Tensor, shape (P,)
            Requires a gradient.
        """
        outputs = map_tensors(
            lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()), returned
        )
        loss = loss_fn(outputs, batch.targets)
        if not loss.requires_grad:
            return cls(uses_theta_beside=False, is_an_output=False)
        leaves = [tensor for _, tensor in named_tensors(outputs, "") if tensor.requires_grad]
        beside, *slopes = torch.autograd.grad(loss, [point, *leaves], allow_unused=True)
        used = [leaf for leaf, slope in zip(leaves, slopes, strict=True) if _is_used(slope)]
        is_an_output = (
            not isinstance(returned, Tensor)
            and len(used) == 1
            and used[0].ndim == 0
            and torch.equal(used[0], loss)
        )
        return cls(_is_used(beside), is_an_output)

    def reason_without_ggn(self, *, has_rows: bool) -> str | None:
        """Say why the outputs do not define G and R; None where they do.

        Parameters
        ----------
        has_rows : bool
            Whether the outputs have one row per sample, so that none of them is the loss.
        """
        if self.uses_theta_beside:
            return (
                "G and R need a loss of the outputs only, got one that uses what the model "
                "stored in its last call; return that as an output, or use the hessian"
            )
        if not has_rows and self.is_an_output:
            return (
                "G and R need the outputs that the loss is computed from, got the loss itself "
                "as an output of the model, in which it is linear; return the logits or "
                "predictions, and compute the loss of them, or use the hessian"
            )
        return None


def reason_without_ggn(
    model: FlatModel, loss_fn: LossFunction, batch: Batch, *, has_rows: bool
) -> str | None:
    """Evaluate a batch, and say why the outputs do not define G and R; None where they do."""
    point = model.theta.detach().requires_grad_()
    found = LossOfOutputs.of(loss_fn, batch, model(point, batch.inputs), point)
    return found.reason_without_ggn(has_rows=has_rows)


def _is_used(slope: Tensor | None) -> bool:
    return slope is not None and bool(slope.any())

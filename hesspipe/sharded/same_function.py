"""Whether all processes compute the same function of parameters that they hold together.

As `hesspipe.objective.common_samples`, which says why: all of them evaluate the same samples. Each
has a loss of its own then, and a derivative of their sum only. One pass for each process has its
loss alone in the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.common_samples import NUM_SAMPLES, derivatives, require_same_numbers
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.explanations import explained
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.weights import evaluate, facts_of
from hesspipe.objective.whole_batches import WholeBatch
from hesspipe.sharded.model import ShardedModel
from hesspipe.tolerances import rounding

# A difference between two processes, in rounding errors.
_MARGIN = 100.0


def require_same_function(model: ShardedModel, loss_fn: LossFunction, batch: Batch) -> None:
    """Let all processes evaluate the loss on the first samples of a batch, and compare it.

    Parameters
    ----------
    model : ShardedModel
    loss_fn : callable (outputs, targets) -> scalar Tensor
    batch : Batch
        Equal in all processes.

    Raises
    ------
    RankError
        Also a ValueError, in every process, if they differ by more than rounding.
    """
    ranks = model.space.ranks
    if not isinstance(batch.inputs, WholeBatch):
        batch = batch.rows(slice(NUM_SAMPLES))
    is_explained = explained(batch, batch.number, model.dtype)
    with ranks.raise_together("the evaluation of common samples"), is_explained:
        found, errors = _measured(model, loss_fn, batch)
    require_same_numbers(found, lambda: errors, ranks)


@differentiating()
def _measured(
    model: ShardedModel, loss_fn: LossFunction, batch: Batch
) -> tuple[Tensor, list[float]]:
    """Compute this process's loss on a batch, its derivatives along a direction, and errors."""
    ranks, theta = model.space.ranks, model.theta.detach().requires_grad_()
    with model.gathering.lean():
        outputs, value = evaluate(model, loss_fn, theta, batch)
        parts = [
            torch.stack(derivatives(value * (rank == ranks.rank), theta, ranks.rank))
            for rank in range(ranks.size)
        ]
    found, sizes = model.space.sum(torch.stack(parts))[ranks.rank]
    facts = facts_of(outputs, value, None, model.dtype)
    errors = [facts["value_rounding"], *(rounding(float(size), model.dtype) for size in sizes)]
    own = torch.cat([value.detach().view(1), found])
    return own, [_MARGIN * error for error in errors]

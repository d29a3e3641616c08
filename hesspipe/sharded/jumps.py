"""Jumps of the loss at parameters that are divided among processes.

As `hesspipe.objective.jumps`, which says why: each process evaluates a batch of its own beside the
parameters, and all of them judge the losses of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.jumps import Losses, refuse_jump
from hesspipe.objective.pieces import random_directions
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.weights import evaluate
from hesspipe.seeding import generator
from hesspipe.sharded.model import ShardedModel


def refuse_jump_together(
    model: ShardedModel, loss_fn: LossFunction, batch: Batch, facts: Mapping[str, Any]
) -> None:
    """Raise an error in all processes if the loss on the batch of one of them jumps.

    Parameters
    ----------
    model : ShardedModel
    loss_fn : callable (outputs, targets) -> scalar Tensor
    batch : Batch
        Of this process.
    facts : mapping
        Of `hesspipe.objective.weights.facts_of`; empty if the batch has no part in the loss.

    Raises
    ------
    NotTwiceDifferentiableError
    """
    # Another one in each process: equal changes of all parts of a router could keep experts equal.
    draw = generator(model.space.ranks.rank, "a direction across jumps")
    (direction,) = random_directions(model.theta, model.is_varied, draw, 1)
    refuse_jump(model, _losses(model, loss_fn, batch, facts), direction)


def _losses(
    model: ShardedModel, loss_fn: LossFunction, batch: Batch, facts: Mapping[str, Any]
) -> Losses:
    """Gather the losses of all processes, and differentiate one of them."""
    space, ranks = model.space, model.space.ranks

    def evaluated(theta: Tensor) -> Tensor:
        with ranks.raise_together("the loss beside the parameters"):
            own = float(evaluate(model, loss_fn, theta, batch)[1].detach())
        every = ranks.gather(own, "losses beside the parameters")
        return torch.tensor(every, dtype=model.dtype, device="cpu")

    def slope(number: int, direction: Tensor) -> float:
        theta = model.theta.detach().requires_grad_()
        with ranks.raise_together("the slope of a loss"):
            value = evaluate(model, loss_fn, theta, batch)[1] * (number == ranks.rank)
            (slopes,) = torch.autograd.grad(value, theta, materialize_grads=True)
        return float(space.sum(slopes @ direction))

    own = [batch.number, facts.get("value", math.nan), facts.get("value_rounding", 0.0)]
    numbers, values, roundings = zip(*ranks.gather(own, "losses at the parameters"), strict=True)
    return Losses(
        evaluated,
        slope,
        torch.tensor(values, dtype=model.dtype, device="cpu"),
        torch.tensor(roundings, dtype=torch.float64, device="cpu"),
        [f"batch {number} of rank {rank}" for rank, number in enumerate(numbers)],
    )

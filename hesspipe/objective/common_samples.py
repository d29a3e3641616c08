"""Whether all processes compute the same function: each of them evaluates the same samples.

Layers, settings and what a loss holds are compared by descriptions, which say what differs. What no
description has (private attributes, hooks, environment variables, torch's global settings, a module
of the user's that is another one on another machine) shows in numbers: in the loss on two
samples of one process, and its first and second derivative along one direction.

Numbers of equal bits need no tolerance. Others are compared with their measured rounding errors:
processes on different machines, or with different numbers of threads, add in different orders.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.copies import Copier
from hesspipe.objective.determinism import attempt, preserved_random_state
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.pytrees import Fields, map_tensors
from hesspipe.objective.rounding import measured_rounding
from hesspipe.objective.weights import evaluate
from hesspipe.objective.whole_batches import WholeBatch
from hesspipe.ranks.ranks import Ranks
from hesspipe.ranks.values import share
from hesspipe.tolerances import rounding

if TYPE_CHECKING:
    from hesspipe.objective.objective import Objective

_NUM_SAMPLES = 2
_MEASURES = ("value", "first derivative", "second derivative")
# A difference between two processes, in measured rounding errors of both.
_MARGIN = 10.0


def require_same_function(objective: Objective, ranks: Ranks) -> None:
    """Let all processes evaluate the loss on samples of one of them, and compare what they get.

    Parameters
    ----------
    objective : Objective
        With the data of this process, which may have none.
    ranks : Ranks

    Raises
    ------
    RankError
        Also a ValueError, in every process, if they differ by more than rounding.
    """
    numbers = ranks.gather(len(objective.batches), "numbers of batches")
    giver = next((rank for rank, number in enumerate(numbers) if number), None)
    if giver is None:
        return
    own = _sendable(objective) if ranks.rank == giver else None
    if not ranks.decide(own is not None, giver):
        return
    sent = share(ranks, own, objective.theta, giver)
    with ranks.raise_together("the evaluation of common samples"):
        batch = _received(objective, *sent)
        compute = partial(_measured, objective, batch)
        with objective.explained(batch):
            found = compute()
    every = ranks.gather(found.tolist(), "the losses on common samples")
    if all(repr(one) == repr(every[0]) for one in every):
        return
    errors = ranks.gather(_errors(compute, found, objective.dtype), "rounding errors")
    differing = [
        place
        for place, (values, bounds) in enumerate(
            zip(zip(*every, strict=True), zip(*errors, strict=True), strict=True)
        )
        if not max(values) - min(values) <= sum(sorted(bounds)[-2:])
    ]
    if differing:
        place = differing[0]
        refuse_other_function(ranks, _MEASURES[place], float(found[place]))


def refuse_other_function(ranks: Ranks, measure: str, value: float) -> None:
    """Raise an error in all processes, with what each has found.

    Parameters
    ----------
    ranks : Ranks
    measure : str
        What differs of the loss.
    value : float
        Its value in this process.
    """
    what = (
        f"the {measure} of the loss on equal samples (compare private attributes and hooks of "
        "model and loss_fn, modules that they import, environment variables, settings of torch)"
    )
    ranks.agree_on({what: value})


def _sendable(objective: Objective) -> Any:
    """Choose samples whose loss is defined, as what can be sent; None without any."""
    first = objective.batches[0]
    is_whole = isinstance(first.inputs, WholeBatch)
    for batch in [first] if is_whole else [first.rows(slice(_NUM_SAMPLES)), first]:
        sent = _packed(batch)
        if sent is None:
            return None
        found = attempt(partial(_measured, objective, batch))
        if found is not None and torch.isfinite(found).all():
            return sent
    return None


def _packed(batch: Batch) -> Any:
    """Return the inputs and targets of a batch in containers; None if it has other objects."""
    inputs, targets = batch.inputs, batch.targets
    if isinstance(inputs, WholeBatch):
        inputs, targets = attempt(inputs.copy), None
        return [inputs, targets] if inputs is not None and _is_plain(inputs) else None
    inputs = inputs.values if isinstance(inputs, Fields) else inputs
    return [inputs, targets] if _is_plain(inputs) and _is_plain(targets) else None


def _is_plain(value: Any) -> bool:
    """Whether another process can be given an equal object, of tensors, numbers and containers."""
    if type(value) is dict:
        return all(type(key) is str and _is_plain(part) for key, part in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) in (Tensor, bool, int, float, str, type(None))


def _received(objective: Objective, inputs: Any, targets: Any) -> Batch:
    """Make a batch of what was sent."""
    flat = objective._flat
    if flat.function is not None:
        return Batch(WholeBatch(inputs, Copier(flat.dtype, objective.device)), None, 1.0)
    inputs, targets = (
        map_tensors(lambda tensor: tensor.to(objective.device), part) for part in (inputs, targets)
    )
    return Batch(inputs if isinstance(inputs, Tensor) else Fields(inputs), targets, 1.0)


@differentiating()
def _measured(objective: Objective, batch: Batch) -> Tensor:
    """Compute the loss on a batch, and its derivatives along a direction: (3,)."""
    theta = objective.theta.detach().requires_grad_()
    direction = torch.arange(len(theta), dtype=theta.dtype, device=theta.device).cos_()
    direction /= torch.linalg.vector_norm(direction)
    with preserved_random_state(objective.device):
        _, value = evaluate(objective._flat, objective._reduced.loss_fn, theta, batch)
        slope = _along(value, theta, direction, create_graph=True)
        curvature = _along(slope, theta, direction)
    return torch.stack([value.detach(), slope.detach(), curvature])


def _along(
    value: Tensor, theta: Tensor, direction: Tensor, *, create_graph: bool = False
) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(value)
    (gradient,) = torch.autograd.grad(
        value, theta, create_graph=create_graph, materialize_grads=True
    )
    return gradient @ direction


def _errors(compute: Any, found: Tensor, dtype: torch.dtype) -> list[float]:
    """Measure rounding errors of what was found; where that is impossible, as for a few terms."""
    errors = attempt(lambda: measured_rounding(compute, found, torch.abs, "the loss"))
    largest = found.abs().max()
    bound = torch.full_like(found, float(rounding(largest, dtype))) if errors is None else errors
    return [_MARGIN * float(error) for error in bound]

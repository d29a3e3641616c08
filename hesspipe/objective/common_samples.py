"""Whether all processes compute the same function: each of them evaluates the same samples.

Layers, settings and what a loss holds are compared by descriptions, which say what differs. What no
description has (private attributes, hooks, environment variables, torch's global settings, a module
of the user's that is another one on another machine) shows in numbers: in the loss on two
samples of one process, and its first and second derivative along one direction.

Numbers of equal bits need no tolerance. Others are compared with their measured rounding errors:
processes on different machines, or with different numbers of threads, add in different orders.
"""

from __future__ import annotations

from collections.abc import Callable
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

NUM_SAMPLES = 2
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
    require_same_numbers(found, partial(_errors, compute, found), ranks)


def require_same_numbers(found: Tensor, errors: Callable[[], list[float]], ranks: Ranks) -> None:
    """Compare what processes have found of the loss on equal samples.

    Parameters
    ----------
    found : Tensor, shape (3,)
        The loss and its first and second derivative along a direction.
    errors : callable () -> list of float
        Their rounding errors, which are asked for where there is a difference.
    ranks : Ranks

    Raises
    ------
    RankError
        Also a ValueError, in every process, if they differ by more than rounding.
    """
    every = ranks.gather(found.tolist(), "the losses on common samples")
    if all(repr(one) == repr(every[0]) for one in every):
        return
    bounds_of_all = ranks.gather(errors(), "rounding errors")
    differing = [
        place
        for place, (values, bounds) in enumerate(
            zip(zip(*every, strict=True), zip(*bounds_of_all, strict=True), strict=True)
        )
        if not max(values) - min(values) <= sum(sorted(bounds)[-2:])
    ]
    if differing:
        what = (
            f"the {_MEASURES[differing[0]]} of the loss on equal samples (compare private "
            "attributes and hooks of model and loss_fn, modules that they import, environment "
            "variables, settings of torch)"
        )
        ranks.agree_on({what: float(found[differing[0]])})


def _sendable(objective: Objective) -> Any:
    """Choose samples whose loss is defined, as what can be sent; None without any."""
    first = objective.batches[0]
    is_whole = isinstance(first.inputs, WholeBatch)
    for batch in [first] if is_whole else [first.rows(slice(NUM_SAMPLES)), first]:
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
    with preserved_random_state(objective.device):
        _, value = evaluate(objective._flat, objective._reduced.loss_fn, theta, batch)
        found, _ = derivatives(value, theta)
    return torch.cat([value.detach().view(1), found])


def derivatives(value: Tensor, theta: Tensor, part: int = 0) -> tuple[Tensor, Tensor]:
    """First and second derivative of a loss along one direction in the space of theta.

    Parameters
    ----------
    value : Tensor, shape ()
        Its graph is kept.
    theta : Tensor, shape (length,)
        Of parameters that are divided, the part of this process: what is returned are its terms.
    part : int
        Number of the part. The direction is another one in each: equal ones along the rows of a
        weight would change all outputs alike, which many losses do not see.

    Returns
    -------
    found : Tensor, shape (2,)
    sizes : Tensor, shape (2,)
        Of a sum of so many random terms as the derivatives have; their errors are relative to it.
    """
    direction = torch.arange(len(theta), dtype=theta.dtype, device=theta.device)
    direction.add_(part).cos_()
    direction /= torch.linalg.vector_norm(direction)
    found, sizes = [], []
    for is_first in (True, False):
        row = torch.zeros_like(theta)
        if value.requires_grad:
            (row,) = torch.autograd.grad(
                value, theta, retain_graph=True, create_graph=is_first, materialize_grads=True
            )
        value = row @ direction
        found.append(value.detach())
        sizes.append(torch.linalg.vector_norm(row.detach()) / max(1, len(theta)) ** 0.5)
    return torch.stack(found), torch.stack(sizes)


def _errors(compute: Callable[[], Tensor], found: Tensor) -> list[float]:
    """Measure rounding errors of what was found; where that is impossible, as for a few terms."""
    errors = attempt(lambda: measured_rounding(compute, found, torch.abs, "the loss"))
    if errors is None:
        errors = torch.full_like(found, float(rounding(found.abs().max(), found.dtype)))
    return [_MARGIN * float(error) for error in errors]

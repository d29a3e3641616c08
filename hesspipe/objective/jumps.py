"""Losses that jump exactly at the parameters, where torch differentiates one of the two sides.

A router of zeros makes all experts equal for `topk`, a weight can lie exactly on the threshold of
`torch.where`, and a parameter that is an integer on a step of `floor`. The loss is then not
continuous, and has no Hessian. Next to a point where it is continuous it changes less and less as
the distance decreases; where it jumps, it changes by the same at ever smaller distances on one
side. So does a rounding error, which is measured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.determinism import attempt
from hesspipe.objective.finite_differences import gradient
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.rounding import measured_rounding

# Distances relative to the parameters. The first one serves for all; the others confirm.
_DISTANCES = {torch.float64: (1e-12, 1e-11, 1e-10), torch.float32: (1e-5, 3e-5, 1e-4)}
# Change of the loss, relative to it, over the first distance that is looked at more closely.
_NOTABLE = {torch.float64: 1e-9, torch.float32: 2e-4}
# Changes at two distances count as the same up to this factor. Over three times the distance, even
# a square root changes by 1.7 times as much, and over ten or a hundred times by more.
_SAME = 1.5
# Most parameters that a message names.
_MOST_NAMES = 3


def refuse_jump(
    model: FlatModel,
    loss_of: Callable[[Tensor], Tensor],
    direction: Tensor,
    value: Tensor,
    rounding: float,
    place: str,
) -> None:
    """Raise an error if a loss jumps at the parameters.

    Without a jump this takes an evaluation on each side.

    Parameters
    ----------
    model : FlatModel
    loss_of : callable (theta) -> scalar Tensor
    direction : Tensor, shape (P,)
        A random change of the parameters, each by its own size.
    value : scalar Tensor
        The loss at the parameters.
    rounding : float
        Bound of its rounding error, unless the model or the loss amplifies it.
    place : str
        What the loss is computed on, for the message.

    Raises
    ------
    NotTwiceDifferentiableError
    """
    value = value.detach()
    allowed = max(_NOTABLE[model.dtype] * float(value.abs()), rounding)
    jump = _jump(loss_of, model.theta, direction, float(value), allowed)
    if not jump or abs(jump) <= max(
        _noise(loss_of, model.theta, value), _smooth_change(loss_of, model.theta, direction)
    ):
        return
    names = []
    for number, name in enumerate(model.names):
        part = _only(number, direction, model.shapes)
        if _jump(loss_of, model.theta, part, float(value), allowed):
            names.append(name)
    where = f" along {', '.join(names[:_MOST_NAMES])}" if names else ""
    where += f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    raise NotTwiceDifferentiableError(
        f"the loss must be continuous at the parameters, got a jump by {abs(jump):.1e} of a loss "
        f"of {float(value):.1e}{where}, on {place}; where a comparison, a rounding or a selection "
        "such as topk, argmax or sort is tied there is no Hessian: move the parameters by a small "
        "random step, e.g. start a router at random, or leave them out by parameters="
    )


def _jump(
    loss_of: Callable[[Tensor], Tensor],
    theta: Tensor,
    direction: Tensor,
    value: float,
    allowed: float,
) -> float:
    """Return a change that is the same at all distances on one side; 0 if there is none."""
    for side in (1, -1):
        changes: list[float] = []
        for distance in _DISTANCES[theta.dtype]:
            point = torch.add(theta, direction, alpha=side * distance)
            there = attempt(lambda: float(loss_of(point).detach()))  # noqa: B023 (called at once)
            change = torch.nan if there is None else there - value
            if not abs(change) > allowed:
                break
            changes.append(change)
            if not 1 / _SAME < change / changes[0] < _SAME:
                break
        else:
            return changes[0]
    return 0.0


def _noise(loss_of: Callable[[Tensor], Tensor], theta: Tensor, value: Tensor) -> float:
    """Measure the rounding error of the loss; 0 where it cannot be measured."""

    def evaluate() -> Tensor:
        return loss_of(theta).detach()

    try:
        return float(measured_rounding(evaluate, value, torch.abs, "the loss"))
    except ValueError:
        return 0.0


def _smooth_change(loss_of: Callable[[Tensor], Tensor], theta: Tensor, direction: Tensor) -> float:
    """Return the change that the gradient explains, over the first distance.

    It is large where a function is as steep as tanh(1e6 x), which is flat on both sides.
    """
    slopes = attempt(lambda: gradient([loss_of], theta))
    if slopes is None:
        return 0.0
    return _DISTANCES[theta.dtype][0] * abs(float(slopes @ direction))


def _only(number: int, direction: Tensor, shapes: list[torch.Size]) -> Tensor:
    """Return a direction along one parameter."""
    parts = direction.split([shape.numel() for shape in shapes])
    return torch.cat([part if at == number else 0 * part for at, part in enumerate(parts)])

"""Losses that jump exactly at the parameters, where torch differentiates one of the two sides.

A router of zeros makes all experts equal for `topk`, a weight can lie exactly on the threshold of
`torch.where`, and a parameter that is an integer on a step of `floor`. The loss is then not
continuous, and has no Hessian. Next to a point where it is continuous it changes less and less as
the distance decreases; where it jumps, it changes by the same at ever smaller distances on one
side. So does a rounding error, which is measured.

Processes that evaluate together compare the losses of all of them, by equal numbers, so that all
make the same evaluations and find the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.determinism import attempt
from hesspipe.objective.finite_differences import gradient
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.flattening import flatten
from hesspipe.objective.rounding import measured_rounding

# Distances relative to the parameters. The first one serves for all; the others confirm. In float64
# the first is the largest, over which a bend shows most.
DISTANCES = {torch.float64: (1e-10, 1e-11, 1e-12), torch.float32: (1e-5, 3e-5, 1e-4)}
# Change of the loss, relative to it, over the first distance that is looked at more closely.
_NOTABLE = {torch.float64: 1e-9, torch.float32: 2e-4}
# Changes at two distances count as the same up to this factor. Over three times the distance, even
# a square root changes by 1.7 times as much, and over ten or a hundred times by more.
SAME = 1.5
# Roundings of a loss beyond which it may bend: few, as what bends is only looked at more closely.
_BEND = 64.0
# Most parameters that a message names.
_MOST_NAMES = 3


@dataclass(frozen=True)
class Losses:
    """Losses that are evaluated together: that of a batch, or of one batch in each process.

    Attributes
    ----------
    evaluate : callable (theta) -> Tensor, shape (B,)
        Without a graph, and the same in all processes.
    slope : callable (number, direction) -> float
        Differentiates one of them at the parameters along a direction.
    values, roundings : Tensor, shape (B,)
        At the parameters, and bounds of their rounding errors, unless the model or a loss amplifies
        them. A loss that is nan is left out.
    places : list of str
        What each is computed on, for the message.
    """

    evaluate: Callable[[Tensor], Tensor]
    slope: Callable[[int, Tensor], float]
    values: Tensor
    roundings: Tensor
    places: list[str]

    @classmethod
    def of_batch(
        cls,
        loss_of: Callable[[Tensor], Tensor],
        theta: Tensor,
        value: Tensor,
        rounding: float,
        place: str,
    ) -> Losses:
        """Return the loss of one batch, as a function of theta, and what is known of it."""

        def slope(_: int, direction: Tensor) -> float:
            return float(gradient([loss_of], theta) @ direction)

        return cls(
            lambda point: loss_of(point).detach().view(1),
            slope,
            value.detach().view(1),
            torch.tensor([rounding], dtype=torch.float64, device="cpu"),
            [place],
        )


def refuse_jump(model: FlatModel, losses: Losses, direction: Tensor) -> Tensor:
    """Raise an error if one of some losses jumps at the parameters.

    Without a jump this takes an evaluation on each side.

    Parameters
    ----------
    model : FlatModel
    losses : Losses
    direction : Tensor, shape (P,)
        A random change of the parameters, each by its own size.

    Returns
    -------
    Tensor of bool, shape (B,)
        Whether each loss may bend at the parameters: its changes on the two sides do not add up to
        zero.

    Raises
    ------
    NotTwiceDifferentiableError
    """
    jumps, bends = _jumps(losses, model, direction)
    for number in jumps.nonzero().flatten().tolist():
        jump, value = float(jumps[number]), float(losses.values[number])
        if abs(jump) <= max(
            _noise(losses, model.theta, number), _smooth_change(losses, model, direction, number)
        ):
            continue
        names = [
            name
            for name in model.names
            if _jumps(losses, model, _only(name, direction, model))[0][number]
        ]
        where = f" along {', '.join(names[:_MOST_NAMES])}" if names else ""
        where += f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        raise NotTwiceDifferentiableError(
            f"the loss must be continuous at the parameters, got a jump by {abs(jump):.1e} of a "
            f"loss of {value:.1e}{where}, on {losses.places[number]}; where a comparison, a "
            "rounding or a selection such as topk, argmax or sort is tied there is no Hessian: "
            "move the parameters by a small random step, e.g. start a router at random, or leave "
            "them out by parameters="
        )
    eps = torch.finfo(model.dtype).eps
    return bends.abs() > _BEND * eps * losses.values.double().cpu().abs()


def _jumps(losses: Losses, model: FlatModel, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return changes that are the same at all distances on one side, or 0, and bends, both (B,).

    A bend is the sum of the changes on both sides over the first distance.
    """
    values = losses.values.double().cpu()
    allowed = torch.maximum(_NOTABLE[model.dtype] * values.abs(), losses.roundings)
    found, bends = torch.zeros_like(values), torch.zeros_like(values)
    for side in (1, -1):
        first: Tensor | None = None
        is_open = (found == 0) & values.isfinite()
        for distance in DISTANCES[model.dtype]:
            if not is_open.any():
                break
            point = torch.add(model.theta, direction, alpha=side * distance)
            there = attempt(lambda: losses.evaluate(point).double().cpu())  # noqa: B023 (called at once)
            changes = torch.full_like(values, torch.nan) if there is None else there - values
            first = changes if first is None else first
            ratio = changes / first
            is_open &= (changes.abs() > allowed) & (ratio > 1 / SAME) & (ratio < SAME)
        if first is not None:
            found = torch.where(is_open, first, found)
            bends += first
    return found, bends


def _noise(losses: Losses, theta: Tensor, number: int) -> float:
    """Measure the rounding error of a loss; 0 where it cannot be measured."""

    def evaluate() -> Tensor:
        return losses.evaluate(theta)[number]

    try:
        return float(measured_rounding(evaluate, losses.values[number], torch.abs, "the loss"))
    except ValueError:
        return 0.0


def _smooth_change(losses: Losses, model: FlatModel, direction: Tensor, number: int) -> float:
    """Return the change that the gradient explains, over the smallest distance.

    It is large where a function is as steep as tanh(1e6 x), which is flat on both sides.
    """
    slope = attempt(lambda: losses.slope(number, direction))
    return 0.0 if slope is None else min(DISTANCES[model.dtype]) * abs(slope)


def _only(name: str, direction: Tensor, model: FlatModel) -> Tensor:
    """Return a direction along one parameter."""
    parts = model.unflatten(direction)
    return flatten({key: part if key == name else 0 * part for key, part in parts.items()})

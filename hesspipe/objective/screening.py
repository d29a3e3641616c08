"""First derivatives, determinism and independence of samples, from one comparison of outputs.

A batch is evaluated as a whole at a point f(theta + h u), and in parts at f(theta), with the
derivative f' u, by a copy of the model with a state and random numbers of its own. Where

    f(theta + h u) - f(theta) = h f' u

to rounding, sample by sample, the derivative is right, the outputs for a sample do not depend on
the other samples of its batch, and nothing is random: each of these would need an evaluation of its
own. The same evaluations tell whether second derivatives are right, for all samples together with
random weights. What does not agree proves nothing, e.g. at a kink, and is evaluated again for these
samples only, or left to the tests that tell the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hesspipe.hardware import is_exhaustion
from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import Term, part_of, take
from hesspipe.objective.determinism import attempt
from hesspipe.objective.directional_derivatives import derivatives_along
from hesspipe.objective.finite_differences import (
    STEPS,
    compare,
    first_direction,
    is_right_ahead,
    outcomes_of_loss,
    sides,
    without_rounding,
)
from hesspipe.objective.flat_model import RELATIVE_STEP, FlatModel
from hesspipe.objective.loss_graphs import GraphSurvey
from hesspipe.objective.pieces import Piece
from hesspipe.objective.pytrees import named_tensors
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.special_points import is_regular_loss
from hesspipe.objective.sum_of_outputs import SumOfOutputs
from hesspipe.tolerances import rounding

# Relative to the parameters: so small that most batches of a network of millions of units meet no
# kink on the way, and large enough for six digits.
_STEPS = {torch.float64: 1e-8, torch.float32: STEPS[torch.float32][0]}


@dataclass(frozen=True)
class Screened:
    """What is known of the outputs for some samples.

    Attributes
    ----------
    index : Tensor of int, shape (n,), optional
        The samples; None for all of a batch as one piece.
    unconfirmed : Tensor of int, shape (k,)
        Places among these samples of those whose outputs are not known to be the same apart from
        the other samples, or at another evaluation.
    has_right_slopes : bool
        Whether first derivatives are right.
    near : Tensor, shape (n, C), optional
        The outputs; None if there are none.
    """

    index: Tensor | None
    unconfirmed: Tensor
    has_right_slopes: bool = False
    near: Tensor | None = None

    @classmethod
    def nothing(cls, index: Tensor | None) -> Screened:
        """Nothing is known of some samples."""
        return cls(index, torch.arange(1 if index is None else len(index), device="cpu"))


class Screen:
    """Compares parts of batches near the parameters with whole batches a little further.

    Parameters
    ----------
    loss : callable (outputs, targets) -> scalar Tensor
    near : Tensor, shape (P,)
        A point near the parameters.
    is_varied : Tensor of bool, shape (P,)
    survey : GraphSurvey
        Sees the losses, with their graphs.
    with_special : bool
        Whether to look for samples where the loss is special at the parameters, as
        `find_special_point` does with more evaluations.

    Attributes
    ----------
    direction : Tensor, shape (P,)
        The random change of the parameters along which outputs are compared.
    """

    def __init__(
        self,
        loss: LossFunction,
        near: Tensor,
        is_varied: Tensor,
        survey: GraphSurvey,
        *,
        with_special: bool = True,
    ) -> None:
        self._loss, self._survey, self._near = loss, survey, near
        self.direction = first_direction(near, is_varied)
        self._step = _STEPS[near.dtype]
        self._with_special, self._is_surveyed = with_special, True
        self._sum: SumOfOutputs | None = None

    def ahead(self) -> Tensor:
        """Return the point (P,) where whole batches are evaluated, which nothing keeps."""
        return torch.add(self._near, self.direction, alpha=self._step)

    def begin(
        self,
        batch: Batch,
        outputs: Any,
        loss: Tensor,
        ahead: dict[str, Tensor],
        *,
        is_divided: bool,
    ) -> None:
        """Take the outputs for a batch and the loss, with their graphs, at `ahead`.

        Second derivatives of its samples are compared only after this, and in float64, in which
        differences are precise.

        Parameters
        ----------
        batch : Batch
        outputs : nested tensors
        loss : Tensor, scalar
        ahead : dict of Tensor
            The parameters at `self.ahead()`, by which they can be differentiated.
        is_divided : bool
            Whether samples of the batch are looked at, or all of it as one piece.
        """
        self._sum = None
        self._is_surveyed = bool(attempt(partial(self._is_seen, loss)))
        if self._near.dtype == torch.float64:
            loss_of = partial(_swapped, self._loss, batch.targets)
            piece = Piece(_no_model, loss_of, batch.inputs, is_divided, batch.number)
            places = list(ahead.values())
            self._sum = attempt(lambda: SumOfOutputs(piece.rows_of(outputs)[0], places, self._step))

    def _is_seen(self, loss: Tensor) -> bool:
        """Let the survey see a loss; it refuses some, as the tests that follow do."""
        self._survey.look(loss)
        return True

    @property
    def has_right_curvature(self) -> bool:
        """Whether second derivatives of the outputs are right, for all samples of the batch."""
        return self._sum is not None and self._sum.is_right

    def look(self, model: FlatModel, batch: Batch, index: Tensor | None, whole: Term) -> Screened:
        """Compare outputs for some samples of a batch, or all of it as one piece.

        Parameters
        ----------
        model : FlatModel
            Evaluates the samples: a copy of the one that evaluates whole batches, where that can be
            told apart.
        batch : Batch
        index : Tensor of int, shape (n,), optional
            The samples. By default outputs need not have a row per sample, and count as one.
        whole : Term
            Outputs for the batch at `ahead()`.
        """
        try:
            piece, chosen = self._piece(model, batch, index)
            return self._look(model, piece, index, chosen(whole.outputs))
        except Exception as error:
            if is_exhaustion(error):
                raise
        # Whatever the model raises on a part is explained by the tests that follow.
        return Screened.nothing(index)

    def _look(
        self, model: FlatModel, piece: Piece, index: Tensor | None, expected: Any
    ) -> Screened:
        point = model.leaves(self._near)
        outputs = model(point, piece.inputs)
        if _shapes(outputs) != _shapes(expected):
            raise ValueError("outputs for parts of a batch must have the shapes of those for it")
        rows, ahead = (piece.rows_of(values)[0] for values in (outputs, expected))
        ways = list(model.unflatten(self.direction).values())
        along = self._along(rows, list(point.values()), ways, index)
        near = rows.detach()
        del outputs, rows, point  # and the graph
        unconfirmed, is_right = self._compared(piece, near, ahead.detach(), along)
        # Places in lists of samples are on the CPU, where these are.
        return Screened(index, unconfirmed.cpu(), is_right, near)

    def look_at_loss(
        self,
        model: FlatModel,
        batch: Batch,
        seen: Sequence[Screened],
        whole: Term,
        at_theta: Any,
    ) -> tuple[bool, bool]:
        """Compare derivatives of the loss in the outputs that were seen of some samples.

        Parameters
        ----------
        model, batch, whole
            As for `look`.
        seen : sequence of Screened
        at_theta : nested tensors
            Outputs for the batch at the parameters.

        Returns
        -------
        is_right : bool
            Whether first derivatives, and second ones in the outputs, are right.
        is_regular : bool
            Whether second ones at the parameters are those nearby.
        """
        rows = [one.near for one in seen if one.near is not None]
        if not self._is_surveyed or not rows or len(rows) < len(seen):
            return False, False
        indices = [one.index for one in seen if one.index is not None]
        index = torch.cat(indices) if indices else None
        try:
            piece, chosen = self._piece(model, batch, index)
            ahead, loss_of = piece.rows_of(chosen(whole.outputs))
            near = torch.cat(rows)
            is_right = self._has_right_loss(piece, loss_of, near, ahead.detach())
            if not self._with_special:
                return is_right, False
            here = piece.rows_of(chosen(at_theta))[0].detach()
            return is_right, is_regular_loss(loss_of, here, near, RELATIVE_STEP)
        except Exception as error:
            if is_exhaustion(error):
                raise
        return False, False

    def _along(
        self, rows: Tensor, places: list[Tensor], ways: list[Tensor], index: Tensor | None
    ) -> Tensor:
        """Differentiate the outputs along the direction, and note their second derivatives."""
        if self._sum is None:
            return derivatives_along(rows, places, ways, torch.zeros_like(rows), None)[0]
        weights = self._sum.weights
        weights = weights if index is None else weights[index.to(weights.device)]
        along, product = derivatives_along(rows, places, ways, weights, self._sum.subtract_gradient)
        self._sum.subtract_product(len(rows), product)
        return along

    def _piece(
        self, model: FlatModel, batch: Batch, index: Tensor | None
    ) -> tuple[Piece, Callable[[Any], Any]]:
        """Cut a piece, and return it with a function that cuts outputs."""
        size = batch.num_samples
        if index is None:
            loss = partial(_swapped, self._loss, batch.targets)
            return Piece(model, loss, batch.inputs, False, batch.number), lambda values: values
        loss = partial(_swapped, self._loss, take(batch.targets, index, size))
        inputs = part_of(batch.inputs, index)
        chosen = partial(take, index=index, num_samples=size)
        return Piece(model, loss, inputs, True, batch.number), chosen

    def _compared(
        self, piece: Piece, center: Tensor, ahead: Tensor, along: Tensor
    ) -> tuple[Tensor, bool]:
        """Compare the outputs; those that differ are evaluated again, on both sides."""
        step = self._step
        same = rounding(float(ahead.abs().max()) if ahead.numel() else 0.0, ahead.dtype)
        defect = (ahead - center).div_(step).sub_(along)
        is_same = is_right_ahead(defect, along, center, step) & _is_within(defect, same / step)
        again = (~is_same).nonzero().flatten()
        if not len(again):
            return again, True
        del defect
        if piece.has_rows:
            piece = Piece(piece.model, piece.loss, part_of(piece.inputs, again), True, piece.batch)
        moved = sides(piece, self._near, self.direction, step)
        if moved is None or moved[0].shape != center[again].shape:
            return again, False
        behind, other = moved
        is_same = _is_within(other - ahead[again], same)
        found = compare(along[again], behind, center[again], other, step)
        return again[~is_same], not bool(found.is_wrong.any())

    def _has_right_loss(
        self, piece: Piece, loss_of: Callable[[Tensor], Tensor], center: Tensor, ahead: Tensor
    ) -> bool:
        """Compare the loss and its slopes along the change of the outputs, and against it.

        Where the loss is not defined there, the model is evaluated on the other side.
        """
        with_slopes = center.dtype == torch.float64 or bool(self._survey.names)
        compared = partial(outcomes_of_loss, loss_of, center, with_slopes=with_slopes)
        step = STEPS[center.dtype][0]
        change = (step / self._step) * (ahead - center)
        found = attempt(lambda: compared((center - change, center + change), step=step))
        if found is None or not all(one.defect.isfinite().all() for one in found.values()):
            step = self._step
            moved = sides(piece, self._near, self.direction, step)
            found = moved and attempt(lambda: compared(moved, step=step))
        found = without_rounding(found or {}, loss_of, center, step)
        return not any(one.is_wrong.any() for one in found.values())


def _swapped(loss: LossFunction, targets: Any, outputs: Any) -> Tensor:
    return loss(outputs, targets)


def _no_model(theta: Tensor, inputs: Any) -> Any:
    raise NotImplementedError("the outputs are given")


def _shapes(outputs: Any) -> list[tuple[str, torch.Size]]:
    return [(name, tensor.shape) for name, tensor in named_tensors(outputs, "outputs")]


def _is_within(rows: Tensor, bound: float) -> Tensor:
    """Whether all numbers of a row are at most as large (n,); not where they are not finite."""
    if not rows.shape[1]:
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    return rows.abs().amax(1) <= bound

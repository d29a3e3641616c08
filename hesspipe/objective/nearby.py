"""The checks of each batch near the parameters, where initial weights of zero hide nothing.

Most of them are one comparison, `hesspipe.objective.screening`. What it leaves open is tested in
separate evaluations, which tell what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import Dependence, Divide, Term, has_rows
from hesspipe.objective.determinism import attempt, in_full_precision, refuse_differences
from hesspipe.objective.explanations import explained
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.loss_parts import LossCheck
from hesspipe.objective.pieces import SAMPLES_AT_ONCE
from hesspipe.objective.pytrees import map_tensors
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.screening import Screen, Screened
from hesspipe.objective.separability import ModelCheck, require_independence
from hesspipe.objective.weights import evaluate


@dataclass
class Open:
    """Numbers of the batches that need further tests.

    Attributes
    ----------
    slopes : set of int
        Of their first derivatives.
    curvatures : set of int
        Of second derivatives of their outputs.
    special : set of int
        Of the loss at the parameters.
    is_beside : bool
        Whether the loss depends on the parameters other than through the outputs, so that its
        second derivatives do not follow from those of the outputs.
    """

    slopes: set[int] = field(default_factory=set)
    curvatures: set[int] = field(default_factory=set)
    special: set[int] = field(default_factory=set)
    is_beside: bool = False


class NearbyChecks:
    """Checks of the model and the loss on one batch after the other.

    Parameters
    ----------
    model : FlatModel
    fresh : FlatModel
        A copy that has not been evaluated.
    loss : callable (outputs, targets) -> scalar Tensor
    divide : callable or None
        What the loss is said to divide by; None if unknown.
    near : Tensor, shape (P,)
    screen : Screen, optional
        Compares near this point. Without it nothing is screened: all is left open.

    Attributes
    ----------
    is_defined : bool
        Whether the model and the loss are defined at this point, for all batches so far.
    is_near : bool
        Whether the point is not that of the parameters.
    divide : callable or None
    found : Dependence
    open : Open
    """

    def __init__(
        self,
        model: FlatModel,
        *,
        fresh: FlatModel,
        loss: LossFunction,
        divide: Divide | None,
        near: Tensor,
        screen: Screen | None,
    ) -> None:
        self._model, self._fresh, self._loss, self._near = model, fresh, loss, near
        self.is_near = screen is not None
        self.divide = divide
        self._screen = screen
        self._point: Callable[[], Tensor] = (lambda: near) if screen is None else screen.ahead
        self.is_defined, self.found, self.open = True, Dependence(), Open()
        self._is_alone = True
        self._samples = ModelCheck(model, fresh, self._point, self.found)
        self._parts = LossCheck(loss, divide, self.found, model.dtype)

    def begin(self, batches: Sequence[Batch]) -> None:
        """Prepare for batches that are to be looked at in this order."""
        self._is_alone = len(batches) == 1
        if self._model.function is None:
            self._samples.begin(batches)

    def look(self, batch: Batch, at_theta: Any) -> None:
        """Evaluate a batch, and check all that can be.

        Parameters
        ----------
        batch : Batch
        at_theta : nested tensors
            Its outputs at the parameters.

        Raises
        ------
        ValueError
            If the model or the loss is not deterministic, or loses precision.
        """

        def near() -> Tensor:
            return self._near

        with self._model.padding_held_at(near), self._fresh.padding_held_at(near):
            self._look(batch, at_theta)

    def _look(self, batch: Batch, at_theta: Any) -> None:
        def at_parameters() -> tuple[Any, Tensor]:
            return evaluate(self._model, self._loss, self._model.theta, batch)

        def again() -> tuple[Any, Tensor]:
            return evaluate(self._model, self._loss, self._point(), batch)

        evaluation = in_full_precision(
            partial(attempt, partial(self._first, batch)),
            self._model.dtype,
            partial(attempt, at_parameters) if self.is_near else None,
        )
        if evaluation is None or not torch.isfinite(evaluation[1]):
            self.is_defined = False
            return
        with explained(batch, batch.number, self._model.dtype):
            outputs = evaluation[0]
            self._refuse_differences(
                batch, evaluation, lambda: (outputs, self._loss(outputs, batch.targets))
            )
            before = self.found.coupling
            is_confirmed = self._compare(batch, at_theta, outputs, evaluation[1])
            if not is_confirmed or self.found.coupling != before:
                self._refuse_differences(batch, evaluation, again)
                self._refuse_memory(batch, evaluation)

    def _first(self, batch: Batch) -> tuple[Any, Tensor]:
        """Evaluate a batch for the first time, and let second derivatives be compared."""
        point = self._point() if self._screen is None else self._model.leaves(self._point())
        outputs, loss = evaluate(self._model, self._loss, point, batch)
        if self._screen is not None and isinstance(point, dict):
            is_divided = self._is_divided(batch, outputs)
            self._screen.begin(batch, outputs, loss, point, is_divided=is_divided)
        return map_tensors(torch.detach, outputs), loss.detach()

    def _is_divided(self, batch: Batch, outputs: Any) -> bool:
        """Whether samples of a batch can be evaluated apart."""
        is_one = self._model.function is not None or batch.num_samples == 1
        return not is_one and has_rows(Term(outputs, batch.targets, batch.num_samples))

    def conclude(self, num_batches: int) -> None:
        """Find what the loss divides by, after the last batch.

        Raises
        ------
        NotASumOverSamplesError
            If samples depend on each other and there are several batches.
        """
        if self._model.function is None:
            self._parts.conclude()
            require_independence(self.found, num_batches)

    def _refuse_memory(self, batch: Batch, evaluation: Any) -> None:
        """Refuse a model that keeps something of its first call, which was elsewhere."""
        if self._model.function is not None or not self._is_alone:  # several may not depend at all
            return
        outputs = attempt(lambda: self._fresh(self._point(), batch.inputs))
        if outputs is not None:
            self._refuse_differences(batch, evaluation, lambda: (outputs, evaluation[1]))

    def _refuse_differences(self, batch: Batch, first: Any, second: Any) -> None:
        refuse_differences(first, second, batch.number, self._model.dtype)

    def _compare(self, batch: Batch, at_theta: Any, outputs: Any, loss: Tensor) -> bool:
        """Compare samples; returns whether all outputs were computed twice, and were the same."""
        whole = Term(outputs, batch.targets, batch.num_samples)
        is_divided = self._is_divided(batch, outputs)
        seen: list[Screened] = []

        def look(index: Tensor | None) -> Tensor:
            found = Screened.nothing(index)
            if self._screen is not None:
                model = self._model_of(whole, index)
                found = self._screen.look(model, batch, index, whole)
            seen.append(found)
            return found.unconfirmed

        if not is_divided:
            look(None)
        if self._model.function is None:
            splits = self._samples.splits(batch, whole, look if is_divided else None)
            known = {id(whole): float(loss)}
            self._parts.look_at(batch.number, [] if self.found.coupling else splits, known)
        self._note_open(batch, seen, whole, at_theta)
        return not any(len(one.unconfirmed) for one in seen)

    def _model_of(self, whole: Term, index: Tensor | None) -> FlatModel:
        """Return the model that evaluates some samples, or all as one piece."""
        is_shared = self._model.function is not None or whole.num_samples > 1
        return self._model if index is None and is_shared else self._fresh

    def _note_open(self, batch: Batch, seen: list[Screened], whole: Term, at_theta: Any) -> None:
        """Note what is not known to be right of a batch."""
        screen, number = self._screen, batch.number
        if screen is None or not screen.has_right_curvature:
            self.open.curvatures.add(number)
        if not all(one.has_right_slopes for one in seen):
            self.open.slopes.add(number)
        # As many samples at once as in the checks that follow.
        is_small = whole.num_samples <= SAMPLES_AT_ONCE
        for group in [seen] if is_small else [[one] for one in seen]:
            is_right = is_regular = False
            if screen is not None:
                model = self._model_of(whole, group[0].index) if group else self._model
                is_right, is_regular = screen.look_at_loss(model, batch, group, whole, at_theta)
            if not is_right:
                self.open.slopes.add(number)
            if not is_regular:
                self.open.special.add(number)

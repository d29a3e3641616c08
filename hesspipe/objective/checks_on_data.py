"""The checks that an objective is built with: its model and its loss on all its batches.

Every batch is evaluated and weighted first, at theta. Samples that depend on each other and wrong
derivatives are looked for afterwards, at a point near it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import Dependence, Divide, one
from hesspipe.objective.determinism import attempt, in_full_precision, refuse_differences
from hesspipe.objective.differentiability import refuse_wrong_derivatives
from hesspipe.objective.explanations import explained
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.loss_of_outputs import reason_without_ggn
from hesspipe.objective.pieces import Division
from hesspipe.objective.reductions import Denominator, LossFunction, ReducedLoss
from hesspipe.objective.separability import find_dependence
from hesspipe.objective.streaming import mapped, sizes_of
from hesspipe.objective.weights import Layouts, evaluate, weigh
from hesspipe.objective.whole_losses import COUPLING
from hesspipe.objective.work import Work, measured_work, require_graph


class ChecksOnData:
    """Checks of a model and a loss on all the data, and what they find.

    Parameters
    ----------
    flat : FlatModel
        Learns whether it draws random numbers.
    loss : ReducedLoss
    batches : sequence of Batch
    is_part : bool
        Whether other processes have other data.

    Attributes
    ----------
    loss : ReducedLoss
        A sum where the checks find one.
    batches : sequence of Batch
        With their shares and losses.
    layouts : Layouts
        Of the outputs, and why there are no rows or no outputs that define G and R.
    coupling : str or None
        What couples the samples.
    is_unlike_parts : bool
        Whether the loss of a batch is not that of its parts, whatever it is divided by.
    """

    def __init__(
        self,
        flat: FlatModel,
        loss: ReducedLoss,
        batches: Sequence[Batch],
        *,
        is_part: bool = False,
    ) -> None:
        self._flat, self._is_part = flat, is_part
        self.loss, self.batches, self.layouts = loss, batches, Layouts()
        self.coupling: str | None = None
        self.is_unlike_parts = False

    def run(self) -> None:
        """Weight the batches, and check the model and the loss on them.

        Raises
        ------
        ValueError
            If the model or the loss is not what an objective needs.
        TooLargeError
            If the graph of a batch does not fit into memory.
        """
        flat, loss_fn = self._flat, self.loss.loss_fn
        if not self.batches:  # other processes have data
            return
        work = measured_work(flat, loss_fn, self.batches[0])
        require_graph(work, max(sizes_of(self.batches)), flat.theta)
        before = torch.get_rng_state()
        fresh = flat.fresh_copy()
        divide = self._weighting()
        self.batches = weigh(
            flat, loss_fn, self.batches, divide, self.layouts, is_part=self._is_part
        )
        if not self.batches:
            return
        self._find_uses_of_padding()
        theta = self._point_of_checks()
        self._find_dependence(fresh, theta)
        self._check_derivatives(theta, work)
        flat.draws_numbers = not torch.equal(before, torch.get_rng_state())

    def loss_of_rows(self) -> LossFunction:
        """Return the loss as a function of one vector of outputs per sample."""
        return self.layouts.loss_of_rows(self.loss.loss_fn)

    def _find_uses_of_padding(self) -> None:
        """Find embeddings whose weight is used for more than to look up its rows."""
        flat, loss_fn = self._flat, self.loss.loss_fn
        for batch in self.batches:
            with explained(batch, batch.number, flat.dtype):
                # B023: the function is called at once.
                flat.note_uses_of_padding(lambda theta: evaluate(flat, loss_fn, theta, batch)[1])  # noqa: B023

    def _point_of_checks(self) -> Tensor:
        """Choose a point near theta, where initial weights of zero hide nothing.

        It is theta itself where the model or the loss is not defined nearby.
        """
        flat = self._flat
        near = flat.another_point()
        for batch in self.batches:
            again = partial(evaluate, flat, self.loss.loss_fn, near, batch)
            found = in_full_precision(partial(attempt, again), flat.dtype)
            if found is None or not torch.isfinite(found[1]):
                return flat.theta
            with explained(batch, batch.number, flat.dtype):
                refuse_differences(found, again, batch.number, flat.dtype)
        return near

    def _weighting(self) -> Denominator | None:
        """Return what weights the batches; None for a single one."""
        if len(self.batches) > 1:
            return self.loss.known_denominator()
        if not self._is_part:
            return None
        try:  # a single batch may have no valid label
            return self.loss.known_denominator()
        except ValueError:
            return None

    def _find_dependence(self, fresh: FlatModel, theta: Tensor) -> None:
        """Test whether samples are independent, and what the loss divides by."""
        if self._flat.function is not None:
            self.coupling = self.layouts.reason_without_rows = COUPLING
            return
        first = self.batches[0]
        with explained(first, first.number, self._flat.dtype):
            divide = self._divide()
            found = find_dependence(
                self._flat, fresh, self.loss.loss_fn, divide, theta, self.batches
            )
        if self._is_part:
            _require_parts(found, divide)
        self.coupling = found.coupling
        self.layouts.reason_without_rows = (
            self.layouts.reason_without_rows or found.reason_without_rows
        )
        self.is_unlike_parts = found.divide is None
        if found.is_sum:
            self.loss = replace(self.loss, is_sum=True)
        if self.loss.is_sum:
            self.batches = mapped(lambda batch: replace(batch, share=1.0), self.batches)

    def _divide(self) -> Divide | None:
        """Return what the loss is said to divide by; None if unknown."""
        try:
            divide = self.loss.known_denominator()
        except ValueError:
            return None
        if divide is None:
            return one
        return lambda outputs, targets, _: float(divide(outputs, targets))

    def _check_derivatives(self, theta: Tensor, work: Work) -> None:
        """Test all derivatives near theta, and second ones at theta itself."""
        flat, loss_fn, first = self._flat, self.loss.loss_fn, self.batches[0]
        has_rows = self.layouts.reason_without_rows is None
        is_separable = self.coupling is None and has_rows
        data = Division(flat, loss_fn, self.batches, has_rows, is_separable)
        with explained(first, first.number, flat.dtype), flat.padding_held_at(theta):
            refuse_wrong_derivatives(data, flat, theta, work.num_checked, work.num_batches)
            reason = reason_without_ggn(flat, loss_fn, first, has_rows=has_rows)
        if reason is not None:
            self.layouts.reason_without_rows = self.layouts.reason_without_outputs = reason


def _require_parts(found: Dependence, divide: Divide | None) -> None:
    """Raise an error if losses of several processes cannot be added."""
    if found.coupling is not None or found.divide is None:
        raise NotASumOverSamplesError(
            "loss_fn must be a sum over samples divided by the denominator, to be added over "
            f"processes, got a dependence: {found.coupling or 'the loss is not that of its parts'}"
        )
    if divide is not None and found.divide is not divide:
        raise NotASumOverSamplesError(
            "denominator must be what loss_fn divides by, to be added over processes, got another "
            f"one for a {'sum' if found.is_sum else 'mean over samples'}; correct denominator"
        )

"""The checks that an objective is built with: its model and its loss on all its batches.

Every batch is evaluated and weighted first, at theta. Samples that depend on each other and wrong
derivatives are looked for afterwards, at a point near it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
from tqdm import tqdm

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import Dependence, Divide, one
from hesspipe.objective.determinism import attempt, refuse_changed_parameters, sums_of_bits
from hesspipe.objective.differentiability import refuse_wrong_derivatives
from hesspipe.objective.explanations import explained
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.loss_graphs import GraphSurvey
from hesspipe.objective.loss_of_outputs import LossOfOutputs
from hesspipe.objective.nearby import NearbyChecks
from hesspipe.objective.pieces import Division
from hesspipe.objective.reductions import Denominator, LossFunction, ReducedLoss
from hesspipe.objective.screening import Screen
from hesspipe.objective.streaming import mapped, sizes_of
from hesspipe.objective.weights import Layouts, Weighing, evaluate
from hesspipe.objective.whole_losses import COUPLING
from hesspipe.objective.work import measured_work, require_graph
from hesspipe.progress import bar_options


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
        self._bits: dict[str, int] = {}

    def run(self, progress: bool | None = None) -> None:
        """Weight the batches, and check the model and the loss on them.

        Parameters
        ----------
        progress : bool, optional
            Show progress bars; by default if standard error is a terminal.

        Raises
        ------
        ValueError
            If the model or the loss is not what an objective needs.
        TooLargeError
            If the graph of a batch does not fit into memory.
        """
        flat = self._flat
        if not self.batches:  # other processes have data
            return
        self._bits = sums_of_bits(flat.unflatten(flat.theta))
        work = measured_work(flat, self.loss.loss_fn, self.batches[0])
        require_graph(work, max(sizes_of(self.batches)), flat.theta)
        before = torch.get_rng_state()
        survey = GraphSurvey(flat)
        num_samples = sum(sizes_of(self.batches))
        is_all = work.num_checked(num_samples) >= num_samples
        nearby, loss_of_outputs = self._look_at_batches(survey, progress, with_special=not is_all)
        if not self.batches:
            return
        self._adopt(nearby.found, nearby.divide)
        has_rows = self.layouts.reason_without_rows is None
        is_separable = self.coupling is None and has_rows
        data = Division(
            flat, self.loss.loss_fn, self.batches, has_rows, is_separable, flat.unflatten
        )
        first, still_open, is_near = self.batches[0], nearby.open, nearby.is_near
        still_open.is_beside = loss_of_outputs is not None and loss_of_outputs.uses_theta_beside
        del nearby  # and its vectors
        point = flat.another_point if is_near else lambda: flat.theta
        with explained(first, first.number, flat.dtype), flat.padding_held_at(point):
            refuse_wrong_derivatives(
                data, flat, work, survey, still_open, is_near=is_near, progress=progress
            )
        if loss_of_outputs is not None:
            reason = loss_of_outputs.reason_without_ggn(has_rows=has_rows)
            if reason is not None:
                self.layouts.reason_without_rows = self.layouts.reason_without_outputs = reason
        flat.draws_numbers = not torch.equal(before, torch.get_rng_state())

    def loss_of_rows(self) -> LossFunction:
        """Return the loss as a function of one vector of outputs per sample."""
        return self.layouts.loss_of_rows(self.loss.loss_fn)

    def _find_uses_of_padding(self) -> bool:
        """Find embeddings whose weight is used for more than to look up its rows; returns True."""
        flat, loss_fn = self._flat, self.loss.loss_fn
        for batch in self.batches:
            with explained(batch, batch.number, flat.dtype):
                # B023: the function is called at once.
                flat.note_uses_of_padding(lambda theta: evaluate(flat, loss_fn, theta, batch)[1])  # noqa: B023
        return True

    def _look_at_batches(
        self, survey: GraphSurvey, progress: bool | None, *, with_special: bool
    ) -> tuple[NearbyChecks, LossOfOutputs | None]:
        """Evaluate every batch, at theta and near it, and weight it.

        Where the model or the loss is not defined near theta, it is checked at theta itself.
        """
        flat, loss_fn = self._flat, self.loss.loss_fn
        pristine = flat.fresh_copy()
        is_padding_known = attempt(self._find_uses_of_padding)
        near = flat.another_point()
        screen = Screen(loss_fn, near, flat.is_varied, survey, with_special=with_special)
        weighing = Weighing(flat, loss_fn, self._weighting(), screen.direction)
        make = partial(NearbyChecks, flat, loss=loss_fn, divide=self._divide())
        nearby = make(fresh=pristine.fresh_copy(), near=near, screen=screen)
        nearby.begin(self.batches)
        with ExitStack() as stack:
            is_quiet = False
            for batch in self._bar("outputs and first derivatives", progress):
                outputs = weighing.look(batch)
                refuse_changed_parameters(self._bits, sums_of_bits(flat.unflatten(flat.theta)))
                if not is_quiet:
                    stack.enter_context(_without_warnings())
                    is_quiet = True
                if outputs is not None and nearby.is_defined:
                    nearby.look(batch, outputs)
            self.batches = weighing.weighted(self.batches, is_part=self._is_part)
            if not is_padding_known:
                self._find_uses_of_padding()
            if not nearby.is_defined:
                nearby = make(fresh=pristine, near=flat.theta, screen=None)
                nearby.begin(self.batches)
                for batch in self._bar("at the parameters", progress):
                    nearby.look(batch, None)
            if self.batches:
                first = self.batches[0]
                with explained(first, first.number, flat.dtype):
                    nearby.conclude(len(self.batches))
        self.layouts = weighing.layouts
        return nearby, weighing.loss_of_outputs

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

    def _bar(self, what: str, progress: bool | None) -> Iterable[Batch]:
        """Iterate over the batches."""
        bar: Iterable[Batch] = tqdm(
            self.batches,
            desc=f"checks of the objective, {what}",
            total=len(self.batches),
            unit="batch",
            **bar_options(progress),
        )
        return bar

    def _adopt(self, found: Dependence, divide: Divide | None) -> None:
        """Take over whether samples are independent, and what the loss divides by."""
        if self._flat.function is not None:
            self.coupling = self.layouts.reason_without_rows = COUPLING
            return
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


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide warnings of shapes, which were given where the caller's own call was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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

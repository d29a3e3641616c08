"""Evaluate every batch at theta: its share of the denominator, its loss, the layout of outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import part_of, take
from hesspipe.objective.determinism import (
    refuse_changed_buffers,
    refuse_changed_targets,
    refuse_differences,
    require_finite_evaluation,
    versions_of,
)
from hesspipe.objective.explanations import explained
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.jumps import Losses, refuse_jump
from hesspipe.objective.loss_of_outputs import LossOfOutputs
from hesspipe.objective.pytrees import (
    Layout,
    WholeLayout,
    join_outputs,
    join_whole,
    named_tensors,
)
from hesspipe.objective.reductions import Denominator, LossFunction
from hesspipe.objective.streaming import described
from hesspipe.objective.substitutes import evaluated_with_loss
from hesspipe.objective.ties import refuse_tie
from hesspipe.objective.whole_batches import WholeBatch
from hesspipe.tolerances import rounding

# Samples on which ties are looked for: what selects is the same for all.
_NUM_SEEN = 16


@dataclass
class Layouts:
    """How a model's outputs become one row per sample.

    Attributes
    ----------
    by_size : dict
        Layouts of the outputs for a sample, by how many numbers they are.
    reason_without_rows : str or None
        Why there is not one row per sample.
    reason_without_outputs : str or None
        Why the outputs are not a vector.
    """

    by_size: dict[int, Layout] = field(default_factory=dict)
    reason_without_rows: str | None = None
    reason_without_outputs: str | None = None

    def record(self, outputs: Any, num_samples: int) -> WholeLayout | None:
        """Return the layout of all outputs for a batch, and note that of its rows."""
        try:
            whole = join_whole(outputs)[1]
        except ValueError as error:
            self.reason_without_rows = self.reason_without_outputs = str(error)
            return None
        try:
            rows, layout = join_outputs(outputs, num_samples)
        except ValueError as error:
            self.reason_without_rows = str(error)
            return whole
        if self.by_size.setdefault(rows.shape[1], layout) != layout:
            self.reason_without_rows = (
                f"model outputs of one size must have one shape, got two of {rows.shape[1]} numbers"
            )
        return whole

    def loss_of_rows(self, loss_fn: LossFunction) -> LossFunction:
        """Return a loss as a function of one vector of outputs per sample."""
        if all(layout.is_plain for layout in self.by_size.values()):
            return loss_fn
        return partial(_loss_of_rows, loss_fn, self.by_size)

    def suffice(self, whole: WholeLayout, of_tensors: Callable[[], Tensor], loss: Tensor) -> bool:
        """Whether the loss does without the outputs that are withheld; note it if not."""
        try:
            is_same = torch.equal(of_tensors(), loss)
        except Exception:  # whatever a loss raises without an output
            is_same = False
        if not is_same:
            self.reason_without_rows = self.reason_without_outputs = (
                "outputs that loss_fn uses must be tensors of floating point for G and R, got "
                f"{', '.join(whole.withheld)}; use the hessian"
            )
        return is_same


def evaluate(
    model: FlatModel, loss_fn: LossFunction, theta: Tensor | dict[str, Tensor], batch: Batch
) -> tuple[Any, Tensor]:
    """Evaluate the outputs for a batch, and the loss on it, at a vector or at `leaves`."""

    def compute() -> tuple[Any, Tensor]:
        outputs = model(theta, batch.inputs)
        return outputs, loss_fn(outputs, batch.targets)

    evaluated: tuple[Any, Tensor] = evaluated_with_loss(compute)
    return evaluated


class Weighing:
    """Weights batches by their shares of the denominator; evaluates each twice, and beside theta.

    Parameters
    ----------
    model : FlatModel
    loss_fn : callable (outputs, targets) -> scalar Tensor
    divide : callable (outputs, targets) -> float, optional
        Denominator of the loss on a batch; None if every batch has the share 1.
    direction : Tensor, shape (P,)
        Along which the loss is compared with its value at theta, for jumps.

    Attributes
    ----------
    layouts : Layouts
        Of the outputs.
    loss_of_outputs : LossOfOutputs or None
        What the first batch shows of the loss as a function of the outputs.
    """

    def __init__(
        self,
        model: FlatModel,
        loss_fn: LossFunction,
        divide: Denominator | None,
        direction: Tensor,
    ) -> None:
        self._model, self._loss_fn, self._divide = model, loss_fn, divide
        self._direction, self._has_seen_ties = direction, False
        self.layouts = Layouts()
        self.loss_of_outputs: LossOfOutputs | None = None
        self._versions = {name: buffer._version for name, buffer in model.buffers.items()}
        self._weights: list[float] = []
        self._facts: list[dict[str, Any]] = []

    def look(self, batch: Batch) -> Any:
        """Evaluate a batch; returns its outputs, or None if it has no part in the loss.

        Raises
        ------
        ValueError
            If two evaluations differ, values are not finite or lose precision, the denominator is
            negative, or the loss jumps at the parameters.
        """
        model, number = self._model, batch.number
        with explained(batch, number, model.dtype):
            outputs = model(model.theta, batch.inputs)
            _refuse_nested(outputs)
            weight = 1.0 if self._divide is None else float(self._divide(outputs, batch.targets))
        if not weight >= 0:
            raise ValueError(f"denominator must be positive, got {weight} in batch {number}")
        self._weights.append(weight)
        if weight == 0:  # no valid label: the loss would be 0 / 0
            self._facts.append({})
            return None
        with explained(batch, number, model.dtype):
            versions = versions_of(batch.targets)
            loss = self._loss_fn(outputs, batch.targets)
            refuse_changed_targets(batch.targets, versions, number)
            require_finite_evaluation(outputs, loss, model.buffers, number)
            refuse_changed_buffers(model.buffers, self._versions)
            self._evaluate_again(batch, (outputs, loss))
        layout = self.layouts.record(outputs, batch.num_samples)
        if layout is not None and layout.withheld:
            split = layout.split(join_whole(outputs)[0])
            of_tensors = partial(self._loss_fn, split, batch.targets)
            layout = layout if self.layouts.suffice(layout, of_tensors, loss) else None
        facts = facts_of(outputs, loss, layout, model.dtype)
        self._facts.append(facts)
        with explained(batch, number, model.dtype):
            self._require_continuity(batch, loss, facts["value_rounding"])
        return outputs

    def _require_continuity(self, batch: Batch, loss: Tensor, value_rounding: float) -> None:
        """Refuse a loss that jumps at the parameters, and a tie where it only bends."""
        model, place = self._model, f"batch {batch.number}"

        def loss_at(samples: Batch, theta: Tensor) -> Tensor:
            return evaluate(model, self._loss_fn, theta, samples)[1]

        losses = Losses.of_batch(partial(loss_at, batch), model.theta, loss, value_rounding, place)
        bends = refuse_jump(model, losses, self._direction)
        if bends.any() and model.dtype == torch.float64 and not self._has_seen_ties:
            self._has_seen_ties = True  # every batch has the same selections
            few = partial(loss_at, _few_samples(batch))
            refuse_tie(few, model.theta, self._direction, place)

    def _evaluate_again(self, batch: Batch, first: tuple[Any, Tensor]) -> None:
        """Refuse differences; the first batch shows what the loss is a function of, too."""
        is_first = self.loss_of_outputs is None
        point = self._model.theta.detach().requires_grad_(is_first)
        again = partial(evaluate, self._model, self._loss_fn, point, batch)
        outputs, _ = refuse_differences(first, again, batch.number, self._model.dtype)
        if is_first:
            self.loss_of_outputs = LossOfOutputs.of(self._loss_fn, batch, outputs, point)

    def weighted(self, batches: Sequence[Batch], *, is_part: bool = False) -> Sequence[Batch]:
        """Return those of the batches, all of which were seen, that have a part in the loss.

        Parameters
        ----------
        batches : sequence of Batch
        is_part : bool
            Whether other processes have other data, so that no batch here need have a share.

        Raises
        ------
        ValueError
            If none has, or an evaluation has changed the model.
        """
        refuse_changed_buffers(self._model.buffers, self._versions)
        total = 1.0 if self._divide is None else sum(self._weights)
        if total <= 0 and not is_part:
            raise ValueError(f"the loss's denominator must be positive, got {total} over all data")
        facts = [
            fact | {"share": weight / total} if weight > 0 else None
            for fact, weight in zip(self._facts, self._weights, strict=True)
        ]
        return described(batches, facts)


def facts_of(
    outputs: Any, loss: Tensor, layout: WholeLayout | None, dtype: torch.dtype
) -> dict[str, Any]:
    """Record the loss on a batch, its rounding, and the layout of the outputs."""
    value = float(loss.detach())
    largest = max(_sizes(outputs), default=0.0)
    return {
        "value": value,
        "value_rounding": rounding(abs(value), dtype) + 4 * torch.finfo(dtype).eps * largest,
        "layout": layout,
    }


def _loss_of_rows(
    loss_fn: LossFunction, layouts: dict[int, Layout], rows: Tensor, targets: Any
) -> Tensor:
    return loss_fn(layouts[rows.shape[1]].split(rows), targets)


def _sizes(outputs: Any) -> list[float]:
    """Return the largest magnitude in each tensor."""
    return [float(t.detach().abs().max()) for _, t in named_tensors(outputs, "") if t.numel()]


def _few_samples(batch: Batch) -> Batch:
    """Return the first samples of a batch, where it can be divided."""
    if isinstance(batch.inputs, WholeBatch) or batch.num_samples <= _NUM_SEEN:
        return batch
    index = torch.arange(_NUM_SEEN, device="cpu")
    targets = take(batch.targets, index, batch.num_samples)
    return Batch(part_of(batch.inputs, index), targets, 1.0, number=batch.number)


def _refuse_nested(outputs: Any) -> None:
    for name, tensor in named_tensors(outputs, "outputs"):
        if tensor.is_nested:
            raise ValueError(
                f"model {name} must be dense tensors, got one that is nested; return "
                "torch.nested.to_padded_tensor(values, 0.0), and leave the padding out of the loss"
            )

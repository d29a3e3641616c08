"""Whether the samples are independent, in the model and in the loss, tested on every batch.

L over several batches is the loss of one batch with all the data only if the model treats each
sample on its own, and if the loss, times what it divides by, is the same on a batch as added over
its parts. Per-sample Jacobians and curvatures need the first of these, and a loss that is a sum of
one function per sample. All are tested with random parts: leading samples would not show a sum
that runs over the batch. The model is evaluated on each half and on a single sample, in a copy
that has seen no other data; the loss on rows of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import (
    Dependence,
    Split,
    Term,
    has_rows,
    part_of,
    take,
    values_of,
)
from hesspipe.objective.determinism import attempt
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.pieces import SAMPLES_AT_ONCE
from hesspipe.objective.pytrees import Fields, map_tensors, named_tensors
from hesspipe.seeding import generator
from hesspipe.tolerances import rounding

# Samples of a part -> places among them of those that are to be compared.
Look: TypeAlias = Callable[[Tensor], Tensor]
# Errors of a computation in terms of its change when its parameters are rounded.
_ROUNDINGS = 100


def require_independence(found: Dependence, num_batches: int) -> None:
    """Raise an error if samples depend on each other and there are several batches.

    Raises
    ------
    NotASumOverSamplesError
    """
    if found.coupling is not None and num_batches > 1:
        raise NotASumOverSamplesError(
            "model and loss_fn must treat samples independently over several batches, got a "
            f"dependence: {found.coupling}; pass all the data as one batch, use running statistics "
            "in normalizations, or, if the loss is meant as the mean of those of whole batches, "
            "Objective.from_batches"
        )


class ModelCheck:
    """Compares outputs for a part of a batch with those for the whole.

    Parameters
    ----------
    model : FlatModel
    fresh : FlatModel
        A copy with a structure of its own, that has been evaluated by nobody else. It evaluates
        the parts.
    point : callable () -> Tensor, shape (P,)
        Where they are evaluated; called each time, so that nothing keeps it.
    found : Dependence
        Filled.
    """

    def __init__(
        self, model: FlatModel, fresh: FlatModel, point: Callable[[], Tensor], found: Dependence
    ) -> None:
        self.model, self.fresh, self._point, self.found = model, fresh, point, found
        self._before: Batch | None = None

    def begin(self, batches: Sequence[Batch]) -> None:
        """Evaluate a part of the last of several batches.

        The copy that sees the last batch first shows a model that keeps what it saw first.
        """
        if len(batches) > 1:
            last = batches[-1]
            self._before = last
            first = parts_of(last)[0]
            attempt(lambda: self.fresh(self._point(), part_of(last.inputs, first)))

    def splits(self, batch: Batch, whole: Term, look: Look | None) -> list[Split]:
        """Compare on one batch; returns the parts to test the loss on, which may be none.

        A batch of one sample is compared with the same sample beside one of another batch.

        Parameters
        ----------
        batch : Batch
        whole : Term
            Outputs for the batch.
        look : callable (index) -> Tensor of int, optional
            Compares some samples in another way; returns the places of those that remain.
        """
        before, self._before = self._before, batch
        if whole.num_samples == 1:
            return [] if before is None else self._joined(whole, batch, before)
        indices = parts_of(batch)
        order = torch.cat(indices)
        remaining = [index if look is None else index[look(index)] for index in indices]
        parts = [self._part(whole, index, batch) for index in remaining if len(index)]
        if whole.num_samples > 2:
            self._part(whole, order[-1:], batch)
        if has_rows(whole):
            return list(_splits_of_rows(whole, indices, order))
        known = [part for part in parts if part is not None]
        return [Split(whole, known)] if len(known) == len(indices) else []

    def _part(self, whole: Term, index: Tensor, batch: Batch) -> Term | None:
        """Evaluate the model on some samples, and compare with the whole."""
        try:
            outputs = self.fresh(self._point(), part_of(batch.inputs, index))
        except Exception as error:  # whatever the model raises
            message = (str(error).strip() or "no message").splitlines()[0]
            self.found.couple(
                f"the model cannot be evaluated on {len(index)} of the {whole.num_samples} samples "
                f"of batch {batch.number} ({type(error).__name__}: {message})"
            )
            return None
        self._compare(whole, outputs, index, batch)
        return Term(outputs, take(whole.targets, index, whole.num_samples), len(index))

    def _compare(self, whole: Term, outputs: Any, index: Tensor, batch: Batch) -> None:
        number = batch.number
        full, part = (
            [tensor for _, tensor in named_tensors(values, "")]
            for values in (whole.outputs, outputs)
        )
        if len(full) != len(part):
            self.found.couple(f"the model returns other outputs for a part of batch {number}")
            return
        for place, (rows, found) in enumerate(zip(full, part, strict=True)):
            if rows.ndim == 0 or len(rows) % whole.num_samples:
                continue  # no row for each sample: the test of the loss has to do
            expected = take(rows, index, whole.num_samples)
            change = _change(expected, found)
            if change > self._noise(batch, rows, place, change):
                self.found.couple(
                    "the model's outputs for a sample depend on the other samples of its batch "
                    f"(by {change:.1e} in batch {number})"
                )
            elif expected.shape != found.shape:
                self.found.reason_without_rows = (
                    "model must return the same row for a sample whatever the number of samples, "
                    f"got shape {tuple(found.shape)} for {len(index)} of them, and "
                    f"{tuple(rows.shape)} for {whole.num_samples}"
                )

    def _noise(self, batch: Batch, outputs: Tensor, place: int, change: float) -> float:
        """Bound the rounding of outputs, if need be by their change for rounded parameters."""
        size = float(outputs.detach().abs().max()) if outputs.numel() else 0.0
        bound = rounding(size, self.model.dtype)
        if not bound < change < math.inf:
            return bound
        theta = self._point()
        signs = torch.randn(
            len(theta), generator=generator(0, "rounding"), dtype=torch.float64, device="cpu"
        ).sign()
        moved = theta * (1 + torch.finfo(theta.dtype).eps * signs.to(theta))
        others = self.model(moved, batch.inputs)
        other = list(named_tensors(others, ""))[place][1]
        return max(bound, _ROUNDINGS * _change(other, outputs))

    def _joined(self, whole: Term, batch: Batch, other: Batch) -> list[Split]:
        """Compare a batch of one sample with the same sample beside one of another batch."""
        first = torch.zeros(1, dtype=torch.long, device="cpu")
        try:
            beside = part_of(other.inputs, first)
            inputs = _joined_values(values_of(batch.inputs), values_of(beside))
            targets = take(other.targets, first, other.num_samples)
            pair = Fields(inputs) if isinstance(beside, Fields) else inputs
            joined = Term(
                self.fresh(self._point(), pair), _joined_values(whole.targets, targets), 2
            )
            second = Term(self.fresh(self._point(), beside), targets, 1)
        except Exception:  # the two need not fit together
            return []
        self._compare(joined, whole.outputs, first, batch)
        return [Split(joined, [whole, second])]


def parts_of(batch: Batch) -> list[Tensor]:
    """Draw the samples of each part: halves, or more where a batch is large."""
    size = batch.num_samples
    order = torch.randperm(
        size, generator=generator(batch.number, "parts of a batch"), device="cpu"
    )
    num_parts = max(2, -(-size // SAMPLES_AT_ONCE))
    return list(order.split(-(-size // num_parts)))


def _splits_of_rows(whole: Term, indices: list[Tensor], order: Tensor) -> Iterator[Split]:
    """Split the outputs, then also with their rows permuted, where the loss is not small."""
    size = whole.num_samples
    for term in (whole, Term(take(whole.outputs, order, size), whole.targets, size)):
        yield Split(
            term,
            [
                Term(take(term.outputs, index, size), take(term.targets, index, size), len(index))
                for index in indices
            ],
        )


def _change(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference, where both are defined; infinity for other kinds of shapes.

    A dimension of 1 may be lost, and outputs may be padded to the longest sample of the batch.
    """
    if expected.numel() == found.numel():
        expected, found = expected.reshape(-1), found.reshape(-1)
    elif expected.ndim == found.ndim and len(expected) == len(found):
        common = tuple(slice(min(sizes)) for sizes in zip(expected.shape, found.shape, strict=True))
        expected, found = expected[common], found[common]
    else:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else math.inf
    same = (expected == found) | (expected.isnan() & found.isnan())
    change = (expected - found).detach().abs().masked_fill(same, 0.0)
    return float(change.nan_to_num(nan=math.inf, posinf=math.inf).max())


def _joined_values(first: Any, second: Any) -> Any:
    """Concatenate the rows of two nested containers of tensors."""
    others = [tensor for _, tensor in named_tensors(second, "")][::-1]
    return map_tensors(lambda tensor: torch.cat([tensor, others.pop()]), first)

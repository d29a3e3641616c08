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
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.batches import Batch
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.pytrees import Fields, join_outputs, map_tensors, named_tensors
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.target_shapes import refuse_mixing_broadcast
from hesspipe.seeding import generator, probe
from hesspipe.tolerances import rounding

# (outputs, targets, number of samples) -> what the loss divides by.
Divide = Callable[[Any, Any, int], float]

# Errors of a computation in terms of its change when its parameters are rounded.
_ROUNDINGS = 100


@dataclass(frozen=True)
class Term:
    """Outputs and targets of some samples."""

    outputs: Any
    targets: Any
    num_samples: int


@dataclass(frozen=True)
class Split:
    """Some samples, and parts that contain each of them once."""

    whole: Term
    parts: list[Term]


@dataclass
class Dependence:
    """How samples depend on each other.

    Attributes
    ----------
    coupling : str or None
        What couples them.
    reason_without_rows : str or None
        Why the outputs for one sample are not a row of the outputs for the batch.
    divide : callable or None
        What the loss divides by, as verified on every batch.
    is_sum : bool
        Whether that is the same number whatever the number of samples.
    """

    coupling: str | None = None
    reason_without_rows: str | None = None
    divide: Divide | None = None
    is_sum: bool = False

    def couple(self, sentence: str) -> None:
        """Set the coupling, unless one was found before."""
        self.coupling = self.coupling or sentence


def one_per_sample(outputs: Any, targets: Any, num_samples: int) -> float:
    """What a mean over samples divides by."""
    return float(num_samples)


def one(outputs: Any, targets: Any, num_samples: int) -> float:
    """What a sum divides by."""
    return 1.0


def take(values: Any, index: Tensor, num_samples: int) -> Any:
    """Select samples: rows of each tensor, or groups of rows where samples have several."""

    def chosen(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or len(tensor) == 0 or len(tensor) % num_samples:
            return tensor
        groups = tensor.reshape(num_samples, -1, *tensor.shape[1:])[index.to(tensor.device)]
        return groups.reshape(-1, *tensor.shape[1:])

    return map_tensors(chosen, values)


def find_dependence(
    model: FlatModel,
    fresh: FlatModel,
    loss: LossFunction,
    divide: Divide | None,
    theta: Tensor,
    batches: list[Batch],
) -> Dependence:
    """Test the model and the loss on every batch, the last one first.

    Parameters
    ----------
    model : FlatModel
    fresh : FlatModel
        A copy that has not been evaluated.
    loss : callable (outputs, targets) -> scalar Tensor
    divide : callable or None
        What the loss is said to divide by; None if unknown.
    theta : Tensor, shape (P,)
    batches : list of Batch

    Returns
    -------
    Dependence

    Raises
    ------
    NotASumOverSamplesError
        If samples depend on each other and there are several batches, or targets are broadcast
        over samples.
    """
    found = Dependence()
    with warnings.catch_warnings():  # of shapes, given where the caller's own call was
        warnings.simplefilter("ignore")
        check = _ModelCheck(model, fresh, theta, batches, found)
        splits = [check.splits(number) for number in reversed(range(len(batches)))][::-1]
        if found.coupling is None or len(batches) == 1:
            _LossCheck(loss, divide, splits, found, model.dtype).run()
    if found.coupling is not None and len(batches) > 1:
        raise NotASumOverSamplesError(
            "model and loss_fn must treat samples independently over several batches, got a "
            f"dependence: {found.coupling}; pass all the data as one batch, or use running "
            "statistics in normalizations"
        )
    return found


class _ModelCheck:
    """Compares outputs for a part of a batch with those for the whole."""

    def __init__(
        self,
        model: FlatModel,
        fresh: FlatModel,
        theta: Tensor,
        batches: list[Batch],
        found: Dependence,
    ) -> None:
        self.model, self.fresh, self.theta = model, fresh, theta
        self.batches, self.found = batches, found

    def splits(self, number: int) -> list[Split]:
        """Compare on one batch; returns the parts to test the loss on, which may be none."""
        batch = self.batches[number]
        size = batch.num_samples
        whole = Term(self.model(self.theta, batch.inputs), batch.targets, size)
        if size == 1:
            return self._joined(whole, number)
        order = torch.randperm(size, generator=generator(number, "parts of a batch"))
        indices = list(order.split((size + 1) // 2))
        parts = [self._part(whole, index, number) for index in indices]
        if size > 2:
            self._part(whole, order[-1:], number)
        if _has_rows(whole):
            return list(_splits_of_rows(whole, indices, order))
        known = [part for part in parts if part is not None]
        return [Split(whole, known)] if len(known) == len(parts) else []

    def _part(self, whole: Term, index: Tensor, number: int) -> Term | None:
        """Evaluate the model on some samples, and compare with the whole."""
        try:
            outputs = self.fresh(self.theta, part_of(self.batches[number].inputs, index))
        except Exception as error:  # whatever the model raises
            message = (str(error).strip() or "no message").splitlines()[0]
            self.found.couple(
                f"the model cannot be evaluated on {len(index)} of the {whole.num_samples} samples "
                f"of batch {number} ({type(error).__name__}: {message})"
            )
            return None
        self._compare(whole, outputs, index, number)
        return Term(outputs, take(whole.targets, index, whole.num_samples), len(index))

    def _compare(self, whole: Term, outputs: Any, index: Tensor, number: int) -> None:
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
            if change > self._noise(number, rows, place, change):
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

    def _noise(self, number: int, outputs: Tensor, place: int, change: float) -> float:
        """Bound the rounding of outputs, if need be by their change for rounded parameters."""
        size = float(outputs.detach().abs().max()) if outputs.numel() else 0.0
        bound = rounding(size, self.model.dtype)
        if not bound < change < math.inf:
            return bound
        signs = torch.randn(
            len(self.theta), generator=generator(0, "rounding"), dtype=torch.float64
        ).sign()
        moved = self.theta * (1 + torch.finfo(self.theta.dtype).eps * signs.to(self.theta))
        others = self.model(moved, self.batches[number].inputs)
        other = list(named_tensors(others, ""))[place][1]
        return max(bound, _ROUNDINGS * _change(other, outputs))

    def _joined(self, whole: Term, number: int) -> list[Split]:
        """Compare a batch of one sample with the same sample beside one of the next batch."""
        if len(self.batches) == 1:
            return []
        other = self.batches[(number + 1) % len(self.batches)]
        first = torch.zeros(1, dtype=torch.long)
        try:
            beside = part_of(other.inputs, first)
            inputs = _joined_values(_values(self.batches[number].inputs), _values(beside))
            targets = take(other.targets, first, other.num_samples)
            pair = Fields(inputs) if isinstance(beside, Fields) else inputs
            joined = Term(self.fresh(self.theta, pair), _joined_values(whole.targets, targets), 2)
            second = Term(self.fresh(self.theta, beside), targets, 1)
        except Exception:  # the two need not fit together
            return []
        self._compare(joined, whole.outputs, first, number)
        return [Split(joined, [whole, second])]


class _LossCheck:
    """Finds what the loss divides by, such that it is the same whole and in parts."""

    def __init__(
        self,
        loss: LossFunction,
        divide: Divide | None,
        splits: list[list[Split]],
        found: Dependence,
        dtype: torch.dtype,
    ) -> None:
        self.loss, self.given, self.splits, self.found = loss, divide, splits, found
        self.dtype = dtype

    def run(self) -> None:
        """Try what is given, then a mean over samples and a sum."""
        hypotheses = [divide for divide in (self.given, one_per_sample, one) if divide is not None]
        for splits in filter(None, self.splits):
            whole = splits[0].whole
            if _lacks_rows(whole) or not any(self._kind(splits, d) for d in hypotheses):
                refuse_mixing_broadcast(self.loss, whole.outputs, whole.targets)
        for divide in hypotheses:
            kinds = {self._kind(splits, divide) for splits in self.splits if splits}
            if "" in kinds or kinds >= {"mean", "sum"}:
                continue
            if divide is not self.given and not self._is_proportional(divide):
                self._refuse_denominator("mean over samples" if divide is one_per_sample else "sum")
            self.found.divide, self.found.is_sum = divide, "sum" in kinds
            return
        self._couple()

    def _kind(self, splits: list[Split], divide: Divide) -> str:
        """Return "mean" or "sum" if a denominator is right on all splits of a batch, else ""."""
        kinds, pairs = {"mean", "sum"}, []
        for position, split in enumerate(splits):
            try:
                whole, *parts = [self._weigh(term, divide) for term in (split.whole, *split.parts)]
            except Exception:  # whatever the loss raises
                if position == 0:
                    return ""
                continue
            if position and not math.isfinite(whole[1]):
                continue
            pairs.append((whole[1], [part[1] for part in parts]))
            sizes = [part[0] for part in parts if part[0]]
            if not math.isclose(sum(sizes), whole[0], rel_tol=1e-9):
                kinds.discard("mean")
            if not all(math.isclose(size, whole[0], rel_tol=1e-9) for size in sizes):
                kinds.discard("sum")
        scale = max(max(abs(whole), *map(abs, parts)) for whole, parts in pairs)
        agree = all(
            abs(whole - sum(parts)) <= rounding(scale, self.dtype) for whole, parts in pairs
        )
        if not agree or not kinds:
            return ""
        return "either" if len(kinds) == 2 else kinds.pop()

    def _weigh(self, term: Term, divide: Divide) -> tuple[float, float]:
        """Return the denominator, and its product with the loss."""
        size = float(divide(term.outputs, term.targets, term.num_samples))
        if size == 0:  # no valid label: the loss would be 0 / 0
            return 0.0, 0.0
        return size, size * float(self.loss(term.outputs, term.targets).detach())

    def _is_proportional(self, divide: Divide) -> bool:
        """Whether what is given weights the batches in the same way."""
        if self.given is None:
            return True
        wholes = [splits[0].whole for splits in self.splits if splits]
        ratios = [
            self.given(w.outputs, w.targets, w.num_samples)
            / divide(w.outputs, w.targets, w.num_samples)
            for w in wholes
        ]
        return divide is one_per_sample and max(ratios) <= min(ratios) * (1 + 1e-9)

    def _refuse_denominator(self, kind: str) -> None:
        if len(self.splits) == 1:
            return  # one batch is not weighted
        what = "len(targets)" if kind == "mean over samples" else "1.0"
        raise NotASumOverSamplesError(
            "denominator must be what loss_fn divides by, or the loss of a batch is not that of "
            f"its parts, got another one for a {kind}; pass denominator=lambda outputs, targets: "
            f"{what}, or all the data as one batch"
        )

    def _couple(self) -> None:
        number, splits = next(
            (number, splits)
            for number, splits in enumerate(self.splits)
            if splits and not self._kind(splits, self.given or one_per_sample)
        )
        if len(self.splits) == 1 and _has_rows(splits[0].whole) and not self._mixes(splits[0]):
            return
        self.found.couple(
            f"the loss of batch {number} is not that of its parts, neither as a sum nor as a mean"
            + (" with the denominator" if self.given is not None else " over samples")
        )

    def _mixes(self, split: Split) -> bool:
        """Whether slopes of some samples change with the outputs for the others.

        They are moved far, and infinitesimally; if the loss couples no samples, autograd gives
        exact zeros.
        """
        whole = split.whole
        rows, layout = join_outputs(whole.outputs, whole.num_samples)
        order = torch.randperm(len(rows), generator=generator(0, "samples that are moved"))
        is_moved = (order < (len(rows) + 1) // 2).to(rows.device)
        point = rows.detach().clone().requires_grad_()

        def slopes(at: Tensor) -> Tensor:
            loss = self.loss(layout.split(at), whole.targets)
            return torch.autograd.grad(loss, at, create_graph=True, materialize_grads=True)[0]

        here = slopes(point)
        eps = torch.finfo(rows.dtype).eps
        if here.requires_grad:
            direction = probe(rows) * is_moved.unsqueeze(1)
            (change,) = torch.autograd.grad(here, point, direction, materialize_grads=True)
            if not change[~is_moved].norm() <= _ROUNDINGS * eps * change.norm():
                return True
        others = torch.where(is_moved.unsqueeze(1), rows.detach().roll(1, 0), rows.detach())
        try:
            there = slopes(others.requires_grad_())
        except Exception:  # the loss need not be defined there
            return False
        leak = (there - here).detach()[~is_moved].norm()
        return bool(leak > rounding(here.detach().norm(), rows.dtype))


def _has_rows(term: Term) -> bool:
    tensors = [tensor for _, tensor in named_tensors(term.outputs, "")]
    return bool(tensors) and all(
        tensor.ndim > 0 and len(tensor) == term.num_samples and tensor.is_floating_point()
        for tensor in tensors
    )


def _lacks_rows(term: Term) -> bool:
    """Whether the targets are a tensor without one row per sample."""
    targets = term.targets
    return isinstance(targets, Tensor) and (targets.ndim == 0 or len(targets) != term.num_samples)


def _splits_of_rows(whole: Term, indices: list[Tensor], order: Tensor) -> Iterator[Split]:
    """Split the outputs, then also with their rows permuted, where the loss is not small."""
    size = whole.num_samples
    for outputs in (whole.outputs, take(whole.outputs, order, size)):
        yield Split(
            Term(outputs, whole.targets, size),
            [
                Term(take(outputs, index, size), take(whole.targets, index, size), len(index))
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


def _values(inputs: Tensor | Fields) -> Any:
    return inputs.values if isinstance(inputs, Fields) else inputs


def part_of(inputs: Tensor | Fields, index: Tensor) -> Tensor | Fields:
    """Select samples of inputs."""
    chosen = map_tensors(lambda tensor: tensor[index.to(tensor.device)], _values(inputs))
    return Fields(chosen) if isinstance(inputs, Fields) else chosen


def _joined_values(first: Any, second: Any) -> Any:
    """Concatenate the rows of two nested containers of tensors."""
    others = [tensor for _, tensor in named_tensors(second, "")][::-1]
    return map_tensors(lambda tensor: torch.cat([tensor, others.pop()]), first)

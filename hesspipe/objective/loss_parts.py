"""What a loss divides by, such that it is the same on a batch as added over its parts.

Where there is no such number, the loss couples the samples, unless the batch is the only one and
no slope changes with the outputs for other samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.dependence import (
    Dependence,
    Divide,
    Split,
    Term,
    has_rows,
    one,
    one_per_sample,
)
from hesspipe.objective.pytrees import join_outputs
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.target_shapes import refuse_mixing_broadcast
from hesspipe.seeding import generator, probe
from hesspipe.tolerances import rounding

# Leaks into the slopes of other samples above this multiple of their rounding are real.
_ROUNDINGS = 100


class LossCheck:
    """Finds what the loss divides by, such that it is the same whole and in parts."""

    def __init__(
        self,
        loss: LossFunction,
        divide: Divide | None,
        found: Dependence,
        dtype: torch.dtype,
    ) -> None:
        self.loss, self.given, self.found = loss, divide, found
        self.dtype = dtype
        self._hypotheses = [
            divide for divide in (self.given, one_per_sample, one) if divide is not None
        ]
        # Of the terms of a batch, by their `id`.
        self._values: dict[int, float] = {}
        # Of the batches: kinds by hypothesis, and what is given relative to the samples.
        self._kinds: list[list[str]] = []
        self._ratios: list[float] = []
        self._num_batches = 0
        # The first batch whose loss is not as given, or the first one, with its number.
        self._suspect: tuple[int, list[Split]] = (0, [])

    def conclude(self) -> None:
        """Choose what fits all batches: what is given, then a mean over samples and a sum."""
        for place, divide in enumerate(self._hypotheses):
            kinds = {of_batch[place] for of_batch in self._kinds}
            if "" in kinds or kinds >= {"mean", "sum"}:
                continue
            if divide is not self.given and not self._is_proportional(divide):
                self._refuse_denominator("mean over samples" if divide is one_per_sample else "sum")
            self.found.divide, self.found.is_sum = divide, "sum" in kinds
            return
        self._couple()

    def look_at(
        self, number: int, splits: list[Split], known: dict[int, float] | None = None
    ) -> None:
        """Note what the loss of a batch divides by; nothing if it need not be tested.

        Parameters
        ----------
        number : int
            Of the batch.
        splits : list of Split
        known : dict, optional
            Losses by the `id` of their terms.
        """
        self._num_batches += 1
        if not splits:
            return
        whole = splits[0].whole
        self._values = dict(known or {})
        kinds = [self._kind(splits, divide) for divide in self._hypotheses]
        if _lacks_rows(whole) or not any(kinds):
            refuse_mixing_broadcast(self.loss, whole.outputs, whole.targets)
        if all(of_batch[0] for of_batch in self._kinds) and (not self._kinds or not kinds[0]):
            self._suspect = number, splits
        if self.given is not None:
            given = self.given(whole.outputs, whole.targets, whole.num_samples)
            self._ratios.append(given / whole.num_samples)
        self._kinds.append(kinds)

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
        if id(term) not in self._values:
            self._values[id(term)] = float(self.loss(term.outputs, term.targets).detach())
        return size, size * self._values[id(term)]

    def _is_proportional(self, divide: Divide) -> bool:
        """Whether what is given weights the batches in the same way."""
        if self.given is None:
            return True
        return divide is one_per_sample and max(self._ratios) <= min(self._ratios) * (1 + 1e-9)

    def _refuse_denominator(self, kind: str) -> None:
        if self._num_batches == 1:
            return  # one batch is not weighted
        what = "len(targets)" if kind == "mean over samples" else "1.0"
        raise NotASumOverSamplesError(
            "denominator must be what loss_fn divides by, or the loss of a batch is not that of "
            f"its parts, got another one for a {kind}; pass denominator=lambda outputs, targets: "
            f"{what}, or all the data as one batch"
        )

    def _couple(self) -> None:
        number, splits = self._suspect
        if self._num_batches == 1 and has_rows(splits[0].whole) and not self._mixes(splits[0]):
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
        order = torch.randperm(
            len(rows), generator=generator(0, "samples that are moved"), device="cpu"
        )
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


def _lacks_rows(term: Term) -> bool:
    """Whether the targets are a tensor without one row per sample."""
    targets = term.targets
    return isinstance(targets, Tensor) and (targets.ndim == 0 or len(targets) != term.num_samples)

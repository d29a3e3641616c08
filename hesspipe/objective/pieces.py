"""Parts of the data that the checks of derivatives evaluate at once.

Where samples are independent, large batches are cut into pieces, so that the checks need no more
memory than the computations that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import part_of, take
from hesspipe.objective.pytrees import Fields, join_outputs, join_whole
from hesspipe.seeding import generator

# Samples that the checks of derivatives evaluate at once, where samples are independent.
_SAMPLES_AT_ONCE = 1024
# Samples for which second derivatives of the outputs are compared apart.
_NUM_SAMPLES = 32
# Rows of outputs (n, C), and the loss as a function of them.
Evaluation: TypeAlias = tuple[Tensor, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Piece:
    """Some samples of one batch.

    Attributes
    ----------
    model : callable (theta, inputs) -> outputs
    loss : callable (outputs) -> scalar Tensor
    inputs : Tensor or Fields
    has_rows : bool
        Whether the outputs have one row per sample; otherwise they are one row.
    batch : int
        Number of the batch.
    first : int
        Number of the first sample in its batch.
    """

    model: Callable[[Tensor, Any], Any]
    loss: Callable[[Any], Tensor]
    inputs: Tensor | Fields
    has_rows: bool
    batch: int
    first: int = 0

    def evaluate(self, theta: Tensor) -> Evaluation:
        """Return the outputs as rows (n, C), and the loss as a function of such rows.

        Outputs that are no tensors are left out: the only row is then the loss.
        """
        outputs = self.model(theta, self.inputs)
        if self.has_rows:
            rows, layout = join_outputs(outputs, len(self.inputs))
            return rows, lambda at: self.loss(layout.split(at))
        try:
            vector, whole = join_whole(outputs)
        except ValueError:
            return self.loss(outputs).reshape(1, 1), lambda at: at.sum()
        return vector.reshape(1, -1), lambda at: self.loss(whole.split(at.reshape(-1)))

    def value(self, theta: Tensor) -> Tensor:
        """Evaluate the loss."""
        value: Tensor = self.loss(self.model(theta, self.inputs))
        return value

    def name(self, row: int) -> str:
        """Name a row, for messages."""
        sample = f"sample {self.first + row} of " if self.has_rows else ""
        return f"{sample}batch {self.batch}"


@dataclass(frozen=True)
class Division:
    """All the data, to be divided into pieces.

    Attributes
    ----------
    model : callable (theta, inputs) -> outputs
    loss : callable (outputs, targets) -> scalar Tensor
    batches : list of Batch
    has_rows : bool
        Whether the outputs have one row per sample.
    is_separable : bool
        Whether batches can be divided.
    """

    model: Callable[[Tensor, Any], Any]
    loss: Callable[[Any, Any], Tensor]
    batches: list[Batch]
    has_rows: bool
    is_separable: bool

    def all_pieces(self) -> list[Piece]:
        """Return pieces of all the data, none of them large."""
        if not self.is_separable:
            return [self._piece(number, None) for number in range(len(self.batches))]
        return [
            self._piece(
                number, torch.arange(start, min(start + _SAMPLES_AT_ONCE, len(batch.inputs)))
            )
            for number, batch in enumerate(self.batches)
            for start in range(0, batch.num_samples, _SAMPLES_AT_ONCE)
        ]

    def few_samples(self) -> list[Piece]:
        """Draw samples from all the data, each with its batch's: at most `_NUM_SAMPLES`."""
        if not self.is_separable:
            return []
        places = [(n, i) for n, batch in enumerate(self.batches) for i in range(batch.num_samples)]
        order = torch.randperm(len(places), generator=generator(0, "few samples"))
        chosen: dict[int, list[int]] = {}
        for place in order[:_NUM_SAMPLES].tolist():
            chosen.setdefault(places[place][0], []).append(places[place][1])
        return [self._piece(number, torch.tensor(index)) for number, index in chosen.items()]

    def _piece(self, number: int, index: Tensor | None) -> Piece:
        """Some samples of a batch; all of them are the batch itself."""
        batch = self.batches[number]
        inputs, targets = batch.inputs, batch.targets
        if index is not None and len(index) < batch.num_samples:
            inputs, targets = part_of(inputs, index), take(targets, index, batch.num_samples)
        return Piece(
            self.model,
            lambda outputs: batch.share * self.loss(outputs, targets),
            inputs,
            self.has_rows,
            number,
            0 if index is None else int(index[0]),
        )


@dataclass(frozen=True)
class Outcome:
    """A comparison of rows of numbers with what is expected of them.

    Attributes
    ----------
    is_wrong : Tensor of bool, shape (n,)
        The difference is larger than rounding, and the same on both sides of the point: at a kink
        the two sides differ.
    is_unclear : Tensor of bool, shape (n,)
        The difference is larger than rounding, but so is that between the two sides.
    defect : Tensor, shape (n, C)
    size : Tensor, shape (n,)
        Of the numbers that are compared.
    """

    is_wrong: Tensor
    is_unclear: Tensor
    defect: Tensor
    size: Tensor

    def persists(self, other: Outcome) -> Tensor:
        """Whether both are wrong by the same: rounding errors change with the step, (n,)."""
        difference = row_norms(self.defect - other.defect)
        smaller = torch.minimum(row_norms(self.defect), row_norms(other.defect))
        return self.is_wrong & other.is_wrong & (difference < 0.2 * smaller)


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms (n,) of rows (n, C), also where squares underflow or overflow."""
    largest = rows.abs().amax(1, keepdim=True) if rows.shape[1] else rows.new_zeros(len(rows), 1)
    scale = torch.where(largest > 0, largest, 1.0)
    norms: Tensor = (rows / scale).square().sum(1).sqrt() * scale.squeeze(1)
    return norms


def outcome(defect: Tensor, spread: Tensor, size: Tensor, allowed: Tensor) -> Outcome:
    """Judge a difference by what rounding allows, and by how much the two sides differ.

    Parameters
    ----------
    defect, spread : Tensor, shape (n, C)
        Rows that are not finite are not judged.
    size, allowed : Tensor, shape (n,)
    """
    error, spreads = row_norms(defect), row_norms(spread)
    is_large = (error > allowed) & torch.isfinite(error) & torch.isfinite(spreads)
    is_same = spreads < 0.5 * error
    return Outcome(is_large & is_same, is_large & ~is_same, defect, size)


def directions(theta: Tensor, is_varied: Tensor, purpose: torch.Generator, count: int) -> Tensor:
    """Draw random directions (count, P) that change each parameter by its own size."""
    numbers = torch.randn(count, len(theta), generator=purpose, dtype=torch.float64).to(theta)
    size = theta.abs()
    scaled: Tensor = numbers * (is_varied * (size + (float(size.mean()) or 1.0)))
    return scaled

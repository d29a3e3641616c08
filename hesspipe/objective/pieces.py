"""Parts of the data that the checks of derivatives evaluate at once.

Where samples are independent, large batches are cut into pieces, so that the checks need no more
memory than the computations that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import part_of, take
from hesspipe.objective.flattening import differentiable, leaves
from hesspipe.objective.pytrees import Fields, join_outputs, join_whole, named_tensors
from hesspipe.objective.streaming import sizes_of
from hesspipe.seeding import generator

# Samples that the checks of derivatives evaluate at once, where samples are independent.
SAMPLES_AT_ONCE = 1024
# Random numbers of a direction before they recur: a prime, which no layer's shape divides.
_NUM_NUMBERS = 100_003
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
    samples : Tensor, optional
        Numbers of the samples in their batch, if they do not follow each other.
    unflatten : callable (theta) -> dict of Tensor, optional
        Splits theta into parameters, which the model takes as well.
    """

    model: Callable[[Any, Any], Any]
    loss: Callable[[Any], Tensor]
    inputs: Tensor | Fields
    has_rows: bool
    batch: int
    first: int = 0
    samples: Tensor | None = None
    unflatten: Callable[[Tensor], dict[str, Tensor]] | None = None

    def parts_of(self, theta: Tensor) -> list[Tensor]:
        """Split a vector (P,) into parameters; one alone if they are not known."""
        return [theta] if self.unflatten is None else list(self.unflatten(theta).values())

    def leaves(self, theta: Tensor) -> tuple[Any, list[Tensor]]:
        """Return theta as the model takes it, and the leaves of its graph."""
        if self.unflatten is None:
            point = differentiable(theta)
            return point, [point]
        parts = leaves(self.unflatten(theta))
        return parts, list(parts.values())

    def evaluate(self, theta: Tensor | dict[str, Tensor]) -> Evaluation:
        """Return the outputs as rows (n, C), and the loss as a function of such rows.

        Outputs that are no tensors are left out: the only row is then the loss.
        """
        return self.rows_of(self.model(theta, self.inputs))

    def rows_of(self, outputs: Any) -> Evaluation:
        """Return given outputs as rows (n, C), and the loss as a function of such rows."""
        if self.has_rows:
            rows, layout = join_outputs(outputs, len(self.inputs))
            return rows, lambda at: self.loss(layout.split(at))
        try:
            vector, whole = join_whole(outputs)
        except ValueError:
            return self.loss(outputs).reshape(1, 1), lambda at: at.sum()
        if whole.withheld:  # the loss may use them
            return self.loss(outputs).reshape(1, 1), lambda at: at.sum()
        return vector.reshape(1, -1), lambda at: self.loss(whole.split(at.reshape(-1)))

    def of_used_outputs(self, theta: Tensor) -> Piece:
        """Leave out the outputs that the loss does not use, such as states that are kept."""
        try:
            vector, whole = join_whole(self.model(theta.detach(), self.inputs))
        except ValueError:
            return self
        if whole.withheld or len(whole.shapes) == 1:
            return self
        outputs = whole.split(vector.detach().requires_grad_())
        slopes = torch.autograd.grad(self.loss(outputs), _tensors(outputs), allow_unused=True)
        is_used = [slope is not None for slope in slopes]
        if all(is_used):
            return self
        others = vector.detach().split([shape.numel() for shape in whole.shapes])

        def model(at: Any, inputs: Any) -> tuple[Tensor, ...]:
            return tuple(compress(_tensors(self.model(at, inputs)), is_used))

        def loss(used: Sequence[Tensor]) -> Tensor:
            given = iter(used)
            parts = [
                next(given).reshape(-1) if is_one else other
                for is_one, other in zip(is_used, others, strict=True)
            ]
            return self.loss(whole.split(torch.cat(parts)))

        return replace(self, model=model, loss=loss)

    def value(self, theta: Tensor) -> Tensor:
        """Evaluate the loss."""
        value: Tensor = self.loss(self.model(theta, self.inputs))
        return value

    def name(self, row: int) -> str:
        """Name a row, for messages."""
        number = self.first + row if self.samples is None else int(self.samples[row])
        sample = f"sample {number} of " if self.has_rows else ""
        return f"{sample}batch {self.batch}"


@dataclass(frozen=True)
class Division:
    """All the data, to be divided into pieces.

    Attributes
    ----------
    model : callable (theta, inputs) -> outputs
    loss : callable (outputs, targets) -> scalar Tensor
    batches : sequence of Batch
    has_rows : bool
        Whether the outputs have one row per sample.
    is_separable : bool
        Whether batches can be divided.
    unflatten : callable (theta) -> dict of Tensor, optional
        As for `Piece`.
    """

    model: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Tensor]
    batches: Sequence[Batch]
    has_rows: bool
    is_separable: bool
    unflatten: Callable[[Tensor], dict[str, Tensor]] | None = None

    @property
    def num_samples(self) -> int:
        """Number of samples of all batches."""
        return sum(sizes_of(self.batches))

    def all_pieces(self, numbers: Container[int] | None = None) -> Iterator[Piece]:
        """Iterate over pieces of all the data, or of batches with some numbers; none is large."""
        for batch in self.batches:
            if numbers is not None and batch.number not in numbers:
                continue
            if not self.is_separable:
                yield self._piece(batch, None)
                continue
            for start in range(0, batch.num_samples, SAMPLES_AT_ONCE):
                stop = min(start + SAMPLES_AT_ONCE, batch.num_samples)
                yield self._piece(batch, torch.arange(start, stop, device="cpu"))

    def subset(self, count: int, num_batches: int) -> tuple[list[Piece], bool]:
        """Draw samples from all the data, each with its batch's, or whole batches.

        Parameters
        ----------
        count : int
            Number of samples.
        num_batches : int
            Most batches that they are drawn from.

        Returns
        -------
        pieces : list of Piece
        is_all : bool
            Whether they are all the data.
        """
        sizes = sizes_of(self.batches)
        draw = generator(0, "samples of the checks")
        is_all = sum(sizes) <= count
        if is_all:
            return list(self.all_pieces()), True
        order = torch.randperm(len(sizes), generator=draw, device="cpu").tolist()
        chosen: dict[int, list[int]] = {}
        if self.is_separable:
            places = [(place, at) for place in order[:num_batches] for at in range(sizes[place])]
            for number in torch.randperm(len(places), generator=draw, device="cpu")[
                :count
            ].tolist():
                chosen.setdefault(places[number][0], []).append(places[number][1])
        else:
            for place in order:
                if not chosen or sum(sizes[other] for other in chosen) + sizes[place] <= count:
                    chosen[place] = []
        pieces = [
            self._piece(
                batch,
                torch.tensor(chosen[place], dtype=torch.int64, device="cpu")
                if self.is_separable
                else None,
            )
            for place, batch in enumerate(self.batches)
            if place in chosen
        ]
        return pieces, not self.is_separable and len(chosen) == len(sizes)

    def _piece(self, batch: Batch, index: Tensor | None) -> Piece:
        """Some samples of a batch; all of them are the batch itself."""
        inputs, targets = batch.inputs, batch.targets
        if index is not None and len(index) < batch.num_samples:
            inputs, targets = part_of(inputs, index), take(targets, index, batch.num_samples)
        return Piece(
            self.model,
            lambda outputs: batch.share * self.loss(outputs, targets),
            inputs,
            self.has_rows,
            batch.number,
            0 if index is None else int(index[0]),
            index,
            self.unflatten,
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


def _tensors(outputs: Any) -> list[Tensor]:
    return [tensor for _, tensor in named_tensors(outputs, "outputs")]


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms (n,) of rows (n, C), also where squares underflow or overflow."""
    plain: Tensor = torch.linalg.vector_norm(rows, dim=1)
    far = torch.finfo(rows.dtype).tiny ** 0.4
    if plain.numel():
        least, most = torch.aminmax(plain)
        if far < float(least) and float(most) < 1 / far:
            return plain
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


def random_directions(
    theta: Tensor, is_varied: Tensor, draw: torch.Generator, count: int
) -> Iterator[Tensor]:
    """Draw random directions (P,), one at a time, that change each parameter by its own size."""
    size = float(torch.linalg.vector_norm(theta, 1)) / max(1, len(theta)) or 1.0
    for numbers in random_numbers(theta, draw, count):
        # A part after the other: another vector of memory costs more than all of this.
        parts = (vector.split(_NUM_NUMBERS) for vector in (numbers, theta, is_varied))
        for part, at, may_change in zip(*parts, strict=True):
            part.mul_(at.abs().add_(size)).mul_(may_change)
        yield numbers


def random_numbers(theta: Tensor, draw: torch.Generator, count: int) -> Iterator[Tensor]:
    """Draw standard normal vectors (P,), in which numbers recur if they are very long."""
    period = min(len(theta), _NUM_NUMBERS)
    for _ in range(count):
        few = torch.randn(period, generator=draw, dtype=torch.float64, device="cpu").to(theta)
        if len(theta) > period:
            numbers = torch.empty_like(theta, requires_grad=False)
            for part in numbers.split(period):
                part.copy_(few[: len(part)])
            few = numbers
            del numbers  # or it would exist until the next one is drawn
        yield few

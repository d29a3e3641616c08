"""What each process has of the data, evaluated so that none waits for another one.

A parameter is gathered by all processes at once, so they evaluate equally many batches. One with
fewer evaluates its first again, and one without any a batch of another process, with a share of 0:
their terms of the loss and of its derivatives are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.distributed as dist

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.batches import Batch
from hesspipe.objective.determinism import (
    differing,
    refuse_changed_buffers,
    require_finite_evaluation,
)
from hesspipe.objective.explanations import explained
from hesspipe.objective.pytrees import Fields, named_tensors
from hesspipe.objective.reductions import Denominator, ReducedLoss
from hesspipe.objective.streaming import digest
from hesspipe.objective.weights import Layouts, evaluate, facts_of
from hesspipe.objective.whole_batches import WholeBatch
from hesspipe.objective.whole_losses import COUPLING
from hesspipe.ranks.ranks import Ranks
from hesspipe.sharded.jumps import refuse_jump_together
from hesspipe.sharded.model import ShardedModel
from hesspipe.sharded.same_function import require_same_function
from hesspipe.tolerances import rounding

# "parts": each process has another part of the data; "same": all of them have all the data.
DataOnRanks = Literal["parts", "same"]


@dataclass
class Shares:
    """The batches of this process, weighted, and what was found about the loss.

    Attributes
    ----------
    batches : list of Batch
        As many as in every other process.
    layouts : Layouts
    num_data : int
        Of all processes.
    coupling : str or None
        What couples the samples.
    """

    batches: list[Batch]
    layouts: Layouts
    num_data: int
    coupling: str | None


def require_meaning(batches: Sequence[Batch], on_ranks: DataOnRanks, ranks: Ranks) -> None:
    """Raise an error unless the processes have parts of the data, or the same, as they say.

    Raises
    ------
    ValueError
    """
    found: dict[Any, list[int]] = {}
    for rank, one in enumerate(ranks.gather(_digest(batches), "a digest of the data")):
        if one is not None:
            found.setdefault(one, []).append(rank)
    alike = next((numbers for numbers in found.values() if len(numbers) > 1), None)
    if on_ranks == "parts" and alike is not None:
        raise ValueError(
            "data_on_ranks must be 'same' if all processes have the same data, got 'parts' with "
            f"the same in ranks {', '.join(map(str, alike))}; give each process another part, e.g. "
            "by a DistributedSampler"
        )
    if on_ranks == "same" and (alike is None or len(alike) != ranks.size) and ranks.size > 1:
        raise ValueError(
            "data must be the same in every process for data_on_ranks='same', got different ones; "
            "pass data_on_ranks='parts' if each has another part"
        )


def weigh_together(
    model: ShardedModel,
    loss: ReducedLoss,
    batches: Sequence[Batch],
    on_ranks: DataOnRanks,
) -> Shares:
    """Evaluate all batches in all processes, and weight them by their shares of the loss.

    Parameters
    ----------
    model : ShardedModel
    loss : ReducedLoss
    batches : sequence of Batch
        Of this process, which may have none.
    on_ranks : {"parts", "same"}

    Returns
    -------
    Shares

    Raises
    ------
    ValueError
        If two evaluations differ, values are not finite, the loss jumps at the parameters, or its
        denominator is needed and not known.
    NotASumOverSamplesError
        If the loss over several batches is not that of its parts.
    """
    ranks = model.space.ranks
    counts = ranks.gather([len(batches), sum(map(len, map(_inputs, batches)))], "sizes of the data")
    num_data = counts[0][1] if on_ranks == "same" else sum(count for _, count in counts)
    if num_data == 0:
        raise ValueError("data must hold at least one sample, got none in any process")
    is_one = (counts[0][0] if on_ranks == "same" else sum(count for count, _ in counts)) == 1
    divide = None if is_one else loss.known_denominator()
    require_same_function(model, loss.loss_fn, given := _given(list(batches), ranks))
    present = list(batches) or [given]
    evaluation = _Evaluation(model, loss, divide)
    weights = []
    versions = {name: buffer._version for name, buffer in model.buffers.items()}
    for turn in range(max(1, *(count for count, _ in counts))):
        found = evaluation.look(present[turn if turn < len(batches) else 0])
        weights += [found] if turn < len(batches) else []
    refuse_changed_buffers(model.buffers, versions)
    is_sum, coupling = _examine(evaluation, present[0], is_alone=is_one)
    is_sum = is_sum or loss.is_sum
    _agree_on_outputs(evaluation.layouts, ranks)
    total = sum(weight for weight, _ in weights)
    totals = ranks.gather(total, "denominators")
    whole = totals[0] if on_ranks == "same" else sum(totals)
    if not whole > 0:
        raise ValueError(f"the loss's denominator must be positive, got {whole} over all data")
    copies = ranks.size if on_ranks == "same" else 1
    usable = [
        replace(batch, **facts, share=(1.0 if is_sum else weight / whole) / copies)
        for batch, (weight, facts) in zip(batches, weights, strict=True)
        if weight > 0
    ]
    longest = max(ranks.gather(len(usable), "numbers of batches"))
    spare = replace(_filled(list(usable), ranks)[0], share=0.0)
    usable += [spare] * (longest - len(usable))
    return Shares(usable, evaluation.layouts, num_data, coupling)


@dataclass
class _Evaluation:
    """Evaluates batches twice each, and beside theta, whatever they are, as all processes must."""

    model: ShardedModel
    loss: ReducedLoss
    divide: Denominator | None
    layouts: Layouts = field(default_factory=Layouts)

    def look(self, batch: Batch) -> tuple[float, dict[str, Any]]:
        """Evaluate a batch, and refuse jumps of all processes."""
        weight, facts = self.evaluate(batch)
        refuse_jump_together(self.model, self.loss.loss_fn, batch, facts)
        return weight, facts

    def evaluate(self, batch: Batch) -> tuple[float, dict[str, Any]]:
        """Return the denominator of a batch, and what is recorded of it."""
        model, number = self.model, batch.number
        with explained(batch, number, model.dtype):
            outputs = model(model.theta, batch.inputs)
            weight = self.weight_of(outputs, batch)
            loss = self.loss.loss_fn(outputs, batch.targets)
            again = evaluate(model, self.loss.loss_fn, model.theta, batch)
        if not weight >= 0:
            raise ValueError(f"denominator must be positive, got {weight} in batch {number}")
        if weight == 0:  # no valid label: the loss is 0 / 0
            return 0.0, {}
        require_finite_evaluation(outputs, loss, model.buffers, number)
        name = differing((outputs, loss), again, model.dtype)
        if name is not None:
            raise ValueError(
                f"model and loss_fn must be deterministic, got {name} that differs between two "
                f"evaluations of batch {number}; call model.eval(), or make it depend on "
                "`self.training`"
            )
        layout = self.layouts.record(outputs, batch.num_samples)
        return weight, facts_of(outputs, loss, layout, model.dtype)

    def weight_of(self, outputs: Any, batch: Batch) -> float:
        return 1.0 if self.divide is None else float(self.divide(outputs, batch.targets))


def _examine(evaluation: _Evaluation, batch: Batch, *, is_alone: bool) -> tuple[bool, str | None]:
    """Compare a batch with its halves: whether the loss is a sum, and what couples samples.

    Of one sample, both halves are the whole: all processes make equally many evaluations.
    """
    model, ranks = evaluation.model, evaluation.model.space.ranks
    if isinstance(batch.inputs, WholeBatch):
        return False, COUPLING
    count = batch.num_samples
    bounds = [(0, count // 2), (count // 2, count)] if count > 1 else [(0, 1), (0, 1)]
    halves = [batch.rows(slice(*bound)) for bound in bounds]
    with explained(batch, batch.number, model.dtype):
        whole, *parts = (
            (outputs, float(value.detach()), evaluation.weight_of(outputs, part))
            for part in (batch, *halves)
            for outputs, value in [evaluate(model, evaluation.loss.loss_fn, model.theta, part)]
        )
    is_known = count > 1 and min(weight for _, _, weight in (whole, *parts)) > 0
    added = [weight * value for _, value, weight in (whole, *parts)]
    size = max(map(abs, added))
    is_additive = not is_known or abs(added[0] - added[1] - added[2]) <= rounding(size, model.dtype)
    is_constant = is_known and len({weight for _, _, weight in (whole, *parts)}) == 1
    is_coupled = count > 1 and not _are_rows(whole[0], [outputs for outputs, _, _ in parts])
    facts = ranks.gather([is_known, is_additive, is_constant, is_coupled], "what couples samples")
    if any(one[3] for one in facts):
        return False, "outputs for a sample depend on the other samples of its batch"
    known = [one for one in facts if one[0]]
    if is_alone:
        return False, None
    if not all(one[1] for one in known):
        raise NotASumOverSamplesError(
            "loss_fn must be a sum over samples divided by the denominator, to be added over "
            "batches and processes, got one that is not that of its parts"
        )
    return bool(known) and all(one[2] for one in known), None


def _are_rows(whole: Any, halves: list[Any]) -> bool:
    """Whether outputs are those of the halves, one after the other."""
    for (_, one), *others in zip(
        *(list(named_tensors(outputs, "")) for outputs in (whole, *halves)), strict=True
    ):
        parts = [part for _, part in others]
        if not one.ndim or len(one) != sum(len(part) if part.ndim else 0 for part in parts):
            return True  # no rows, of which `Layouts` says the reason
        joined = torch.cat(parts)
        scale = float(one.detach().abs().max()) if one.numel() else 0.0
        if not torch.allclose(joined, one, rtol=0.0, atol=rounding(scale, one.dtype)):
            return False
    return True


def _filled(batches: list[Batch], ranks: Ranks) -> list[Batch]:
    """Give a process without batches one of another process."""
    if all(ranks.gather(len(batches), "numbers of batches")):
        return batches
    given = _given(batches, ranks)  # by all processes
    return batches or [given]


def _given(batches: list[Batch], ranks: Ranks) -> Batch:
    """Return the first batch of the first process that has one, in all processes."""
    counts = ranks.gather(len(batches), "numbers of batches")
    giver = next((rank for rank, count in enumerate(counts) if count), None)
    if giver is None:
        raise ValueError("the loss's denominator must be positive, got 0 over all data")
    holder: list[Any] = [batches[0] if ranks.rank == giver else None]
    source = dist.get_global_rank(ranks.group, giver)
    dist.broadcast_object_list(holder, source, group=ranks.group)
    found: Batch = holder[0]
    return found


def _agree_on_outputs(layouts: Layouts, ranks: Ranks) -> None:
    """Let all processes say why there are no rows or no outputs, if one has a reason."""
    own = [layouts.reason_without_rows, layouts.reason_without_outputs]
    found = ranks.gather(own, "kinds of outputs")
    layouts.reason_without_rows, layouts.reason_without_outputs = (
        next((reason for reason in reasons if reason), None) for reasons in zip(*found, strict=True)
    )


def _inputs(batch: Batch) -> Any:
    return batch.inputs


def _digest(batches: Sequence[Batch]) -> str | None:
    """Digest the values of a process's data; None without data."""
    if not batches:
        return None
    values = [_values(batch) for batch in batches]
    return digest(values).hex()


def _values(batch: Batch) -> Any:
    """What a batch holds, as something that can be digested."""
    if isinstance(batch.inputs, WholeBatch):
        return batch.inputs
    inputs = batch.inputs.values if isinstance(batch.inputs, Fields) else batch.inputs
    return inputs, batch.targets

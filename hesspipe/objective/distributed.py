"""Objectives whose data are distributed over processes, through `torch.distributed`.

The loss over all the data is a mean with one denominator (samples, class weights, valid labels):
the weight of a part is its denominator divided by the sum over processes, not one over the number
of processes. A process may have no data, or no valid label, and has then the weight zero. A product
is a sum over processes.

Whatever decides the numbers is compared between processes before anything is computed.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.common_samples import require_same_function
from hesspipe.objective.descriptions import (
    code_of_package,
    described,
    described_layers,
    numbers_digest,
    text_digest,
)
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.streaming import StreamedBatches, mapped, sizes_of
from hesspipe.ranks.orders import Term
from hesspipe.ranks.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from hesspipe.objective.batches import Batch
    from hesspipe.objective.objective import Objective

# A count that batch normalization has, which no evaluation uses.
_UNUSED = "num_batches_tracked"


@dataclass(frozen=True)
class Part:
    """What a process knows of its part of the loss.

    Attributes
    ----------
    num_data : int
        Samples of this process.
    is_sum : bool
        Whether losses are added, and not averaged.
    is_certain : bool
        Whether that is known, and not only not excluded by single samples.
    coupling, reason_without_rows, reason_without_outputs : str or None
        See `Objective`.
    values : list of float
        The losses on the batches.
    """

    num_data: int
    is_sum: bool
    is_certain: bool
    coupling: str | None
    reason_without_rows: str | None
    reason_without_outputs: str | None
    values: list[float | None]

    @classmethod
    def of(cls, objective: Objective) -> Part:
        """Describe the part of this process."""
        sizes = sizes_of(objective.batches)
        is_streamed = isinstance(objective.batches, StreamedBatches)
        return cls(
            objective.num_data,
            objective._reduced.is_sum,
            objective._is_reduction_known or max(sizes, default=0) > 1,
            objective.coupling,
            objective._reason_without_rows,
            objective._reason_without_outputs,
            [None] if is_streamed else [batch.value for batch in objective.batches],
        )

    def joined(self, ranks: Ranks) -> Part:
        """Return what all processes together know.

        Raises
        ------
        RankError
            If there are no data, or some have a sum and others a mean.
        """
        parts = [Part(**one) for one in ranks.gather(vars(self), "what is known of the parts")]
        with ranks.raise_together("the comparison of parts"):
            if not any(part.num_data for part in parts):
                raise ValueError("data must hold at least one sample in a process, got none in all")
        kinds = {rank: part.is_sum for rank, part in enumerate(parts) if part.is_certain}
        if len(set(kinds.values())) > 1:
            names = {rank: "a sum" if kind else "a mean" for rank, kind in kinds.items()}
            ranks.agree_on({"the reduction of loss_fn": names.get(ranks.rank, "unknown")})
        _warn_of_equal_parts(parts)
        return Part(
            num_data=sum(part.num_data for part in parts),
            is_sum=any(part.is_sum for part in parts),
            is_certain=True,
            coupling=_first(part.coupling for part in parts),
            reason_without_rows=_first(part.reason_without_rows for part in parts),
            reason_without_outputs=_first(part.reason_without_outputs for part in parts),
            values=[],
        )


def together(ranks: Ranks | None, what: str) -> AbstractContextManager[None]:
    """Raise errors of a block in all processes, if there are several."""
    return nullcontext() if ranks is None else ranks.raise_together(what)


def telling(ranks: Ranks | None, what: str) -> AbstractContextManager[None]:
    """Tell errors of a block to all processes, if there are several and none leads the others."""
    return nullcontext() if ranks is None or ranks.orders is not None else ranks.tell_errors(what)


def ranks_of(process_group: ProcessGroup | None) -> Ranks | None:
    """Return the processes of a group, if there is one."""
    return None if process_group is None else Ranks(process_group)


def require_same_model(objective: Objective, flat: FlatModel, **functions: Any) -> None:
    """Compare model, parameters and settings between processes, before anything is computed.

    Parameters
    ----------
    objective : Objective
        Without data; nothing is compared in one process.
    flat : FlatModel
    **functions
        By name, compared by their code and what they hold.

    Raises
    ------
    RankError
        Also a ValueError, in every process: the names that differ, with values and ranks.
    """
    ranks = objective.ranks
    if ranks is None:
        return
    settings = {"dtype": objective.dtype, "weight_decay": objective.weight_decay, **functions}
    require_same_settings(flat.names, flat.shapes, settings, ranks)
    values = {f"the values of {name}": numbers_digest(part) for name, part in _parameters(flat)}
    ranks.agree_on({"num_parameters": len(flat.theta), **values})
    require_same_structure(flat, ranks)


def require_same_structure(flat: FlatModel, ranks: Ranks) -> None:
    """Compare the layers of a model and its buffers between processes."""
    buffers = {
        f"the values of {name}": numbers_digest(value)
        for name, value in flat.buffers.items()
        if not name.endswith(_UNUSED)
    }
    ranks.agree_on({**buffers, **dict(described_layers(flat.structure))})


def require_same_settings(
    names: list[str], shapes: list[torch.Size], settings: Mapping[str, Any], ranks: Ranks
) -> None:
    """Compare versions, settings and the order of parameters between processes."""
    # Imported by name, the package would hide from the workflow what this module depends on.
    version = sys.modules["hesspipe"].__version__
    settled: dict[str, Any] = {
        "hesspipe's version": version,
        "hesspipe's code": code_of_package(),
        "torch": torch.__version__,
    }
    for name, value in settings.items():
        settled |= dict(described(name, value))
    for name, shape in zip(names, shapes, strict=True):
        settled[f"the shape of {name}"] = tuple(shape)
    ranks.agree_on({**settled, "the order of parameters": text_digest(names)})


def part_of_whole(objective: Objective, process_group: ProcessGroup) -> Objective:
    """Weight the objective of a process as its part of the loss over all the data.

    Parameters
    ----------
    objective : Objective
        With the data of this process; model, parameters and weight decay are the same in all.
    process_group : ProcessGroup
        Initialized by the caller.

    Returns
    -------
    Objective
        With `num_data` over all processes, and shares that add up to 1 over them.

    Raises
    ------
    RankError
        In every process, if something differs between them, or one has failed.
    """
    ranks = Ranks(process_group)
    with ranks.raise_together("adding up the parts of an objective"):
        settings = {"dtype": objective.dtype, "loss_fn": objective.loss_fn}
        require_same_settings(objective.names, objective.shapes, settings, ranks)
        own = {name: numbers_digest(part) for name, part in _named_theta(objective)}
        every = ranks.gather({**own, "weight_decay": repr(objective.weight_decay)}, "parameters")
        if other := [name for name in every[0] if len({one[name] for one in every}) > 1]:
            raise ValueError(
                "objective must have the same parameters and weight decay in every process, got "
                f"different {', '.join(other)}; load the same state dict in all of them, or "
                "broadcast it"
            )
        return joined(objective, ranks)


def become_part(objective: Objective) -> None:
    """Weight an objective that is being built as a part, if it is built in several processes."""
    if objective.ranks is not None:
        vars(objective).update(vars(joined(objective, objective.ranks)))


def _named_theta(objective: Objective) -> Iterator[tuple[str, Tensor]]:
    yield from objective.unflatten(objective.theta.detach()).items()


def joined(objective: Objective, ranks: Ranks) -> Objective:
    """Copy an objective as a part of one whose other parts other processes have.

    Parameters
    ----------
    objective : Objective
        With the data of this process.
    ranks : Ranks
        All of them call this function.

    Returns
    -------
    Objective
        With `num_data` of the whole, and shares of its denominator.

    Raises
    ------
    RankError
        If the parts cannot be added.
    """
    whole = Part.of(objective).joined(ranks)
    padded = ranks.gather(objective._flat.names_with_padding, "rows of padding")
    objective._flat.let_padding_vary(
        {name for one in padded for name in one if not all(name in other for other in padded)}
    )
    part = copy.copy(objective)
    part.ranks, part.num_data, part.coupling = ranks, whole.num_data, whole.coupling
    part._reason_without_outputs = whole.reason_without_outputs
    if not len(part.batches):
        part._reason_without_rows = whole.reason_without_rows
    part._reduced = replace(objective._reduced, is_sum=whole.is_sum)
    with ranks.raise_together("the denominators of the parts"):
        denominator = part.total_denominator()
    factor = factor_of(denominator, ranks)

    def weighted(batch: Batch) -> Batch:
        return replace(batch, share=1.0 if whole.is_sum else factor * batch.share)

    part.batches = mapped(weighted, objective.batches)
    require_same_function(objective, ranks)
    return part


def term_of(objective: Objective) -> Term:
    """Return what this process adds to the loss over all processes."""
    return Term(objective.loss_of_part, is_scalar=True)


def summed_loss(objective: Objective, theta: Tensor) -> Tensor:
    """Add up the loss over the processes, without weight decay and without a gradient."""
    ranks = objective.ranks
    assert ranks is not None
    with telling(ranks, "a loss"):
        if torch.is_grad_enabled() and theta.requires_grad:
            raise ValueError(
                "theta must not require a gradient for a loss over several processes, got one that "
                "does; evaluate the loss under torch.no_grad()"
            )
        return ranks.sum_of(term_of(objective), theta, "a loss")


def factor_of(denominator: float | None, ranks: Ranks) -> float:
    """Return the share of a process in the whole; 1 for a sum.

    Raises
    ------
    RankError
        If no process has a sample with a weight.
    """
    every = ranks.gather(denominator, "the denominators")
    if denominator is None:
        return 1.0
    total = sum(every)
    with ranks.raise_together("the comparison of denominators"):
        if not total > 0:
            raise ValueError(
                f"the loss's denominator must be positive, got {total} over all data of all "
                "processes"
            )
    return float(denominator / total)


def denominator_of_part(objective: Objective) -> float | None:
    """Compute what the loss divides by over the data of this process; None for a sum."""
    divide = objective._reduced.known_denominator()
    if divide is None:
        return None
    if objective._is_unlike_parts and len(objective.batches):
        raise NotASumOverSamplesError(
            "loss_fn must be a sum over samples divided by the denominator, to be added over "
            "processes, got one that is not that of its parts"
        )
    total = 0.0
    for batch in objective.batches:
        outputs = objective._flat(objective.theta, batch.inputs)
        total += float(divide(outputs, batch.targets))
    return total


def _first(reasons: Iterator[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _warn_of_equal_parts(parts: list[Part]) -> None:
    """Warn of processes that have equal losses on equal numbers of samples."""
    seen: dict[tuple[Any, ...], int] = {}
    for rank, part in enumerate(parts):
        key = (part.num_data, *part.values)
        if part.num_data and None not in key and key in seen:
            warnings.warn(
                f"ranks {seen[key]} and {rank} seem to have the same data: {part.num_data} samples "
                "with equal losses; each sample counts once for every rank that has it",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        seen.setdefault(key, rank)


def _parameters(flat: FlatModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters by name, also those that are constant."""
    yield from flat.unflatten(flat.theta.detach()).items()
    for name, value in flat.structure.named_parameters():
        if name not in flat.names:
            yield name, value.detach()

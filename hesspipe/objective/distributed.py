"""Objectives whose data are distributed over processes, through `torch.distributed`.

The loss over all the data is a mean with one denominator (samples, class weights, valid labels):
the weight of a part is its denominator divided by the sum over processes, not one over the number
of processes. A process may have no data, or no valid label, and has then the weight zero. A product
is a sum over processes.

Whatever decides the numbers is compared between processes before anything is computed.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.streaming import digest
from hesspipe.ranks.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from hesspipe.objective.objective import Objective

# A count that batch normalization has, which no evaluation uses.
_UNUSED = "num_batches_tracked"
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype)
_DEEPEST = 6


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


def require_same_model(flat: FlatModel, settings: Mapping[str, Any], ranks: Ranks) -> None:
    """Compare model, parameters and settings between processes, before anything is computed.

    Parameters
    ----------
    flat : FlatModel
    settings : mapping
        By name; functions and losses are compared by their code and what they hold.
    ranks : Ranks

    Raises
    ------
    RankError
        Also a ValueError, in every process: the names that differ, with values and ranks.
    """
    _require_same_settings(flat.names, flat.shapes, settings, ranks)
    values = {f"the values of {name}": _of_numbers(part) for name, part in _tensors(flat)}
    ranks.agree_on({"num_parameters": len(flat.theta), **values})


def _require_same_settings(
    names: list[str], shapes: list[torch.Size], settings: Mapping[str, Any], ranks: Ranks
) -> None:
    # Imported by name, the package would hide from the workflow what this module depends on.
    version = sys.modules["hesspipe"].__version__
    described: dict[str, Any] = {"hesspipe's version": version, "torch": torch.__version__}
    for name, value in settings.items():
        described |= dict(_described(name, value))
    for name, shape in zip(names, shapes, strict=True):
        described[f"the shape of {name}"] = tuple(shape)
    ranks.agree_on({**described, "the order of parameters": _hash(names)})


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
        _require_same_settings(objective.names, objective.shapes, settings, ranks)
        own = {name: _of_numbers(part) for name, part in objective.named_theta().items()}
        every = ranks.gather({**own, "weight_decay": repr(objective.weight_decay)}, "parameters")
        if other := [name for name in every[0] if len({one[name] for one in every}) > 1]:
            raise ValueError(
                "objective must have the same parameters and weight decay in every process, got "
                f"different {', '.join(other)}; load the same state dict in all of them, or "
                "broadcast it"
            )
        return objective.joined(ranks)


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


def require_additive(objective: Objective, is_unlike_parts: bool) -> None:
    """Raise an error if losses of processes cannot be added."""
    if is_unlike_parts and len(objective.batches):
        raise NotASumOverSamplesError(
            "loss_fn must be a sum over samples divided by the denominator, to be added over "
            "processes, got one that is not that of its parts"
        )


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


def _tensors(flat: FlatModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, by name."""
    yield from flat.unflatten(flat.theta.detach()).items()
    for name, value in flat.structure.named_parameters():
        if name not in flat.names:
            yield name, value.detach()
    for name, value in flat.buffers.items():
        if not name.endswith(_UNUSED):
            yield name, value


def _of_numbers(tensor: Tensor) -> str:
    return digest(tensor).hex()[:16]


def _hash(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


def _described(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Describe a function, or whatever else decides the numbers, by what it holds."""
    if isinstance(value, _PLAIN):
        yield name, repr(value)
    elif isinstance(value, (Tensor, np.ndarray)):
        yield name, f"numbers of shape {tuple(value.shape)}, {digest(value).hex()[:16]}"
    elif depth >= _DEEPEST:
        yield name, type(value).__qualname__
    else:
        yield name, _name_of(value)
        for part, held in _held(value):
            yield from _described(f"{name}.{part}", held, depth + 1)


def _name_of(value: Any) -> str:
    if isinstance(value, FunctionType):
        return f"{value.__qualname__} ({_hash(list(_code(value.__code__)))})"
    if isinstance(value, (type, Callable)) and hasattr(value, "__qualname__"):  # type: ignore[arg-type]
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__qualname__


def _code(code: CodeType) -> Iterator[Any]:
    """What a function does, without where its source is."""
    yield code.co_code
    yield code.co_names
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, CodeType) else [repr(constant)]


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """What functions, modules, containers and other objects hold, by name."""
    if isinstance(value, partial):
        yield "func", value.func
        yield from ((str(place), held) for place, held in enumerate(value.args))
        yield from value.keywords.items()
    elif isinstance(value, MethodType):
        yield "self", value.__self__
    elif isinstance(value, FunctionType):
        yield from _held_by_function(value)
    elif isinstance(value, nn.Module):
        yield from value.named_parameters()
        yield from value.named_buffers()
        yield from _attributes(value)
        yield from value.named_children()
    elif isinstance(value, Mapping):
        yield from ((str(key), held) for key, held in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((str(place), held) for place, held in enumerate(value))
    elif not isinstance(value, type):
        yield from _attributes(value)


def _held_by_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    yield from enumerate_defaults(function)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet set
            continue
    for name in function.__code__.co_names:
        held = function.__globals__.get(name)
        if name in function.__globals__ and isinstance(held, (*_PLAIN, Tensor)):
            yield name, held


def enumerate_defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the values of arguments that have one."""
    yield from (
        (f"default {place}", held) for place, held in enumerate(function.__defaults__ or ())
    )
    yield from (function.__kwdefaults__ or {}).items()


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Public attributes that are plain values or tensors."""
    for name, held in getattr(value, "__dict__", {}).items():
        if not name.startswith("_") and isinstance(
            held, (*_PLAIN, Tensor, np.ndarray, list, tuple)
        ):
            yield name, held

"""Batches of any type, which are neither sliced nor joined: `WholeBatch`, `read_whole_batches`.

Dictionaries, dataclasses, graphs and other objects are copied as pickle copies them, which the
workers of every DataLoader do too, apart from their tensors and arrays: these are converted to the
dtype and the device of the objective. Each evaluation gets a copy of its own, because losses take
entries out of dictionaries and work in place.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hesspipe.hardware import is_exhaustion, require
from hesspipe.objective.batches import Batch
from hesspipe.objective.copies import Copier
from hesspipe.objective.data_forms import batches_of
from hesspipe.objective.pytrees import cast
from hesspipe.objective.streaming import StreamedBatches, require_iterable_again

# A number of each batch: a function of the batch, or the name of an attribute or key.
BatchNumber: TypeAlias = Callable[[Any], Any] | str
# Shared by all copies, because they are no data.
_SHARED = (type, ModuleType, BuiltinFunctionType, Dataset, DataLoader)
# Copied together with the model, of which they may be a part.
_OF_THE_MODEL = (nn.Module, FunctionType, MethodType, partial)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)


class WholeBatch:
    """A batch of any type, of which `copy` makes equal ones.

    Parameters
    ----------
    value : Any
        The batch of the caller, which is not changed.
    copier : Copier
        Of the model. Parameters of the model in a batch are those of its copy.

    Attributes
    ----------
    num_samples : int
        Set by the reader; 1 where it is not known.
    num_bytes : int
        Of the converted tensors and arrays.
    """

    def __init__(self, value: Any, copier: Copier) -> None:
        self.num_samples = 1
        self._kind = type(value).__name__
        packer = _Packer(copier)
        self._skeleton, self._parts = packer.packed(value), packer.parts
        tensors = [part for part in self._parts if isinstance(part, (Tensor, np.ndarray))]
        self.has_strided_nested = any(
            isinstance(tensor, Tensor) and tensor.is_nested and tensor.layout == torch.strided
            for tensor in tensors
        )
        self.num_bytes = sum(_num_bytes(tensor) for tensor in tensors)
        self._described = [
            f"{_shape(tensor)} of {str(tensor.dtype).removeprefix('torch.')}" for tensor in tensors
        ]

    def __len__(self) -> int:
        return self.num_samples

    def __str__(self) -> str:
        tensors = ", ".join(self._described)
        return f"{self._kind} with {tensors}" if tensors else self._kind

    def digest_parts(self) -> list[Any]:
        """Return what decides its value, for a digest."""
        return [self._skeleton, *self._parts]

    def copy(self) -> Any:
        """Return a new copy of the batch, whose tensors are leaves of the graph."""
        unpickler = pickle.Unpickler(io.BytesIO(self._skeleton))
        unpickler.persistent_load = self._part  # type: ignore[method-assign]
        return unpickler.load()

    def _part(self, index: int) -> Any:
        part = self._parts[index]
        if isinstance(part, np.ndarray):
            return part.copy()
        if not isinstance(part, Tensor) or isinstance(part, nn.Parameter):
            return part
        return part.detach().clone().requires_grad_(part.requires_grad)


class _Packer(pickle.Pickler):
    """Pickles a batch without its tensors, and without what cannot be pickled."""

    def __init__(self, copier: Copier) -> None:
        self._stream = io.BytesIO()
        super().__init__(self._stream, pickle.HIGHEST_PROTOCOL)
        self._copier = copier
        self.parts: list[Any] = []
        self._places: dict[int, int] = {}
        self._kept: list[Any] = []

    def packed(self, value: Any) -> bytes:
        """Pickle a batch; `parts` are what is left out."""
        self.dump(value)
        return self._stream.getvalue()

    def persistent_id(self, value: Any) -> int | None:
        """Number what is left out; None for what is pickled."""
        if type(value) in _PLAIN:
            return None
        if id(value) not in self._places:
            part = self._part(value)
            if part is None:
                return None
            self._places[id(value)] = len(self.parts)
            self.parts.append(part)
            self._kept.append(value)
        return self._places[id(value)]

    def _part(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if type(value) is np.ndarray and value.dtype.kind in "fc":
            dtype = self._copier.dtype
            kind = dtype if value.dtype.kind == "f" else dtype.to_complex()
            return value.astype(torch.empty(0, dtype=kind, device="cpu").numpy().dtype)
        if isinstance(value, _OF_THE_MODEL):
            return self._copier.copy(value)
        if isinstance(value, _SHARED) or not _can_be_pickled(value):
            return value
        return None

    def _tensor(self, tensor: Tensor) -> Tensor:
        if self._copier.has_copy(tensor):  # of a parameter or buffer of the model
            found: Tensor = self._copier.copy(tensor)
            return found
        copy = cast(tensor.detach(), self._copier.dtype, self._copier.device)
        is_number = copy.is_floating_point() or copy.is_complex()
        return copy.requires_grad_(tensor.requires_grad and is_number)


def _can_be_pickled(value: Any) -> bool:
    try:
        return not isinstance(value.__reduce_ex__(pickle.HIGHEST_PROTOCOL), str)
    except Exception:  # whatever the class raises: locks, generators, open files
        return False


def _shape(tensor: Any) -> tuple[int, ...] | str:
    return "nested" if isinstance(tensor, Tensor) and tensor.is_nested else tuple(tensor.shape)


def _num_bytes(tensor: Any) -> int:
    """Return the memory of an array, or of the entries of a tensor that is not dense."""
    if isinstance(tensor, Tensor) and tensor.layout != torch.strided:
        return 0 if tensor.is_nested else tensor._nnz() * (tensor.itemsize + 8 * tensor.ndim)
    return int(tensor.nbytes)


def read_whole_batches(
    batches: Any,
    copier: Copier,
    num_samples: BatchNumber | None,
    *,
    is_streamed: bool = False,
    may_be_empty: bool = False,
) -> Sequence[Batch]:
    """Read all batches, once, and copy them, or prepare to read them at every pass.

    Parameters
    ----------
    batches : iterable
        List, generator, DataLoader or another object that iterates over batches of any type.
    copier : Copier
        Of the model.
    num_samples : callable (batch) -> int, or str, optional
        A function, or the name of an attribute or key.
    is_streamed : bool
        Whether each pass reads the batches again, and compares them with those of the first.
    may_be_empty : bool
        Whether there may be no sample: other processes have some.

    Returns
    -------
    sequence of Batch
        Inputs and targets are the same `WholeBatch`.

    Raises
    ------
    ValueError
        If `batches` is a single batch, or there is none.
    TooLargeError
        If the data do not fit into memory.
    """
    iterate = partial(_packed, _iterated(batches), copier)
    convert = partial(_as_batch, copier, num_samples)
    if is_streamed:
        require_iterable_again(batches)
        found: Sequence[Batch] = StreamedBatches(iterate, convert)
    else:
        found = [convert(batch, number, True) for number, batch in enumerate(iterate())]
    if not (found or may_be_empty):
        raise ValueError(
            "batches must hold at least one batch, got none; an iterator can be read only once"
        )
    return found


def _packed(batches: Iterable[Any], copier: Copier) -> Iterator[WholeBatch]:
    for number, value in enumerate(batches_of(batches)):
        try:
            batch = WholeBatch(value, copier)
        except Exception as error:
            if is_exhaustion(error):
                raise
            raise ValueError(
                f"each batch must be an object that pickle can copy, got {type(value).__name__} "
                f"as batch {number} ({type(error).__name__}: {error}); pass its tensors in a "
                "dictionary, a tuple or a dataclass"
            ) from error
        if batch.has_strided_nested:
            raise ValueError(
                "each batch must hold dense tensors, or nested ones of layout torch.jagged, got "
                f"one of layout torch.strided in batch {number}; pass "
                "torch.nested.nested_tensor(rows, layout=torch.jagged)"
            )
        yield batch


def _as_batch(
    copier: Copier,
    num_samples: BatchNumber | None,
    batch: WholeBatch,
    number: int,
    is_checked: bool,
) -> Batch:
    if is_checked:
        require(
            batch.num_bytes,
            f"a batch like batch {number} of the data",
            "use fewer samples, dtype=torch.float32 or a machine with more memory",
            device=copier.device,
        )
    if num_samples is not None:
        batch.num_samples = _num_samples(num_samples, batch, number)
    return Batch(batch, batch, 1.0, number=number)


def _iterated(batches: Any) -> Iterable[Any]:
    """Refuse what is a single batch, or samples."""
    if isinstance(batches, Dataset) and not isinstance(batches, DataLoader):
        raise ValueError(
            f"batches must be an iterable of batches, got {type(batches).__name__}, which holds "
            "samples; pass DataLoader(dataset, batch_size=...)"
        )
    is_one = (
        isinstance(batches, (tuple, Mapping, Tensor, np.ndarray, str, bytes, nn.Module, type))
        or dataclasses.is_dataclass(batches)
        or hasattr(batches, "to")
        or not isinstance(batches, (Iterable, Iterator))
    )
    if is_one:
        raise ValueError(
            f"batches must be an iterable of batches, got {type(batches).__name__}; write a "
            "single batch as the list [batch]"
        )
    return batches  # type: ignore[no-any-return]


def number_of(batch: WholeBatch, what: BatchNumber, name: str) -> float:
    """Compute a number of a batch by a function, an attribute or a key.

    Parameters
    ----------
    batch : WholeBatch
    what : callable (batch) -> number, or str
    name : str
        Name of the argument, for messages.

    Raises
    ------
    ValueError
        If the batch has no such attribute or key, or it is no number.
    """
    value = batch.copy()
    try:
        found = _entry(value, what, name) if isinstance(what, str) else what(value)
    except (LookupError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{name} must be a function of every batch, got {type(error).__name__} ({error}) for "
            f"{batch}; batches may have different keys, but all need those that it uses"
        ) from error
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a number for each batch, got {type(found).__name__}; pass a function "
            "of the batch, e.g. lambda batch: len(batch['labels'])"
        ) from error


def _entry(value: Any, name: str, argument: str) -> Any:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if hasattr(value, name):
        return getattr(value, name)
    raise ValueError(
        f"{argument} must be a function of the batch, or the name of one of its attributes or "
        f"keys, got {name!r}, which {type(value).__name__} does not have"
    )


def _num_samples(what: BatchNumber, batch: WholeBatch, number: int) -> int:
    found = number_of(batch, what, "num_samples")
    if not (found >= 0 and found == int(found)):
        raise ValueError(f"num_samples must be a count, got {found} for batch {number}")
    return int(found)

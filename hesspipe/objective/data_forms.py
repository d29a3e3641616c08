"""The forms in which data can be given, each of which is read in exactly one way.

A tuple is one batch; any other iterable holds batches; a dataset of torch holds samples. Nothing is
guessed from the number of parts or their types, because a guess that is wrong drops data silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, default_collate

from hesspipe.errors import HesspipeError
from hesspipe.hardware import is_exhaustion
from hesspipe.objective.pytrees import map_leaves, named_tensors

# Samples of a dataset that are collated to one batch.
_SAMPLES_PER_BATCH = 1000
_HOW_TO_WRITE = (
    "write one batch as the tuple (inputs, targets), and several as a list, a generator or a "
    "DataLoader of such pairs; for batches of any other type use "
    "Objective.from_batches(model, loss, batches) with loss(model, batch)"
)


def iterate_batches(data: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the batches of data.

    Parameters
    ----------
    data : tuple, iterable or Dataset
        See `hesspipe.objective.batches.read_batches`.

    Yields
    ------
    inputs, targets : Tensor, or nested dictionaries, tuples and lists of tensors
        Arrays are converted.

    Raises
    ------
    ValueError
        If data or a batch have another form.
    """
    if isinstance(data, tuple):
        _refuse_two_batches(data)
        batches: Iterable[Any] = [data]
    elif _is_dataset(data):
        batches = DataLoader(
            data, _SAMPLES_PER_BATCH, collate_fn=_collated, generator=torch.Generator()
        )
    elif isinstance(data, (Tensor, np.ndarray, Mapping, str, bytes, nn.Module)) or not hasattr(
        data, "__iter__"
    ):
        raise ValueError(
            f"data must be pairs of inputs and targets, got {_described(data)}; {_HOW_TO_WRITE}"
        )
    else:
        batches = data
    for number, batch in enumerate(batches_of(batches)):
        inputs, targets = _pair(batch, number)
        yield as_tensors(inputs, "inputs"), as_tensors(targets, "targets")


def batches_of(data: Iterable[Any]) -> Iterator[Any]:
    """Iterate over an object of the caller, and say at which batch it fails.

    torch draws the seeds of a DataLoader on its default device, for which a generator on the CPU is
    refused: until then it is the CPU.

    Raises
    ------
    ValueError
        If the object raises another error than a ValueError or one of the system.
    """
    number = 0
    try:
        with torch.device("cpu") if isinstance(data, DataLoader) else nullcontext():
            iterator = iter(data)
        for batch in iterator:
            yield batch
            number += 1
    except GeneratorExit:
        raise
    except (HesspipeError, ValueError, OSError):
        raise
    except Exception as error:
        if is_exhaustion(error):
            raise
        message = (str(error).strip() or "no message").splitlines()[0]
        lie = "; its __len__ may be more than it holds" if isinstance(error, IndexError) else ""
        raise ValueError(
            f"data must be readable, got {type(error).__name__} ({message}) from "
            f"{type(data).__name__} as batch {number} was read{lie}"
        ) from error


def as_tensors(values: Any, name: str) -> Any:
    """Convert the arrays in nested dictionaries, tuples and lists to tensors.

    Parameters
    ----------
    values : Any
    name : str
        For the message.

    Raises
    ------
    ValueError
        If an array or tensor cannot be sliced by samples (sparse, quantized, without data), or
        something else than a tensor, an array, None, a number or a string is found.

    Examples
    --------
    >>> as_tensors({"x": np.ones(2, dtype=np.float32), "kind": "train"}, "inputs")
    {'x': tensor([1., 1.]), 'kind': 'train'}
    """
    return map_leaves(lambda leaf: _as_tensor(leaf, name), values)


def _is_dataset(data: Any) -> bool:
    """Whether data are samples: a Dataset of torch, or a class of its form."""
    if isinstance(data, Dataset):
        return True
    kind = type(data)
    has_samples = hasattr(kind, "__getitem__") and hasattr(kind, "__len__")
    return has_samples and not hasattr(kind, "__iter__")


def _collated(samples: list[Any]) -> tuple[Any, Any]:
    """Make one batch of samples."""
    for sample in samples:
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise ValueError(
                f"each sample of a dataset must be a pair (x, y), got {_described(sample)}; "
                "select the two in its __getitem__"
            )
    try:
        inputs, targets = (
            None if all(part is None for part in parts) else default_collate(list(parts))
            for parts in zip(*samples, strict=True)
        )
    except (TypeError, RuntimeError, KeyError) as error:
        if is_exhaustion(error):
            raise
        raise ValueError(
            f"the samples of a dataset must be tensors or arrays of one shape, got: {error}; "
            "convert them in its __getitem__, or pass a DataLoader with a collate_fn"
        ) from error
    return inputs, targets


def _pair(batch: Any, number: int) -> tuple[Any, Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and not _is_packed(batch):
        return batch[0], batch[1]
    if isinstance(batch, (tuple, list)) and len(batch) == 1:
        advice = "without targets write (inputs, None)"
    elif isinstance(batch, (tuple, list)) and len(batch) > 2:
        advice = (
            "group the parts: several inputs are ((a, b), targets), several batches a list; or use "
            "Objective.from_batches(model, loss, batches) with loss(model, batch)"
        )
    elif isinstance(batch, Mapping):
        advice = (
            "write a batch of a dictionary as (dictionary, targets), or, where the model computes "
            "its own loss, use "
            "Objective.from_batches(model, lambda model, batch: model(**batch).loss, batches)"
        )
    else:
        advice = _HOW_TO_WRITE
    raise ValueError(
        f"each batch must be a pair (inputs, targets), got {_described(batch)} as batch {number}; "
        f"{advice}"
    )


def _refuse_two_batches(data: tuple[Any, ...]) -> None:
    """Raise an error for a tuple of two parts that look like two batches of the same kind."""
    is_pair = len(data) == 2 and all(isinstance(p, (tuple, list)) and len(p) == 2 for p in data)
    is_named = len(data) == 2 and all(isinstance(part, Mapping) for part in data)
    if not (is_pair or is_named):
        return
    first, second = (_kind(as_tensors(part, "inputs")) for part in data)
    if first == second:
        what = "dictionaries" if is_named else "pairs"
        raise ValueError(
            f"data must be read in one way only, got a tuple of two {what} of the same shapes; "
            "write two batches as the list [(inputs_1, targets_1), (inputs_2, targets_2)], and one "
            "batch whose targets are like its inputs as the list [(inputs, targets)]; where the "
            "model computes its own loss, use Objective.from_batches(model, loss, [batch_1, ...])"
        )


def _kind(part: Any) -> list[tuple[str, torch.Size, torch.dtype]]:
    """Names, shapes without rows, and dtypes."""
    return [(name, tensor.shape[1:], tensor.dtype) for name, tensor in named_tensors(part, "")]


def _as_tensor(leaf: Any, name: str) -> Any:
    if isinstance(leaf, np.ndarray):
        return _from_array(leaf, name)
    if isinstance(leaf, Tensor):
        what = _unusual(leaf)
        if what is None:
            return leaf
        raise ValueError(
            f"{name} must be ordinary dense tensors, got one that is {what}; convert it, e.g. with "
            "to_dense(), dequantize() or to_padded_tensor(0)"
        )
    if leaf is None or isinstance(leaf, (Number, np.generic, str, bytes, torch.Size, torch.dtype)):
        return leaf
    raise ValueError(
        f"{name} must be a tensor, or a dictionary, tuple or list of tensors, got "
        f"{type(leaf).__name__}; convert arrays with torch.as_tensor, and take objects apart"
    )


def _from_array(array: np.ndarray[Any, Any], name: str) -> Tensor:
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "biufc":
        what = "masked" if isinstance(array, np.ma.MaskedArray) else f"of dtype {array.dtype}"
        raise ValueError(
            f"{name} must be arrays of numbers, got one that is {what}; fill or convert it, "
            "e.g. with array.astype(float)"
        )
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")  # a copy
    try:
        return torch.from_numpy(native)
    except TypeError as error:
        raise ValueError(
            f"{name} must be arrays that torch can hold, got dtype {array.dtype}; convert it with "
            "array.astype(float)"
        ) from error


def _unusual(tensor: Tensor) -> str | None:
    """What keeps a tensor from being copied and sliced by samples."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout != torch.strided:
        return f"of layout {tensor.layout}"
    return "on the meta device, without data" if tensor.is_meta else None


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__

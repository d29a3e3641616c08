"""Data in batches of any sizes, read once and copied to the device and dtype of the objective."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from hesspipe.hardware import require
from hesspipe.objective.data_forms import iterate_batches
from hesspipe.objective.pytrees import Fields, WholeLayout, cast, map_tensors, named_tensors
from hesspipe.summaries import Verbatim, layout, summary

# Bytes read between two comparisons with the available memory.
_BYTES_BETWEEN_FORECASTS = 64 * 2**20


@dataclass(frozen=True)
class Batch:
    """Part of the data; `share` times the loss of a batch adds up to L over the batches.

    Attributes
    ----------
    inputs : Tensor or Fields
        Both have a `len()`, the number of samples, and can be sliced.
    targets : Any
        As the loss expects them.
    share : float
    value : float, optional
        The loss on the batch at theta when the objective was built, without the share.
    value_rounding : float
        Difference from `value` that rounding can explain.
    layout : WholeLayout, optional
        How all outputs of the batch are joined to one vector.
    number : int
        Number of the batch in the data.
    """

    inputs: Any
    targets: Any
    share: float
    value: float | None = None
    value_rounding: float = 0.0
    layout: WholeLayout | None = None
    number: int = 0

    def __repr__(self) -> str:
        inputs, targets = (
            layout(part) if isinstance(part, Tensor) else Verbatim(type(part).__name__)
            for part in (self.inputs, self.targets)
        )
        return summary(
            "Batch",
            num_samples=self.num_samples,
            inputs=inputs,
            targets=targets,
            share=self.share,
            value=self.value,
        )

    @property
    def num_samples(self) -> int:
        """Number of samples of the batch."""
        return len(self.inputs)

    def rows(self, rows: slice) -> Batch:
        """Select samples of the batch."""
        count = self.num_samples
        targets = map_tensors(
            lambda tensor: tensor[rows] if tensor.ndim and len(tensor) == count else tensor,
            self.targets,
        )
        return replace(self, inputs=self.inputs[rows], targets=targets)


def read_batches(
    data: Any, dtype: torch.dtype, device: torch.device, *, may_be_empty: bool = False
) -> list[Batch]:
    """Read all batches, once, and copy them.

    They are read once and stored, so that every pass sees the same data, even from a loader that
    shuffles or augments, and copied, so that later changes of the caller's tensors have no effect.

    Parameters
    ----------
    data : (inputs, targets), an iterable of such pairs, or a Dataset
        A tuple is one batch. Any other iterable (list, generator, DataLoader) holds batches, each a
        pair. A Dataset, or an object with `__getitem__` and `__len__` only, holds samples (x, y),
        which are collated in order.

        Inputs are a tensor, a dictionary (for `model(**inputs)`), or a tuple or list (for
        `model(*inputs)`); targets a tensor, or nested dictionaries, tuples and lists of tensors,
        as the loss expects; None if it needs none. NumPy arrays are converted.
    dtype : torch.dtype
        Floating-point tensors are converted to it, complex ones to that of the same precision.
    device : torch.device
    may_be_empty : bool
        Whether there may be no sample: other processes have some.

    Returns
    -------
    list of Batch
        Each with a share of 1.

    Raises
    ------
    ValueError
        If data have another form, there is no sample, a batch is not a pair, or inputs or targets
        are not finite. Minus infinity is allowed in inputs of several tensors, where it masks
        attention.
    TooLargeError
        If the data do not fit into memory.
    """
    batches: list[Batch] = []
    num_bytes = num_unchecked = 0
    for number, pair in enumerate(iterate_batches(data)):
        size = _num_bytes(pair, dtype)
        num_unchecked += size
        if num_unchecked >= _BYTES_BETWEEN_FORECASTS:
            require(
                num_unchecked,
                f"batch {number} of the data, after {num_bytes / 2**30:,.1f} GiB were read,",
                "use fewer samples, dtype=torch.float32 or a machine with more memory",
                device=device,
            )
            num_unchecked = 0
        num_bytes += size
        batch = copied(pair, number, dtype, device)
        if batch.num_samples:
            batches.append(batch)
    if not batches and not may_be_empty:
        raise ValueError(
            "data must hold at least one sample, got none; an iterator can be read only once"
        )
    return batches


def _num_bytes(pair: Any, dtype: torch.dtype) -> int:
    return sum(
        tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.itemsize)
        for _, tensor in named_tensors(pair, "")
    )


def copied(
    pair: Any, number: int, dtype: torch.dtype, device: torch.device, *, is_checked: bool = True
) -> Batch:
    """Copy a batch; its values are checked unless they were before.

    Parameters
    ----------
    pair : (inputs, targets)
    number : int
        Of the batch.
    dtype : torch.dtype
    device : torch.device
    is_checked : bool

    Returns
    -------
    Batch
        With a share of 1.

    Raises
    ------
    ValueError
        If values are not finite, or samples have no dimension.
    """
    inputs, targets = (
        map_tensors(lambda tensor: cast(tensor.detach(), dtype, device), part) for part in pair
    )
    if is_checked:
        _require_usable(inputs, targets, number)
    rows = inputs if isinstance(inputs, Tensor) else Fields(inputs)
    return Batch(rows, targets, 1.0, number=number)


def _require_usable(inputs: Any, targets: Any, number: int) -> None:
    _require_rows(inputs, targets, number)
    is_single = isinstance(inputs, Tensor)
    for place, tensor in named_tensors(inputs, "inputs"):
        _require_finite(tensor, place, number, is_mask_allowed=not is_single)
    for place, tensor in named_tensors(targets, "targets"):
        _require_finite(tensor, place, number, is_mask_allowed=False)


def _require_rows(inputs: Any, targets: Any, number: int) -> None:
    """Raise an error for samples without a dimension of samples."""
    is_scalar = isinstance(targets, Number) or (isinstance(targets, Tensor) and not targets.ndim)
    if is_scalar or (isinstance(inputs, Tensor) and not inputs.ndim):
        raise ValueError(
            "inputs and targets must have one row per sample, got a single number in batch "
            f"{number}; add a dimension with unsqueeze(0), or pass single samples as a Dataset"
        )
    rows = [len(part) for part in (inputs, targets) if isinstance(part, Tensor)]
    is_vector = isinstance(inputs, Tensor) and inputs.ndim == 1
    is_empty = len(rows) == 2 and min(rows) == 0
    if len(set(rows)) > 1 and (is_vector or is_empty):
        raise ValueError(
            f"inputs and targets must have the same number of rows, got {rows[0]} and {rows[1]} in "
            f"batch {number}; add the dimension of samples to each"
        )


def _require_finite(tensor: Tensor, name: str, number: int, *, is_mask_allowed: bool) -> None:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    is_good = torch.isfinite(tensor)
    if is_mask_allowed and not tensor.is_complex():
        is_good |= tensor.isneginf()
    if not is_good.all():
        raise ValueError(f"{name} must be finite, got nan or inf in batch {number}")

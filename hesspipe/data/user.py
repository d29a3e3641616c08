"""Data from a user's function or safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesspipe.config.user_files import wrong_tensors
from hesspipe.data.dataset import Dataset
from hesspipe.imports import call_seeded

_PARTS = ("train_inputs", "train_targets", "test_inputs", "test_targets")


def dataset_from_function(*, function: str, arguments: Mapping[str, Any]) -> Dataset:
    """Take the data that a user function returns.

    Parameters
    ----------
    function : str
        "package.module:function". It returns (inputs, targets), (inputs, targets, test_inputs,
        test_targets) or a `hesspipe.data.dataset.Dataset`, and may draw from torch's global random
        state, which is seeded for the call.
    arguments : mapping

    Returns
    -------
    Dataset
        Without held-out data, those tensors are empty.

    Raises
    ------
    ValueError
        If the function does not return tensors, or inputs and targets differ in number.
    """
    parts = call_seeded(function, arguments, 0, "data")
    num_classes = None
    if isinstance(parts, Dataset):
        num_classes, parts = parts.num_classes, tuple(getattr(parts, name) for name in _PARTS)
    return Dataset(*_checked_parts(parts, function), num_classes=num_classes)


def dataset_from_file(*, path: str) -> Dataset:
    """Read the data of a user's safetensors file.

    Parameters
    ----------
    path : str
        The file holds tensors of the names train_inputs and train_targets, and optionally
        test_inputs and test_targets.

    Returns
    -------
    Dataset
        Without held-out data, those tensors are empty.

    Raises
    ------
    ValueError
        If it is not a safetensors file, or holds other tensors.
    """
    found = read_user_tensors(path)
    if set(found) not in ({*_PARTS[:2]}, {*_PARTS}):
        raise ValueError(
            f"{path} must hold the tensors {_PARTS[:2]} or {_PARTS}, got {tuple(sorted(found))}"
        )
    parts = tuple(found[name] for name in _PARTS if name in found)
    return Dataset(*_checked_parts(parts, path), num_classes=None)


def read_user_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file that the user saved.

    Raises
    ------
    ValueError
        If it does not exist or is in another format; the message says how to convert it.
    """
    from safetensors.torch import load_file

    for mistake in wrong_tensors("path", str(path)):
        raise ValueError(mistake)
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _checked_parts(parts: Any, source: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and held-out inputs and targets, the latter empty where there are none."""
    if not isinstance(parts, tuple) or len(parts) not in (2, 4):
        raise ValueError(
            f"{source!r} must return (inputs, targets) or (inputs, targets, test_inputs, "
            f"test_targets), got {_describe(parts)}"
        )
    for name, part in zip(_PARTS, parts, strict=False):
        if not isinstance(part, Tensor):
            raise ValueError(
                f"{source!r} must return tensors, got {_describe(part)} as {name}; convert it with "
                "torch.as_tensor"
            )
        if part.layout != torch.strided or part.is_complex() or part.ndim == 0:
            raise ValueError(
                f"{source!r} must return dense tensors of real numbers with a row for each sample, "
                f"got {name} of {part.dtype}, shape {tuple(part.shape)} and layout {part.layout}"
            )
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise ValueError(f"{source!r} must return finite numbers, got nan or inf in {name}")
    if len(parts) == 2:
        parts = (*parts, parts[0][:0], parts[1][:0])
    for inputs, targets in (parts[:2], parts[2:]):
        if len(inputs) != len(targets):
            raise ValueError(
                f"{source!r} must return as many targets as inputs, got {len(inputs)} inputs and "
                f"{len(targets)} targets"
            )
    if len(parts[0]) == 0:
        raise ValueError(f"{source!r} must return at least one sample, got none")
    checked: tuple[Tensor, Tensor, Tensor, Tensor] = parts
    return checked


def _describe(value: object) -> str:
    """Name the type of what a user's function returned, for a message."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__

"""Datasets: inputs and targets, to train on and held out, and their files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesspipe.errors import DamagedFileError
from hesspipe.files import read_tensors, write_tensors


@dataclass(frozen=True)
class Dataset:
    """Inputs and targets, to train on and held out.

    Attributes
    ----------
    train_inputs, test_inputs : Tensor, shape (N, ...) and (N_test, ...), float64
        float32 for CIFAR-10, whose file would otherwise take 1.5 GB.
    train_targets, test_targets : Tensor, shape (N,) and (N_test,), int64
        Class labels in [0, num_classes). In user data, anything that the loss takes.
    num_classes : int or None
        None for user data that do not state it.
    settings : dict
        The dataset's entry in config.yaml; empty for one made otherwise.
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    num_classes: int | None
    settings: dict[str, Any] = field(default_factory=dict)

    def to(self, dtype: torch.dtype, device: torch.device) -> Dataset:
        """Convert floating-point tensors to a dtype, and move all to a device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

        return replace(
            self,
            train_inputs=moved(self.train_inputs),
            train_targets=moved(self.train_targets),
            test_inputs=moved(self.test_inputs),
            test_targets=moved(self.test_targets),
        )


def write_dataset(dataset: Dataset, path: str | Path) -> None:
    """Write a dataset to a safetensors file, atomically."""
    tensors = {name: value for name, value in vars(dataset).items() if isinstance(value, Tensor)}
    header = {
        "num_classes": json.dumps(dataset.num_classes),
        "settings": json.dumps(dataset.settings, sort_keys=True),
    }
    write_tensors(tensors, path, header)


def read_dataset(path: str | Path) -> Dataset:
    """Read a dataset file.

    Raises
    ------
    DamagedFileError
        If the file is truncated, or not a dataset.
    """
    tensors, header = read_tensors(path)
    try:
        return Dataset(
            **tensors,
            num_classes=json.loads(header["num_classes"]),
            settings=json.loads(header["settings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, f"not a dataset: {error}") from None

"""Datasets of every kind, from their entries in config.yaml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hesspipe.data.cifar10 import cifar10_images
from hesspipe.data.clusters import gaussian_clusters
from hesspipe.data.dataset import Dataset
from hesspipe.data.mnist import mnist_digits
from hesspipe.data.user import dataset_from_file, dataset_from_function

_MAKERS: dict[str, Callable[..., Dataset]] = {
    "gaussian_clusters": gaussian_clusters,
    "mnist_digits": mnist_digits,
    "cifar10_images": cifar10_images,
    "user": dataset_from_function,
    "file": dataset_from_file,
}


def make_dataset(kind: str, **settings: Any) -> Dataset:
    """Make a dataset from its entry in config.yaml.

    Parameters
    ----------
    kind : str
        "gaussian_clusters", "mnist_digits", "cifar10_images", "user" or "file".
    **settings
        Arguments of the function that makes this kind of dataset.

    Raises
    ------
    ValueError
        If the kind is unknown, or a number is not finite.
    """
    if kind not in _MAKERS:
        raise ValueError(f"kind must be one of {sorted(_MAKERS)}, got {kind!r}")
    dataset = _MAKERS[kind](**settings)
    for name, value in vars(dataset).items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():
            raise ValueError(
                f"data of kind {kind} must be finite, got nan or inf in {name}; choose settings of "
                "ordinary size"
            )
    return replace(dataset, settings={"kind": kind, **settings})

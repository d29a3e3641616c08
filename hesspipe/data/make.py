"""Datasets of every kind, from their entries in config.yaml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    """
    if kind not in _MAKERS:
        raise ValueError(f"kind must be one of {sorted(_MAKERS)}, got {kind!r}")
    return replace(_MAKERS[kind](**settings), settings={"kind": kind, **settings})

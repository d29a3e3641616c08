"""Datasets as tensors: inputs and class labels, to train on and held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesspipe.files import DamagedFileError, read_tensors, write_tensors
from hesspipe.seeding import derive_seed


@dataclass(frozen=True)
class Dataset:
    """Inputs and labels of a classification problem.

    Attributes
    ----------
    train_inputs, test_inputs : Tensor, shape (N, ...) and (N_test, ...), float64
    train_targets, test_targets : Tensor, shape (N,) and (N_test,), int64
        Class labels in [0, num_classes).
    num_classes : int
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    num_classes: int

    def to(self, dtype: torch.dtype, device: torch.device) -> Dataset:
        """Copy with inputs of another dtype, everything on another device."""
        return Dataset(
            self.train_inputs.to(device, dtype),
            self.train_targets.to(device),
            self.test_inputs.to(device, dtype),
            self.test_targets.to(device),
            self.num_classes,
        )


def gaussian_clusters(
    *,
    num_clusters: int,
    cluster_std: float,
    num_features: int,
    center_low: float,
    center_high: float,
    num_train: int,
    num_test: int,
    seed: int,
) -> Dataset:
    """Draw isotropic Gaussian clusters, one per class, and standardize the inputs globally.

    Each feature is standardized over training and held-out points together, as the paper's
    authors do ("normalized the data globally"): both halves then see one transformation.

    Parameters
    ----------
    num_clusters : int
        k, the number of classes.
    cluster_std : float
        Standard deviation of each coordinate about its cluster's center. It is what the
        paper calls the multiplier of the covariance: the authors pass it on as `cluster_std`.
    num_features : int
        Dimension d of the inputs.
    center_low, center_high : float
        Cluster centers are uniform in [center_low, center_high]^d.
    num_train, num_test : int
        N and N_test; the first N of N + N_test shuffled points are trained on.
    seed : int

    Returns
    -------
    Dataset
        Over all points, each feature has mean 0 and standard deviation 1.

    References
    ----------
    Sagun, Evci, Guney, Dauphin, Bottou (2017), Section 3.1 and Appendix A.
    """
    from sklearn.datasets import make_blobs
    from sklearn.preprocessing import scale

    inputs, targets = make_blobs(
        n_samples=num_train + num_test,
        n_features=num_features,
        centers=num_clusters,
        cluster_std=cluster_std,
        center_box=(center_low, center_high),
        random_state=derive_seed(seed, "gaussian clusters", num_bits=32),
    )
    inputs = torch.from_numpy(scale(inputs))
    targets = torch.from_numpy(targets).to(torch.int64)
    return Dataset(
        inputs[:num_train],
        targets[:num_train],
        inputs[num_train:],
        targets[num_train:],
        num_clusters,
    )


_MAKERS = {"gaussian_clusters": gaussian_clusters}


def make_dataset(kind: str, **settings: Any) -> Dataset:
    """Make a dataset from its entry in config.yaml.

    Parameters
    ----------
    kind : str
        "gaussian_clusters".
    **settings
        The arguments of the function of that name.
    """
    return _MAKERS[kind](**settings)


def write_dataset(dataset: Dataset, path: str | Path) -> None:
    """Store a dataset as safetensors."""
    tensors = {name: value for name, value in vars(dataset).items() if isinstance(value, Tensor)}
    write_tensors(tensors, path, {"num_classes": str(dataset.num_classes)})


def read_dataset(path: str | Path) -> Dataset:
    """Read what `write_dataset` wrote.

    Raises
    ------
    DamagedFileError
        If the file is truncated, or no dataset.
    """
    tensors, about = read_tensors(path)
    try:
        return Dataset(**tensors, num_classes=int(about["num_classes"]))
    except (KeyError, TypeError) as error:
        raise DamagedFileError(path, f"not a dataset: {error}") from None

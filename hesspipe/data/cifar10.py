"""CIFAR-10 in its binary version, from a folder or by download.

A file is a sequence of records, each one byte for the label and 3 x 32 x 32 bytes for the image:
the red plane, the green one, the blue one, each row by row. The version for Python is not read,
because its files are pickles, and opening a pickle runs code.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hesspipe.data.cifar10_files import CONTENTS, TEST_FILES, TRAIN_FILES, missing_files
from hesspipe.data.dataset import Dataset
from hesspipe.data.download import download
from hesspipe.data.published import difference
from hesspipe.errors import CIFAR10FileError
from hesspipe.files import atomic_path
from hesspipe.seeding import generator

# The dataset's home page, and the checksum that it publishes.
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
NUM_CLASSES = 10
_IMAGE_SHAPE = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32
_ADVICE = (
    f"or put {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILES[0]} into its folder yourself"
)


class Images(NamedTuple):
    """Images and their labels.

    Attributes
    ----------
    images : array, shape (N, 3, 32, 32), uint8
        Red, green and blue planes; rows from top to bottom.
    labels : array, shape (N,), uint8
        0 to 9: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def read_cifar10(
    folder: str | Path, *, checksums: Mapping[str, str] | None = None
) -> tuple[Images, Images]:
    """Read the six binary files of CIFAR-10, with any number of records in each.

    Parameters
    ----------
    folder : path
        Holds data_batch_1.bin to data_batch_5.bin and test_batch.bin.
    checksums : mapping of str to str, optional
        MD5 that each file must have, by its name: `hesspipe.data.cifar10_files.CONTENTS` for
        CIFAR-10 itself. Default: any content.

    Returns
    -------
    train, test : Images
        In the order of the files and of their records; CIFAR-10 has 50,000 and 10,000.

    Raises
    ------
    FileNotFoundError
        If one of the files is missing.
    CIFAR10FileError
        If one is empty, truncated, or has a label above 9 or another checksum.
    """
    known = checksums or {}
    return _read_files(folder, TRAIN_FILES, known), _read_files(folder, TEST_FILES, known)


def download_cifar10(
    folder: str | Path, *, address: str = ADDRESS, checksum: str = CHECKSUM
) -> None:
    """Download CIFAR-10's archive into a folder and unpack its six files.

    If all six exist already, nothing is downloaded. The archive stays in the folder.

    Parameters
    ----------
    folder : path
    address : str
        Of the archive.
    checksum : str
        Its algorithm and hash, as pooch writes them.

    Raises
    ------
    FileNotFoundError
        If the archive cannot be downloaded, or lacks a file.
    """
    folder = Path(folder)
    if missing_files(folder):
        archive = folder / Path(address).name
        download([address], checksum, archive, advice=_ADVICE)
        _unpack(archive, folder)


def cifar10_images(*, source: str, folder: str, num_train: int, seed: int) -> Dataset:
    """Draw a training set from CIFAR-10's photographs; its test images are all held out.

    Each color is shifted and scaled to mean 0 and standard deviation 1 over the training images
    drawn, and the test images by the same numbers: the usual preprocessing, which the paper
    states in Section 4.2.

    Parameters
    ----------
    source : str
        "folder": the six files of the binary version lie in `folder`; a file that is not CIFAR-10's
        is refused. "download": the same, after downloading missing files. "own_files": like
        "folder", for other photographs in the same layout, any number in each file.
    folder : str
    num_train : int
        N, drawn without replacement; CIFAR-10 has 50,000 training images. For a fixed seed, a
        smaller training set is the beginning of a larger one.
    seed : int

    Returns
    -------
    Dataset
        Inputs of shape (N, 3, 32, 32), float32.

    Raises
    ------
    ValueError
        If there are fewer images, or a file is damaged.
    FileNotFoundError
        If a file is missing or cannot be downloaded.
    """
    if source not in ("folder", "download", "own_files"):
        raise ValueError(f"source must be 'folder' or 'download' or 'own_files', got {source!r}")
    if source == "download":
        download_cifar10(folder)
    checksums = None if source == "own_files" else CONTENTS
    train, test = read_cifar10(folder, checksums=checksums)
    if not 1 <= num_train <= len(train.labels):
        raise ValueError(
            f"num_train must be 1 to {len(train.labels)} for the images in {folder}, "
            f"got {num_train}; draw fewer, or use a folder with more"
        )
    order = torch.randperm(
        len(train.labels), generator=generator(seed, "cifar10 training images"), device="cpu"
    )
    drawn = torch.from_numpy(train.images)[order[:num_train]]
    means, stds = _color_moments(drawn)
    return Dataset(
        _standardized(drawn, means, stds),
        torch.from_numpy(train.labels)[order[:num_train]].to(torch.int64),
        _standardized(torch.from_numpy(test.images), means, stds),
        torch.from_numpy(test.labels).to(torch.int64),
        num_classes=NUM_CLASSES,
    )


def _unpack(archive: Path, folder: Path) -> None:
    """Extract the six files, each atomically, from whatever folder of the archive."""
    with tarfile.open(archive) as content:
        members = {Path(member.name).name: member for member in content if member.isfile()}
        for path in missing_files(folder):
            packed = content.extractfile(members[path.name]) if path.name in members else None
            if packed is None:
                raise FileNotFoundError(
                    f"{archive} must hold CIFAR-10's six files, and lacks {path.name}; {_ADVICE}"
                )
            with atomic_path(path) as temporary:
                temporary.write_bytes(packed.read())


def _read_files(folder: str | Path, names: Sequence[str], checksums: Mapping[str, str]) -> Images:
    records = np.concatenate([_read_records(Path(folder, name), checksums) for name in names])
    return Images(records[:, 1:].reshape(-1, *_IMAGE_SHAPE), records[:, 0])


def _read_records(path: Path, checksums: Mapping[str, str]) -> npt.NDArray[np.uint8]:
    """Read the records of one file, shape (N, 3073)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; put the six files of CIFAR-10's binary version into "
            f"{path.parent}, or set source: download"
        )
    content = np.fromfile(path, np.uint8)
    num_records, rest = divmod(len(content), _RECORD_BYTES)
    if rest:
        reason = f"{len(content)} bytes are {num_records} records of {_RECORD_BYTES} and {rest}"
        raise CIFAR10FileError(path, reason)
    if not num_records:
        raise CIFAR10FileError(path, "it is empty")
    records = content.reshape(num_records, _RECORD_BYTES)
    if records[:, 0].max() >= NUM_CLASSES:
        raise CIFAR10FileError(path, f"a label is {records[:, 0].max()}, more than 9")
    checksum = checksums.get(path.name)
    if checksum and (reason := difference(content.data, checksum)):
        raise CIFAR10FileError(path, reason)
    return records


def _color_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of each color from histograms: exact sums of bytes."""
    levels = torch.arange(256, dtype=torch.float64, device="cpu")
    counts = torch.stack([color.flatten().bincount(minlength=256) for color in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    means = shares @ levels
    return means, (shares @ levels**2 - means**2).sqrt()


def _standardized(images: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Convert bytes to standardized float32 numbers, color by color."""
    levels = (torch.arange(256, dtype=torch.float64, device="cpu") - means[:, None]) / stds[:, None]
    colors = [
        level.to(torch.float32)[color.long()]
        for level, color in zip(levels, images.unbind(1), strict=True)
    ]
    return torch.stack(colors, 1)

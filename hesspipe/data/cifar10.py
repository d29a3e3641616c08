"""CIFAR-10 as published: its own binary files, from a folder or by download.

A file is a row of records, each one byte for the label and 3 x 32 x 32 bytes for the image: the
red plane, the green one, the blue one, each row by row. The version in this layout is read
rather than the one for Python, whose files are pickles: to open a pickle is to run it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hesspipe.errors import CIFAR10FileError
from hesspipe.files import atomic_path

# The dataset's home page, and the checksum that it publishes.
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
NUM_CLASSES = 10
_IMAGE_SHAPE = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32


class Images(NamedTuple):
    """Images and what they show.

    Attributes
    ----------
    images : array, shape (N, 3, 32, 32), uint8
        Red, green and blue planes; rows from top to bottom.
    labels : array, shape (N,), uint8
        0 to 9: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def read_cifar10(folder: str | Path) -> tuple[Images, Images]:
    """Read the six binary files of CIFAR-10, with any number of records in each.

    Parameters
    ----------
    folder : path
        Holds data_batch_1.bin to data_batch_5.bin and test_batch.bin.

    Returns
    -------
    train, test : Images
        In the order of the files and of their records; CIFAR-10 has 50,000 and 10,000.

    Raises
    ------
    FileNotFoundError
        If one of the files is missing.
    CIFAR10FileError
        If one is empty, truncated, or has a label above 9.
    """
    return _read_files(Path(folder), TRAIN_FILES), _read_files(Path(folder), TEST_FILES)


def missing_files(folder: str | Path) -> list[Path]:
    """List which of CIFAR-10's six files a folder lacks."""
    paths = [Path(folder, name) for name in (*TRAIN_FILES, *TEST_FILES)]
    return [path for path in paths if not path.is_file()]


def download_cifar10(
    folder: str | Path, *, address: str = ADDRESS, checksum: str = CHECKSUM
) -> None:
    """Fetch CIFAR-10's archive into a folder and unpack its six files, with a progress bar.

    Where all six are there already, nothing is fetched. The archive stays beside them.

    Parameters
    ----------
    folder : path
        Made if need be.
    address : str
        Where the archive is.
    checksum : str
        Its algorithm and hash, as pooch writes them.

    Raises
    ------
    FileNotFoundError
        If the archive cannot be had with this checksum, or lacks a file; no part of it is left.
    """
    import pooch
    import requests

    if not missing_files(folder):
        return
    try:
        archive = pooch.retrieve(
            address, checksum, Path(address).name, Path(folder), progressbar=True
        )
    except requests.HTTPError as error:
        status = "unknown"
        if error.response is not None:
            status = str(error.response.status_code)
            error.response.close()  # its connection would stay open as long as the error
        raise _not_downloaded(folder, f"{address} answers with status {status}") from None
    except requests.RequestException as error:
        reason = f"{address} cannot be reached, {type(error).__name__}"
        raise _not_downloaded(folder, reason) from None
    except ValueError:
        reason = f"{address} gives another checksum than CIFAR-10's"
        raise _not_downloaded(folder, reason) from None
    _unpack(Path(archive), Path(folder))


def _not_downloaded(folder: str | Path, reason: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"CIFAR-10 is not in {folder} and could not be downloaded ({reason}); run the same command "
        f"again with a network, or put {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILES[0]} "
        "there by hand"
    )


def _unpack(archive: Path, folder: Path) -> None:
    """The six files, each whole or absent, whatever folder of the archive they lie in."""
    with tarfile.open(archive) as content:
        members = {Path(member.name).name: member for member in content if member.isfile()}
        for path in missing_files(folder):
            packed = content.extractfile(members[path.name]) if path.name in members else None
            if packed is None:
                raise _not_downloaded(folder, f"{archive} has no {path.name}")
            with atomic_path(path) as temporary:
                temporary.write_bytes(packed.read())


def _read_files(folder: Path, names: Sequence[str]) -> Images:
    records = np.concatenate([_read_records(folder / name) for name in names])
    return Images(records[:, 1:].reshape(-1, *_IMAGE_SHAPE), records[:, 0])


def _read_records(path: Path) -> npt.NDArray[np.uint8]:
    """The records of one file, shape (N, 3073)."""
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
    return records

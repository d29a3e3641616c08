"""A folder's files are compared with the published ones, unless they are meant to differ."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import pytest
from cifar10_files import FILES as PHOTOGRAPHS
from cifar10_files import write_files as write_photographs

from hesspipe.data import cifar10, cifar10_files, mnist
from hesspipe.data.make import make_dataset
from hesspipe.errors import CIFAR10FileError, DigitsFileError

SETTINGS = "if it is meant to differ, set source: own_files"


# Headers and pixels of 12 and of 5 images, and of their labels.
DIGITS = {
    f"{half}-{part}-ubyte": bytes([0, 0, 8, 3 if part == "images-idx3" else 1, 0, 0, 0, number])
    + (bytes([0, 0, 0, 28] * 2 + [7] * 784 * number) if part == "images-idx3" else bytes(number))
    for half, number in (("train", 12), ("t10k", 5))
    for part in ("images-idx3", "labels-idx1")
}


def write_digits(folder: Path, *, suffix: str = "", **changes: bytes) -> None:
    for name, content in DIGITS.items():
        content = changes.get(name.replace("-", "_"), content)
        packed = gzip.compress(content, mtime=0) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(packed)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def small_files_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the small files of the tests for MNIST and CIFAR-10."""
    monkeypatch.setattr(mnist, "CONTENTS", {name: md5(text) for name, text in DIGITS.items()})
    known = {name: md5(content) for name, content in PHOTOGRAPHS.items()}
    monkeypatch.setattr(cifar10, "CONTENTS", known)


def make_digits(folder: Path, source: str) -> None:
    make_dataset(kind="mnist_digits", source=source, folder=str(folder), num_train=7, seed=0)


def make_photographs(folder: Path, source: str) -> None:
    make_dataset(kind="cifar10_images", source=source, folder=str(folder), num_train=9, seed=0)


def with_another_last_bit(content: bytes) -> bytes:
    """Change a pixel or a label; both stay possible values."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_digits_takes_the_published_files(tmp_path: Path, suffix: str) -> None:
    write_digits(tmp_path, suffix=suffix)
    make_digits(tmp_path, "folder")
    # Compressed in another way, the content is the same.
    for name in DIGITS if suffix else ():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(DIGITS[name], 1, mtime=5))
    make_digits(tmp_path, "folder")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", DIGITS)
def test_mnist_digits_refuses_a_file_with_another_bit(
    tmp_path: Path, name: str, suffix: str
) -> None:
    changed = with_another_last_bit(DIGITS[name])
    write_digits(tmp_path, suffix=suffix, **{name.replace("-", "_"): changed})
    with pytest.raises(DigitsFileError) as caught:
        make_digits(tmp_path, "folder")
    reason = f"the MD5 of its content is {md5(changed)}, not {md5(DIGITS[name])}; {SETTINGS}"
    assert str(caught.value).startswith(f"{tmp_path / name}{suffix} is not MNIST's ({reason}); ")
    make_digits(tmp_path, "own_files")


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_cifar10_images_refuses_a_file_with_another_bit(tmp_path: Path, name: str) -> None:
    changed = with_another_last_bit(PHOTOGRAPHS[name])
    write_photographs(tmp_path, **{name.removesuffix(".bin"): changed})
    for source in ("folder", "download"):  # nothing is downloaded where all files exist
        with pytest.raises(CIFAR10FileError) as caught:
            make_photographs(tmp_path, source)
        reason = f"the MD5 of its content is {md5(changed)}, not {md5(PHOTOGRAPHS[name])}"
        assert str(caught.value).startswith(
            f"{tmp_path / name} is not CIFAR-10's ({reason}; {SETTINGS}); "
        )
    make_photographs(tmp_path, "own_files")


def test_cifar10_images_takes_the_published_files(tmp_path: Path) -> None:
    make_photographs(write_photographs(tmp_path), "folder")


def test_datasets_refuse_every_flipped_bit_of_a_folder(tmp_path: Path) -> None:
    draw = random.Random(2)
    write_digits(tmp_path)
    write_photographs(tmp_path)
    for name, content in (DIGITS | PHOTOGRAPHS).items():
        make = make_digits if name in DIGITS else make_photographs
        for position in [draw.randrange(8 * len(content)) for _ in range(15)]:
            changed = bytearray(content)
            changed[position // 8] ^= 1 << position % 8
            (tmp_path / name).write_bytes(changed)
            with pytest.raises((DigitsFileError, CIFAR10FileError), match=f"{name} is not"):
                make(tmp_path, "folder")
        (tmp_path / name).write_bytes(content)


def test_published_checksums_have_a_file_each() -> None:
    assert [*cifar10_files.CONTENTS] == [*cifar10_files.TRAIN_FILES, *cifar10_files.TEST_FILES]
    archived = {name.removesuffix(".gz") for name in mnist.CHECKSUMS}
    assert archived == set(DIGITS)
    known = [*cifar10_files.CONTENTS.values()]
    assert len({*known}) == 6
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in known)

"""CIFAR-10: its binary layout, its download, and the training set."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar10_files import (
    FILES,
    PICTURES,
    SIZES,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    write_files,
)

from hesspipe.data.cifar10 import (
    ADDRESS,
    CHECKSUM,
    cifar10_images,
    download_cifar10,
    read_cifar10,
)
from hesspipe.data.cifar10_files import missing_files
from hesspipe.data.dataset import read_dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.errors import CIFAR10FileError
from hesspipe.seeding import generator

ADVICE = "replace it by CIFAR-10's own file, or delete it and set source: download"


def test_read_cifar10_gives_what_the_files_hold(tmp_path):
    train, test = read_cifar10(write_files(tmp_path))
    assert train.images.shape == (12, 3, 32, 32)
    assert (train.images.transpose(0, 2, 3, 1) == TRAIN_IMAGES).all()
    assert train.labels.tolist() == TRAIN_LABELS.tolist()
    assert (test.images.transpose(0, 2, 3, 1) == PICTURES["test_batch.bin"][0]).all()
    assert test.labels.tolist() == PICTURES["test_batch.bin"][1].tolist()


@pytest.mark.parametrize("name", SIZES)
def test_read_cifar10_says_which_file_is_missing(tmp_path, name):
    folder = write_files(tmp_path, **{name.removesuffix(".bin"): None})
    assert missing_files(folder) == [folder / name]
    with pytest.raises(FileNotFoundError) as caught:
        read_cifar10(folder)
    assert str(caught.value) == (
        f"{folder / name} does not exist; put the six files of CIFAR-10's binary version into "
        f"{folder}, or set source: download"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (FILES["data_batch_2.bin"][:-1], "6145 bytes are 1 records of 3073 and 3072"),
        (FILES["data_batch_2.bin"][:3000], "3000 bytes are 0 records of 3073 and 3000"),
        (b"", "it is empty"),
        (b"\x0b" + FILES["data_batch_2.bin"][1:], "a label is 11, more than 9"),
        (b"\x80\x04\x95" + b"x" * 3070, "a label is 128, more than 9"),  # a pickle, to size
    ],
)
def test_read_cifar10_refuses_a_file_that_is_not_whole_or_foreign(tmp_path, content, reason):
    folder = write_files(tmp_path, data_batch_2=content)
    with pytest.raises(CIFAR10FileError) as caught:
        read_cifar10(folder)
    assert str(caught.value) == (
        f"{folder / 'data_batch_2.bin'} is not CIFAR-10's ({reason}); {ADVICE}"
    )


# The training set.


def test_cifar10_images_standardizes_each_color_over_the_training_images(tmp_path):
    folder = str(write_files(tmp_path))
    data = make_dataset(
        kind="cifar10_images", source="own_files", folder=folder, num_train=9, seed=3
    )
    order = torch.randperm(12, generator=generator(3, "cifar10 training images"))[:9].numpy()
    drawn = TRAIN_IMAGES[order].astype(np.float64)
    mean, std = drawn.mean((0, 1, 2)), drawn.std((0, 1, 2))
    assert data.train_inputs.dtype == torch.float32
    eps = np.finfo(np.float32).eps
    for inputs, images in (
        (data.train_inputs, drawn),
        (data.test_inputs, PICTURES["test_batch.bin"][0]),
    ):
        found = inputs.numpy().transpose(0, 2, 3, 1)
        assert np.abs(found - (images - mean) / std).max() <= eps * np.abs(found).max()
    assert data.train_targets.tolist() == TRAIN_LABELS[order].tolist()
    assert data.test_targets.tolist() == PICTURES["test_batch.bin"][1].tolist()
    assert data.train_targets.dtype == torch.int64
    assert (data.num_classes, data.settings["folder"]) == (10, folder)


def test_cifar10_images_survive_their_file(tmp_path):
    data = cifar10_images(
        source="own_files", folder=str(write_files(tmp_path)), num_train=12, seed=0
    )
    write_dataset(data, tmp_path / "data.safetensors")
    again = read_dataset(tmp_path / "data.safetensors")
    assert torch.equal(again.train_inputs, data.train_inputs)
    assert torch.equal(again.test_inputs, data.test_inputs)


def test_cifar10_images_refuses_more_images_than_there_are_and_other_sources(tmp_path):
    settings = {"folder": str(write_files(tmp_path)), "seed": 0}
    with pytest.raises(ValueError, match=r"num_train must be 1 to 12 for the images in .*got 13"):
        cifar10_images(source="own_files", num_train=13, **settings)
    with pytest.raises(
        ValueError, match="source must be 'folder' or 'download' or 'own_files', got 'embedded'"
    ):
        cifar10_images(source="embedded", num_train=3, **settings)


# The download.


def archive(names: list[str]) -> bytes:
    """Pack files into a compressed archive with one folder, as CIFAR-10 is published."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as packed:
        for name in names:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(FILES[name])
            packed.addfile(member, io.BytesIO(FILES[name]))
    return content.getvalue()


class Quiet(SimpleHTTPRequestHandler):
    """A server of one folder that records its requests."""

    requests: list[str]

    def log_message(self, *_: object) -> None:
        self.requests.append(self.path)


@pytest.fixture
def home_page(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """The archive's address, its path on the server, and the requests so far."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "cifar.tar.gz").write_bytes(archive(list(FILES)))
    handler = type("Counting", (Quiet,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/cifar.tar.gz"
    yield address, folder / "cifar.tar.gz", handler.requests
    server.shutdown()
    thread.join()
    server.server_close()


def md5(path: Path) -> str:
    return f"md5:{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}"


def test_download_cifar10_unpacks_the_six_files_and_downloads_once(tmp_path, home_page):
    address, path, requests = home_page
    folder = tmp_path / "cifar10"
    for _ in range(2):
        download_cifar10(folder, address=address, checksum=md5(path))
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert len(requests) == 1


def test_download_cifar10_keeps_existing_files(tmp_path, home_page):
    address, path, requests = home_page
    folder = write_files(tmp_path / "cifar10", test_batch=None)
    (folder / "data_batch_1.bin").write_bytes(FILES["data_batch_3.bin"])
    download_cifar10(folder, address=address, checksum=md5(path))
    assert (folder / "data_batch_1.bin").read_bytes() == FILES["data_batch_3.bin"]
    assert (folder / "test_batch.bin").read_bytes() == FILES["test_batch.bin"]
    assert len(requests) == 1


def failure(folder: Path, address: str, checksum: str) -> str:
    """The error message of a download, without the advice."""
    with pytest.raises(FileNotFoundError) as caught:
        download_cifar10(folder, address=address, checksum=checksum)
    text = str(caught.value)
    start = f"{folder / Path(address).name} could not be downloaded ("
    end = "); run the same command again with a network connection, or put data_batch_1.bin to "
    assert text.startswith(start)
    assert text.endswith("data_batch_5.bin and test_batch.bin into its folder yourself")
    return text[len(start) : text.index(end)]


def test_download_cifar10_refuses_a_wrong_checksum_and_leaves_nothing(tmp_path, home_page):
    address, path, _ = home_page
    right = md5(path)
    path.write_bytes(path.read_bytes()[:-20])
    folder = tmp_path / "cifar10"
    assert failure(folder, address, right) == f"{address} serves a file with another checksum"
    assert not list(folder.iterdir())


def test_download_cifar10_says_what_the_server_answers(tmp_path, home_page):
    address, path, _ = home_page
    right = md5(path)
    path.unlink()
    reason = failure(tmp_path / "cifar10", address, right)
    assert reason == f"{address} answers with status 404"


def test_download_cifar10_says_that_there_is_no_server(tmp_path, home_page):
    _, path, _ = home_page
    address = "http://127.0.0.1:9/cifar.tar.gz"
    reason = failure(tmp_path / "cifar10", address, md5(path))
    assert reason == f"{address} cannot be reached, ConnectionError"


def test_download_cifar10_names_a_file_that_the_archive_lacks(tmp_path, home_page):
    address, path, _ = home_page
    path.write_bytes(archive([name for name in FILES if name != "data_batch_4.bin"]))
    folder = tmp_path / "cifar10"
    message = r"cifar.tar.gz must hold CIFAR-10's six files, and lacks data_batch_4.bin; .*yourself"
    with pytest.raises(FileNotFoundError, match=message):
        download_cifar10(folder, address=address, checksum=md5(path))


def test_download_cifar10_knows_the_home_page_and_its_checksum():
    assert ADDRESS.startswith("https://")
    assert ADDRESS.endswith("cifar-10-binary.tar.gz")
    assert CHECKSUM == "md5:c32a1d4ab5d03f1284b67883e8d87530"

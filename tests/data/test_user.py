"""Data of user functions and files are used unchanged, or refused with a message."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.data.user import read_user_tensors

TENSORS = {"train_inputs": torch.ones(3, 2), "train_targets": torch.zeros(3)}


def user_data(function: str, **arguments: Any) -> Dataset:
    return make_dataset(kind="user", function=f"user_functions:{function}", arguments=arguments)


def test_data_of_a_function_are_drawn_alike_each_time(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    first, again = user_data("points", number=6), user_data("points", number=6)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert first.num_classes is None
    assert len(first.test_inputs) == 0
    assert first.settings == {
        "kind": "user", "function": "user_functions:points", "arguments": {"number": 6},
    }  # fmt: skip
    write_dataset(first, tmp_path / "data.safetensors")
    again = read_dataset(tmp_path / "data.safetensors")
    assert torch.equal(again.train_targets, first.train_targets)


def test_dataset_of_integers_stays_one() -> None:
    data = user_data("tokens").to(torch.float32, torch.device("cpu"))
    assert data.train_inputs.dtype == data.test_inputs.dtype == torch.int64
    points = user_data("points", number=2).to(torch.float64, torch.device("cpu"))
    assert points.train_targets.dtype == torch.float64


def test_data_of_a_file_are_its_tensors(tmp_path: Path) -> None:
    path = str(tmp_path / "data.safetensors")
    save_file(TENSORS, path)
    data = make_dataset(kind="file", path=path)
    assert torch.equal(data.train_inputs, TENSORS["train_inputs"])
    assert data.settings == {"kind": "file", "path": path}
    save_file(TENSORS | {"labels": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"data.safetensors must hold the tensors .*'labels'"):
        make_dataset(kind="file", path=path)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("one", "must return .inputs, targets. or .*, got a tuple of 1"),
        ("number", "got int"),
        ("uneven", "as many targets as inputs, got 3 inputs and 4 targets"),
        ("lists", "must return tensors, got list as train_inputs"),
        ("infinite", "finite numbers, got nan or inf in train_inputs"),
        ("complex_numbers", "dense tensors of real numbers .* got train_inputs of torch.complex64"),
        ("sparse", "got train_inputs of torch.float32, shape .3, 2. and layout torch.sparse_coo"),
        ("one_target", r"got train_targets of torch.int64, shape \(\)"),
        ("empty", "at least one sample, got none"),
    ],
)
def test_data_of_a_function_refuse_what_is_no_data(function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        user_data(function)


def _save_torch(path: Path) -> None:
    torch.save(TENSORS, path)


def _save_old_torch(path: Path) -> None:
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": [1.0]}))


def _save_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, inputs=np.ones(3))


def _truncate(path: Path) -> None:
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_save_torch, "is a PyTorch file; convert it with safetensors.torch.save_file"),
        (_save_old_torch, "is a PyTorch file; convert it with safetensors.torch.save_file"),
        (_pickle, "is a PyTorch file"),
        (_save_archive, "is a NumPy archive; convert it with safetensors.numpy.save_file"),
        (_truncate, "is damaged or incomplete, or of another format"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), "or of another format"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
         "is a pointer of Git LFS; fetch the file itself"),
        (lambda path: path.write_text("no tensors"), "or of another format"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "does not exist"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["state.pt", "state.safetensors"])
def test_read_user_tensors_says_what_a_file_is_instead(
    tmp_path: Path, name: str, write: Any, message: str
) -> None:
    write(tmp_path / name)
    pattern = rf"path must be a safetensors file, got .*{name}', which .*{message}"
    with pytest.raises(ValueError, match=pattern) as caught:
        read_user_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)

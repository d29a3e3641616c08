"""An unfinished training is only resumed where everything that decides its numbers is the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import labels, normal

from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.experiments.training import TrainingRun
from hesspipe.networks.checkpoints import Checkpoint

TRAINING = {
    "algorithm": "sgd",
    "batch_size": 4,
    "step_size": 0.1,
    "num_steps": 4,
    "record_every": 2,
    "checkpoint_every": 2,
    "dtype": "float64",
}
SETTINGS: dict[str, Any] = {
    "path_to_dataset": "data.safetensors",
    "experiment": "example",
    "seed": 0,
    "model": {"kind": "mlp", "hidden_widths": [4], "activation": "relu", "initial_std": 0.5},
    "training": TRAINING,
    "user_code": ("loss.py",),
}


def write_start(factor: float) -> None:
    """Write a checkpoint to start from, always of the same experiment and step."""
    run = TrainingRun(**SETTINGS)
    network = run._start()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    Checkpoint.of(network, 2, {"experiment": "first"}).write("start.safetensors")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set, the user's code, and a checkpoint to start from."""
    monkeypatch.chdir(tmp_path)
    data = Dataset(normal(12, 3), labels(12, 2), normal(4, 3), labels(4, 2), 2, {"kind": "mine"})
    write_dataset(data, "data.safetensors")
    Path("loss.py").write_text("factor = 1\n")
    write_start(1.0)


def path_to_state(**changes: Any) -> Path:
    return TrainingRun(**SETTINGS | changes).path_to_state


def change_data(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change one number of the data; their settings stay the same."""
    data = read_dataset("data.safetensors")
    write_dataset(replace(data, **{name: change(getattr(data, name))}), "data.safetensors")


def first_changed(values: torch.Tensor) -> torch.Tensor:
    values.flatten()[0] += 1e-12 if values.is_floating_point() else 1 - 2 * values.flatten()[0]
    return values


DATA = ["train_inputs", "train_targets", "test_inputs", "test_targets"]
OTHERS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "experiment": {"experiment": "other"},
    "model": {"model": SETTINGS["model"] | {"initial_std": 0.6}},
    "start": {"path_to_start": "start.safetensors"},
    "no user code": {"user_code": ()},
} | {
    key: {"training": TRAINING | {key: value}}
    for key, value in {
        "algorithm": "gd", "batch_size": 5, "step_size": 0.2, "num_steps": 6, "record_every": 1,
        "checkpoint_every": 4, "dtype": "float32",
    }.items()
}  # fmt: skip


def test_path_to_state_is_that_of_the_same_training() -> None:
    before = path_to_state()
    change_data("train_inputs", torch.clone)
    Path("loss.py").touch()
    assert path_to_state() == before


@pytest.mark.parametrize("name", OTHERS)
def test_path_to_state_is_another_for_another_setting(name: str) -> None:
    assert path_to_state(**OTHERS[name]) != path_to_state()


@pytest.mark.parametrize("name", DATA)
def test_path_to_state_is_another_for_one_changed_number_of_the_data(name: str) -> None:
    before = path_to_state()
    change_data(name, first_changed)
    assert path_to_state() != before


def test_path_to_state_is_another_for_changed_user_code() -> None:
    before = path_to_state()
    Path("loss.py").write_text("factor = 2\n")
    assert path_to_state() != before


def test_path_to_state_is_another_for_another_starting_point() -> None:
    before = path_to_state(path_to_start="start.safetensors")
    write_start(1 + 1e-12)
    assert path_to_state(path_to_start="start.safetensors") != before


def test_path_to_state_is_another_for_another_number_of_threads() -> None:
    # Sums in another order have other last bits.
    before, num_threads = path_to_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads + 1)
        assert path_to_state() != before
    finally:
        torch.set_num_threads(num_threads)
    assert path_to_state() == before


def test_path_to_state_is_another_for_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = path_to_state()
    monkeypatch.setattr(torch, "__version__", "0.0.1")
    assert path_to_state() != before


def test_train_does_not_resume_from_the_state_of_other_data() -> None:
    run = TrainingRun(**SETTINGS)
    run.train(progress=False)  # its state stays until the checkpoints are collected
    change_data("train_inputs", lambda values: -values)
    resumed = TrainingRun(**SETTINGS).train(progress=False).table
    shutil.rmtree(".hesspipe")
    assert resumed.equals(TrainingRun(**SETTINGS).train(progress=False).table)

"""Networks and objectives from files: the same numbers, or an error that names the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import theta_of
from torch import nn
from torch.nn import functional

from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.experiments import loading
from hesspipe.experiments.loading import load_objective, load_solution
from hesspipe.networks.build import build_network
from hesspipe.networks.checkpoints import Checkpoint

DATASET: dict[str, Any] = {
    "kind": "gaussian_clusters", "num_clusters": 3, "cluster_std": 1.0, "num_features": 5,
    "center_low": -10.0, "center_high": 10.0, "num_train": 40, "num_test": 20, "seed": 0,
}  # fmt: skip
MODEL = {"kind": "mlp", "hidden_widths": [4], "activation": "tanh", "initial_std": 0.5}
CONVNET = {
    "kind": "convnet", "channels": [2], "kernel_size": 3, "hidden_width": 4, "initial_std": 0.5
}  # fmt: skip
PROVENANCE = {"experiment": "example", "seed": 3, "training": {"num_recorded": 12}}
PATHS = "data.safetensors", "step7.safetensors"


@pytest.fixture(params=["float32", "float64"])
def network(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> nn.Module:
    """A network with its checkpoint and dataset in files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HESSPIPE_DEVICE", "cpu")
    data = make_dataset(**DATASET)
    write_dataset(data, PATHS[0])
    dtype = getattr(torch, request.param)
    network = build_network(data.train_inputs.to(dtype), 3, 1, MODEL, dtype)
    Checkpoint.of(network, 7, PROVENANCE).write(PATHS[1])
    return network


def test_load_solution_has_network_data_and_loss_of_the_training(network: nn.Module) -> None:
    state = torch.random.get_rng_state()
    found = load_solution(*PATHS, MODEL)
    assert torch.equal(torch.random.get_rng_state(), state)
    data = read_dataset(PATHS[0]).to(next(network.parameters()).dtype, torch.device("cpu"))
    assert torch.equal(found.network(data.test_inputs), network(data.test_inputs))
    for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
        assert torch.equal(getattr(found.data, name), getattr(data, name))
        assert getattr(found.data, name).dtype == getattr(data, name).dtype
    outputs = network(data.train_inputs)
    expected = functional.cross_entropy(outputs, data.train_targets)
    assert torch.equal(found.loss_fn(outputs, data.train_targets), expected)
    assert (found.checkpoint.step, found.checkpoint.provenance) == (7, PROVENANCE)


@pytest.mark.parametrize("has_convolutions", [False, True])
def test_load_solution_keeps_the_memory_of_freed_arrays_for_convolutions(
    has_convolutions: bool, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(loading, "keep_freed_arrays", lambda: calls.append(True))
    if has_convolutions:
        data = read_dataset(PATHS[0])
        images = {
            name: getattr(data, name)[:, :, None, None].expand(-1, -1, 4, 4)
            for name in ("train_inputs", "test_inputs")
        }
        write_dataset(replace(data, **images), PATHS[0])
        dtype = next(network.parameters()).dtype
        inputs = images["train_inputs"].to(dtype)
        convnet = build_network(inputs, data.num_classes, 1, CONVNET, dtype)
        Checkpoint.of(convnet, 7, PROVENANCE).write(PATHS[1])
    load_solution(*PATHS, CONVNET if has_convolutions else MODEL)
    assert calls == [True] * has_convolutions


def test_recorded_data_are_the_first_training_samples_and_all_held_out(network: nn.Module) -> None:
    found = load_solution(*PATHS, MODEL)
    recorded: Dataset = found.recorded_data
    assert torch.equal(recorded.train_inputs, found.data.train_inputs[:12])
    assert torch.equal(recorded.train_targets, found.data.train_targets[:12])
    assert torch.equal(recorded.test_inputs, found.data.test_inputs)
    Checkpoint.of(network, 7, {"seed": 3, "training": {}}).write(PATHS[1])
    assert len(load_solution(*PATHS, MODEL).recorded_data.train_inputs) == 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [None, 7, 40])
def test_load_objective_is_the_loss_at_the_checkpoint(
    network: nn.Module, dtype: torch.dtype, batch_size: int | None
) -> None:
    objective, provenance = load_objective(*PATHS, MODEL, dtype=dtype, batch_size=batch_size)
    assert objective.theta.dtype == dtype
    assert torch.equal(objective.theta, theta_of(network).to(dtype))
    data = read_dataset(PATHS[0])
    outputs = network.to(dtype)(data.train_inputs.to(dtype))
    expected = functional.cross_entropy(outputs, data.train_targets).item()
    eps = torch.finfo(dtype).eps
    assert objective.loss(objective.theta).item() == pytest.approx(expected, rel=20 * eps)
    assert objective.num_data == 40
    assert provenance == {
        **PROVENANCE, "step": 7, "dtype": str(dtype).removeprefix("torch."), "device": "cpu",
        "num_parameters": 39,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_widths": [5]}, r"of this network, but it has 1.weight of shape \(4, 5\)"),
        ({"hidden_widths": [4, 4]}, "of this network, but it .*lacks 5.weight"),
        ({"hidden_widths": []}, "of this network, but it .*has 3.weight, which the network lacks"),
    ],
)
def test_checkpoint_of_another_model_is_refused(
    network: nn.Module, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DamagedFileError, match=rf"step7.safetensors .*{message}.*delete it"):
        load_solution(*PATHS, MODEL | changes)


def test_files_that_are_no_checkpoint_or_no_dataset_are_refused(network: nn.Module) -> None:
    with pytest.raises(DamagedFileError, match=r"data.safetensors .*not a checkpoint"):
        load_solution(PATHS[0], PATHS[0], MODEL)
    with pytest.raises(DamagedFileError, match=r"step7.safetensors .*not a dataset"):
        load_solution(PATHS[1], PATHS[1], MODEL)
    with pytest.raises(FileNotFoundError, match=r"step8.safetensors does not exist"):
        load_solution(PATHS[0], "step8.safetensors", MODEL)
    Checkpoint.of(network, 7, {}).write(PATHS[1])
    with pytest.raises(DamagedFileError, match=r"step7.safetensors .*provenance lacks the seed"):
        load_solution(*PATHS, MODEL)

"""From a configured experiment to checkpoints and spectra, through files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hesspipe
from hesspipe.data.dataset import read_dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.experiments.spectra import extract_spectrum
from hesspipe.experiments.training import TrainingRun
from hesspipe.files import read_tensors, write_tensors
from hesspipe.networks.architectures import build_model
from hesspipe.seeding import generator
from hesspipe.tables.store import Result

DATASET = {
    "kind": "gaussian_clusters",
    "num_clusters": 3,
    "cluster_std": 1.0,
    "num_features": 5,
    "center_low": -10.0,
    "center_high": 10.0,
    "num_train": 40,
    "num_test": 20,
    "seed": 0,
}
MODEL = {"kind": "mlp", "hidden_widths": [4], "activation": "relu", "initial_std": 0.5}
TRAINING = {
    "algorithm": "sgd",
    "batch_size": 10,
    "step_size": 0.1,
    "num_steps": 20,
    "record_every": 5,
    "checkpoint_every": 10,
    "dtype": "float64",
}


@pytest.fixture
def path_to_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_dataset(make_dataset(**DATASET), "dataset.safetensors")
    return Path("dataset.safetensors")


def run(path_to_dataset: Path, seed: int = 0, **changes: Any) -> TrainingRun:
    return TrainingRun(
        path_to_dataset=path_to_dataset, experiment="example", seed=seed, model=MODEL,
        training=TRAINING | changes,
    )  # fmt: skip


def spectrum_at(path_to_dataset: Path, path_to_checkpoint: str) -> Result:
    return extract_spectrum(
        path_to_dataset=path_to_dataset, path_to_checkpoint=path_to_checkpoint, model=MODEL,
        matrix="hessian", zero_tolerance=1.0,
    )  # fmt: skip


def test_run_leaves_its_checkpoints_and_no_state(path_to_dataset: Path) -> None:
    trained = run(path_to_dataset)
    trained.train(progress=False)
    assert trained.path_to_state.is_dir()
    trained.collect_checkpoints(["out/step0.safetensors", "out/step20.safetensors"])
    assert not trained.path_to_state.exists()
    first, _ = read_tensors("out/step0.safetensors")
    expected = build_model(
        trained.data.train_inputs, 3, generator(0, "initial parameters"), **MODEL
    )
    assert all(torch.equal(first[name], tensor) for name, tensor in expected.state_dict().items())


@pytest.mark.parametrize("change", [{"step_size": 0.2}, {"num_steps": 30}, {"batch_size": 5}])
def test_unfinished_state_belongs_to_one_specification(
    path_to_dataset: Path, change: dict[str, Any]
) -> None:
    assert run(path_to_dataset, **change).path_to_state != run(path_to_dataset).path_to_state
    assert run(path_to_dataset, seed=1).path_to_state != run(path_to_dataset).path_to_state
    assert run(path_to_dataset).path_to_state == run(path_to_dataset).path_to_state


NOISY = """
import torch
from torch import nn


class Noisy(nn.Module):
    def __init__(self, std):
        super().__init__()
        self.layer, self.std = nn.Linear(5, 3), std

    def forward(self, inputs):
        outputs = self.layer(inputs)
        return outputs + self.std * torch.randn_like(outputs) if self.training else outputs
"""


@pytest.mark.parametrize("algorithm", ["gd", "sgd"])
def test_training_of_a_user_network_with_noise_is_refused_before_its_first_step(
    path_to_dataset: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    Path("my_noise.py").write_text(NOISY)
    monkeypatch.setattr("sys.path", [*sys.path])
    training = {**TRAINING, "algorithm": algorithm}
    if algorithm == "gd":
        del training["batch_size"]

    def of_std(std: float) -> TrainingRun:
        model = {"kind": "user", "function": "my_noise:Noisy", "arguments": {"std": std},
                 "loss": "torch.nn:CrossEntropyLoss", "loss_arguments": {}}  # fmt: skip
        return TrainingRun(
            path_to_dataset=path_to_dataset, experiment="example", seed=0, model=model,
            training=training,
        )  # fmt: skip

    number = 10 if algorithm == "sgd" else 40
    with pytest.raises(ValueError, match=f"evaluations of the first {number} samples: .*randn"):
        of_std(1e-3).train(progress=False)
    quiet = of_std(0.0)
    history = quiet.train(progress=False)
    assert history.table["step"].tolist() == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extract_spectrum_gives_the_spectrum_at_the_checkpoint(
    path_to_dataset: Path, dtype: str
) -> None:
    trained = run(path_to_dataset, dtype=dtype)
    trained.train(progress=False)
    trained.collect_checkpoints(["out/step20.safetensors"])
    result = spectrum_at(path_to_dataset, "out/step20.safetensors")
    table, provenance = result.table, result.provenance
    data = read_dataset(path_to_dataset)
    model = build_model(data.train_inputs, 3, generator(0, "initial parameters"), **MODEL)
    model.load_state_dict(read_tensors("out/step20.safetensors")[0])
    objective = hesspipe.Objective(
        model, nn.CrossEntropyLoss(), (data.train_inputs, data.train_targets)
    )
    values = hesspipe.hessian_matrix(objective, "columns")
    expected = torch.linalg.eigvalsh(values)
    difference = torch.tensor(table["eigenvalue"].to_list(), dtype=torch.float64) - expected
    assert difference.abs().max() < 1e-13 * expected.abs().max()
    assert list(table["rank"]) == list(range(len(expected)))
    assert (provenance["step"], provenance["matrix"], provenance["method"]) == (
        20,
        "hessian",
        "layers",
    )
    assert provenance["num_negative"] + provenance["num_zero"] + provenance["num_positive"] == len(
        expected
    )
    assert provenance["dataset"] == DATASET
    assert provenance["training"]["dtype"] == dtype


def test_checkpoint_without_provenance_is_refused(path_to_dataset: Path) -> None:
    data = run(path_to_dataset).data
    model = build_model(data.train_inputs, 3, generator(0, "initial parameters"), **MODEL)
    write_tensors(model.state_dict(), "bare.safetensors", {})
    with pytest.raises(
        DamagedFileError, match=r"bare.safetensors .*it lacks 'parameters'.*delete it"
    ):
        spectrum_at(path_to_dataset, "bare.safetensors")

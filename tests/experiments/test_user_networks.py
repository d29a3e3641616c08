"""User networks, losses, data and saved states, from their functions and files to spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from user_functions import LANGUAGE, REGRESSION

import hesspipe
from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.experiments.spectra import extract_spectrum
from hesspipe.experiments.training import TrainingRun, import_state
from hesspipe.networks.build import build_loss, build_network
from hesspipe.networks.checkpoints import Checkpoint

TRAINING = {
    "algorithm": "sgd", "batch_size": 4, "step_size": 0.1, "num_steps": 20, "record_every": 10,
    "checkpoint_every": 10, "dtype": "float64",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code.py").write_text("")
    monkeypatch.chdir(tmp_path)


def user_data(function: str, **arguments: Any) -> Dataset:
    return make_dataset(kind="user", function=f"user_functions:{function}", arguments=arguments)


def a_run(model: dict[str, Any]) -> TrainingRun:
    return TrainingRun(
        path_to_dataset="data.safetensors", experiment="mine", seed=3, model=model,
        training=TRAINING, user_code=["code.py"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "data", "num_parameters"),
    [(REGRESSION, ("points", {"number": 12}), 21), (LANGUAGE, ("tokens", {}), 20)],
)
def test_run_of_user_functions_gives_the_spectrum_that_the_library_gives(
    model: dict[str, Any], data: tuple[str, dict[str, Any]], num_parameters: int
) -> None:
    dataset = user_data(data[0], **data[1])
    write_dataset(dataset, "data.safetensors")
    run = a_run(model)
    history = run.train(progress=False).table
    run.collect_checkpoints(["step20.safetensors"])
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    has_labels, is_held_out = data[0] == "tokens", data[0] == "tokens"
    assert history["train_accuracy"].notna().all() == has_labels
    assert history["test_loss"].notna().all() == is_held_out
    result = extract_spectrum(
        path_to_dataset="data.safetensors", path_to_checkpoint="step20.safetensors", model=model,
        matrix="hessian", zero_tolerance=1.0,
    )  # fmt: skip
    table = result.table
    assert result.provenance["num_parameters"] == num_parameters == len(table)
    assert result.provenance["num_classes"] is None
    # The same network, trained here by the formula.
    network = build_network(dataset.train_inputs, None, 3, model, torch.float64)
    Checkpoint.read("step20.safetensors").into(network)
    inputs, targets = dataset.train_inputs, dataset.train_targets
    if not has_labels:
        inputs, targets = inputs.double(), targets.double()
    objective = hesspipe.Objective(network, build_loss(model), (inputs, targets))
    expected = hesspipe.spectrum(objective).eigenvalues.numpy()
    assert abs(table["eigenvalue"].to_numpy() - expected).max() <= 1e-13 * abs(expected).max()
    assert history["train_loss"].iloc[-1] == pytest.approx(
        float(objective.loss(objective.theta)), rel=1e-12
    )


def test_unfinished_training_of_other_code_is_not_resumed() -> None:
    write_dataset(user_data("points", number=12), "data.safetensors")
    run = a_run(REGRESSION)
    before = run.path_to_state
    Path("code.py").write_text("# edited\n")
    assert run.path_to_state != before


def test_import_state_gives_a_checkpoint_like_that_of_a_training() -> None:
    write_dataset(user_data("points", number=12), "data.safetensors")
    inputs = torch.ones(2, 3).double()
    network = build_network(inputs, None, 5, REGRESSION, torch.float64).float()
    save_file(network.state_dict(), "state.safetensors")
    training = {"algorithm": "saved", "path": "state.safetensors"}
    import_state(
        path_to_dataset="data.safetensors", path_to_state="state.safetensors",
        experiment="mine", seed=7, model=REGRESSION, training=training,
    ).write("step0.safetensors")  # fmt: skip
    result = extract_spectrum(
        path_to_dataset="data.safetensors", path_to_checkpoint="step0.safetensors",
        model=REGRESSION, matrix="ggn", zero_tolerance=1.0,
    )  # fmt: skip
    table, found = result.table, result.provenance
    assert (found["step"], found["seed"], found["training"]) == (0, 7, training)
    data = read_dataset("data.safetensors")
    points = data.train_inputs.double(), data.train_targets.double()
    objective = hesspipe.Objective(network.double(), nn.MSELoss(), points)
    expected = hesspipe.spectrum(objective, "ggn").eigenvalues.numpy()
    assert abs(table["eigenvalue"].to_numpy() - expected).max() <= 1e-13 * abs(expected).max()


@pytest.mark.parametrize("is_zip", [True, False])
def test_import_state_takes_a_file_of_torch_save(is_zip: bool) -> None:
    write_dataset(user_data("points", number=12), "data.safetensors")
    network = build_network(torch.ones(2, 3).double(), None, 5, REGRESSION, torch.float64)
    torch.save(network.state_dict(), "state.pt", _use_new_zipfile_serialization=is_zip)
    checkpoint = import_state(
        path_to_dataset="data.safetensors", path_to_state="state.pt", experiment="mine",
        seed=7, model=REGRESSION, training={"algorithm": "saved", "path": "state.pt"},
    )  # fmt: skip
    for name, value in network.named_parameters():
        assert torch.equal(checkpoint.parameters[name], value)

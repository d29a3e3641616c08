"""What a user's functions and files give is taken as it is, or refused with one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

import hesspipe
from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.experiments.saved_states import import_state
from hesspipe.experiments.spectra import spectrum_table
from hesspipe.experiments.training import TrainingRun
from hesspipe.networks.build import (
    build_loss,
    build_network,
    load_state,
    make_own_dataset,
    refuse_random_training,
)

NETS = '''
import torch
from torch import nn

class Tied(nn.Module):
    """The same weights twice, and integers as inputs."""
    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embedding.weight
    def forward(self, tokens):
        return self.head(torch.tanh(self.embedding(tokens))).transpose(1, 2)

def build(width):
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))

def absolute():
    return lambda outputs, targets: (outputs - targets).abs().pow(3).mean()

def text(width): return "no network"
def number(): return 3

def points(number):
    inputs = torch.randn(number, 3)
    return inputs, inputs.sum(1, keepdim=True)

def tokens():
    passages = torch.arange(12).view(4, 3) % 5
    return passages, passages.roll(1), passages[:2], passages[:2]

def one(): return torch.ones(3),
def uneven(): return torch.ones(3, 1), torch.ones(4, 1)
def lists(): return [1.0], [2.0]
def infinite(): return torch.full((2, 1), float("inf")), torch.ones(2, 1)
def empty(): return torch.ones(0, 1), torch.ones(0, 1)
'''
REGRESSION: dict[str, Any] = {
    "kind": "own", "function": "my_own_nets:build", "arguments": {"width": 4},
    "loss": "torch.nn:MSELoss", "loss_arguments": {},
}  # fmt: skip
LANGUAGE = REGRESSION | {
    "function": "my_own_nets:Tied", "loss": "torch.nn:CrossEntropyLoss",
}  # fmt: skip
TRAINING = {
    "algorithm": "sgd", "batch_size": 4, "step_size": 0.1, "num_steps": 20, "record_every": 10,
    "checkpoint_every": 10, "dtype": "float64",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_own_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("my_own_nets", None)


def own_data(function: str, **arguments: Any) -> Dataset:
    return make_own_dataset(
        {"kind": "own", "function": f"my_own_nets:{function}", "arguments": arguments}
    )


def regression(seed: int = 0) -> nn.Module:
    return build_network(torch.ones(2, 3).double(), None, seed, REGRESSION, torch.float64)


def test_build_network_draws_from_the_seed_and_leaves_the_global_state() -> None:
    state = torch.random.get_rng_state()
    first, again, other = regression(0), regression(0), regression(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])
        assert value.dtype == torch.float64


def test_build_network_refuses_what_is_no_network() -> None:
    model = REGRESSION | {"function": "my_own_nets:text"}
    with pytest.raises(ValueError, match=r"'my_own_nets:text' must return .*Module, got str"):
        build_network(torch.ones(2, 3), None, 0, model, torch.float64)


def test_build_loss_is_ones_own_or_the_cross_entropy() -> None:
    loss_fn = build_loss(REGRESSION | {"loss": "my_own_nets:absolute"})
    assert loss_fn(torch.tensor([3.0]), torch.tensor([1.0])) == 8.0
    assert isinstance(build_loss({"kind": "mlp"}), nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"must return a loss of .outputs, targets., got int"):
        build_loss(REGRESSION | {"loss": "my_own_nets:number"})


def test_make_own_dataset_is_drawn_again_alike() -> None:
    first, again = own_data("points", number=6), own_data("points", number=6)
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert first.num_classes is None
    assert len(first.test_inputs) == 0
    write_dataset(first, "data.safetensors")
    assert torch.equal(read_dataset("data.safetensors").train_targets, first.train_targets)


def test_dataset_of_integers_stays_one() -> None:
    data = own_data("tokens").to(torch.float32, torch.device("cpu"))
    assert data.train_inputs.dtype == data.test_inputs.dtype == torch.int64
    assert own_data("points", number=2).to(torch.float64, torch.device("cpu")).train_targets.dtype \
        == torch.float64  # fmt: skip


def test_make_own_dataset_reads_a_file() -> None:
    tensors = {"train_inputs": torch.ones(3, 2), "train_targets": torch.zeros(3)}
    save_file(tensors, "own.safetensors")
    data = make_own_dataset({"kind": "file", "path": "own.safetensors"})
    assert torch.equal(data.train_inputs, tensors["train_inputs"])
    save_file(tensors | {"labels": torch.zeros(3)}, "own.safetensors")
    with pytest.raises(ValueError, match=r"own.safetensors must hold the tensors"):
        make_own_dataset({"kind": "file", "path": "own.safetensors"})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("one", "must return .inputs, targets. or .*, got a tuple of 1"),
        ("number", "got int"),
        ("uneven", "as many targets as inputs, got 3 inputs and 4 targets"),
        ("lists", "must return tensors, got list as train_inputs"),
        ("infinite", "finite numbers, got nan or inf in train_inputs"),
        ("empty", "at least one sample, got none"),
    ],
)
def test_make_own_dataset_refuses_what_is_no_data(function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own_data(function)


def test_load_state_puts_a_saved_state_into_a_network() -> None:
    saved, network = regression(1), regression(2)
    save_file(saved.state_dict(), "state.safetensors")
    load_state(network, "state.safetensors")
    for name, value in saved.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_load_state_finds_tied_weights_under_one_of_their_names() -> None:
    def tied(seed: int) -> nn.Module:
        return build_network(torch.ones(2, 3).long(), None, seed, LANGUAGE, torch.float64)

    saved, network = tied(1), tied(2)
    save_model(saved, "state.safetensors")
    load_state(network, "state.safetensors")
    assert torch.equal(next(network.parameters()), next(saved.parameters()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.bias": None}, "must hold the state dict of this network, but it lacks 0.bias"),
        ({"3.bias": torch.ones(1)}, "it has 3.bias, which the network lacks"),
        ({"0.bias": torch.ones(3)}, r"it has 0.bias of shape \(3,\), not \(4,\)"),
        ({"0.bias": torch.full((4,), float("nan"))}, "it has nan or inf in 0.bias"),
        ({"0.bias": None, "2.bias": None, "a": torch.ones(1), "b": torch.ones(1)},
         "lacks 0.bias, lacks 2.bias, has a, which the network lacks .and 1 more."),
    ],
)  # fmt: skip
def test_load_state_says_what_does_not_fit(
    changes: dict[str, torch.Tensor | None], message: str
) -> None:
    state = {**regression().state_dict(), **changes}
    save_file({name: value for name, value in state.items() if value is not None}, "s.safetensors")
    network, before = regression(1), regression(1)
    with pytest.raises(ValueError, match=message) as caught:
        load_state(network, "s.safetensors")
    assert "\n" not in str(caught.value)
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_load_state_says_that_there_is_no_file_or_no_such_file() -> None:
    with pytest.raises(ValueError, match="and does not exist"):
        load_state(regression(), "absent.safetensors")
    Path("text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="and cannot be read"):
        load_state(regression(), "text.safetensors")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.1),
        nn.BatchNorm1d(3),
        nn.MultiheadAttention(4, 2, dropout=0.1),
        nn.LSTM(3, 3, num_layers=2, dropout=0.1),
    ],
)
def test_training_of_a_random_network_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"without dropout and batch normalization, got 1 \("):
        refuse_random_training(nn.Sequential(nn.Linear(3, 3), layer))


def test_training_of_a_plain_network_is_not_refused() -> None:
    refuse_random_training(nn.Sequential(nn.Dropout(0.0), nn.LayerNorm(3), nn.LSTM(3, 3)))


@pytest.mark.parametrize(
    ("model", "data", "num_parameters"),
    [(REGRESSION, ("points", {"number": 12}), 21), (LANGUAGE, ("tokens", {}), 20)],
)
def test_run_of_ones_own_gives_the_spectrum_that_the_library_gives(
    model: dict[str, Any], data: tuple[str, dict[str, Any]], num_parameters: int
) -> None:
    dataset = own_data(data[0], **data[1])
    write_dataset(dataset, "data.safetensors")
    run = TrainingRun("data.safetensors", "mine", 3, model, TRAINING, ("my_own_nets.py",))
    history = run.train(progress=False)
    run.collect_checkpoints(["step20.safetensors"])
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    has_labels, is_held_out = data[0] == "tokens", data[0] == "tokens"
    assert history["train_accuracy"].notna().all() == has_labels
    assert history["test_loss"].notna().all() == is_held_out
    table, about = spectrum_table(
        "data.safetensors", "step20.safetensors", "hessian", model, zero_tolerance=1.0
    )
    assert about["num_parameters"] == num_parameters == len(table)
    assert about["num_classes"] is None
    # The same network, trained here by the formula.
    network = build_network(dataset.train_inputs, None, 3, model, torch.float64)
    load_state(network, "step20.safetensors")
    inputs, targets = dataset.train_inputs, dataset.train_targets
    if not has_labels:
        inputs, targets = inputs.double(), targets.double()
    objective = hesspipe.Objective(network, build_loss(model), (inputs, targets))
    expected = hesspipe.spectrum(objective).eigenvalues.numpy()
    assert abs(table["eigenvalue"].to_numpy() - expected).max() <= 1e-13 * abs(expected).max()
    assert history["train_loss"].iloc[-1] == pytest.approx(
        float(objective.loss(objective.theta)), rel=1e-12
    )


def test_unfinished_training_of_other_code_is_not_gone_on_with() -> None:
    write_dataset(own_data("points", number=12), "data.safetensors")
    run = TrainingRun("data.safetensors", "mine", 3, REGRESSION, TRAINING, ("my_own_nets.py",))
    before = run.path_to_state
    Path("my_own_nets.py").write_text(NETS + "# edited\n")
    assert run.path_to_state != before


def test_import_state_gives_a_checkpoint_like_that_of_a_training() -> None:
    write_dataset(own_data("points", number=12), "data.safetensors")
    network = regression(5).float()
    save_file(network.state_dict(), "state.safetensors")
    training = {"algorithm": "saved", "path": "state.safetensors"}
    import_state(
        "data.safetensors", "state.safetensors", "step0.safetensors",
        experiment="mine", seed=7, model=REGRESSION, training=training,
    )  # fmt: skip
    table, about = spectrum_table(
        "data.safetensors", "step0.safetensors", "ggn", REGRESSION, zero_tolerance=1.0
    )
    assert (about["step"], about["seed"], about["training"]) == (0, 7, training)
    data = read_dataset("data.safetensors")
    points = data.train_inputs.double(), data.train_targets.double()
    objective = hesspipe.Objective(network.double(), nn.MSELoss(), points)
    expected = hesspipe.spectrum(objective, "ggn").eigenvalues.numpy()
    assert abs(table["eigenvalue"].to_numpy() - expected).max() <= 1e-13 * abs(expected).max()

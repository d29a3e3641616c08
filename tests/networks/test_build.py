"""Networks and losses from their entries in config.yaml."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from user_functions import REGRESSION, Normalized

from hesspipe.networks.build import (
    build_loss,
    build_network,
    build_uninitialized,
    refuse_random_evaluations,
    refuse_random_training,
)

MLP = {"kind": "mlp", "hidden_widths": [4], "activation": "relu", "initial_std": 0.5}


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


def test_build_uninitialized_has_the_parameters_of_the_network_and_draws_none() -> None:
    inputs: Tensor = torch.ones(2, 3).double()
    state = torch.random.get_rng_state()
    drawn = build_network(inputs, 2, 0, MLP, torch.float64).state_dict()
    found = build_uninitialized(inputs, 2, 0, MLP, torch.float64).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (value.shape, value.dtype) for name, value in drawn.items()
    }
    assert not any(value.any() for value in found.values())


def test_build_uninitialized_repeats_what_a_checkpoint_does_not_hold() -> None:
    # A random projection is part of the network, although it is not in the state dict.
    model = REGRESSION | {"function": "user_functions:Normalized", "arguments": {}}
    inputs = torch.ones(2, 3).double()
    trained, again, other = (
        build(inputs, None, seed, model, torch.float64)
        for build, seed in ((build_network, 3), (build_uninitialized, 3), (build_network, 4))
    )
    for network in (trained, again, other):
        assert isinstance(network, Normalized)
    assert torch.equal(again.projection, trained.projection)
    assert not torch.equal(other.projection, trained.projection)


@pytest.mark.parametrize("build", [build_network, build_uninitialized])
def test_build_network_refuses_what_is_no_network(build: object) -> None:
    assert callable(build)
    model = REGRESSION | {"function": "user_functions:text"}
    with pytest.raises(ValueError, match=r"'user_functions:text' must return .*Module, got str"):
        build(torch.ones(2, 3), None, 0, model, torch.float64)
    with pytest.raises(ValueError, match="a mlp must have data with class labels, got none"):
        build(torch.ones(2, 3), None, 0, MLP, torch.float64)


def test_build_loss_is_the_users_or_the_cross_entropy() -> None:
    loss_fn = build_loss(REGRESSION | {"loss": "user_functions:absolute"})
    assert loss_fn(torch.tensor([3.0]), torch.tensor([1.0])) == 8.0
    assert isinstance(build_loss({"kind": "mlp"}), nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"must return a loss of .outputs, targets., got int"):
        build_loss(REGRESSION | {"loss": "user_functions:number"})


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


class Then(nn.Module):
    """A layer and a function of its outputs and the mode."""

    def __init__(self, function: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(3, 2), function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.layer(inputs), self.training)


class Counting(nn.Module):
    """Deterministic, though its buffer counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.num_calls: Tensor
        self.register_buffer("num_calls", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.num_calls += 1
        return self.layer(inputs) / self.num_calls


def noisy_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean() + torch.rand(())


INPUTS, TARGETS = torch.ones(5, 3), torch.zeros(5, 2)
RANDOM: dict[str, tuple[Callable[[Tensor, bool], Tensor], str]] = {
    "noise": (lambda hidden, _: hidden + torch.randn_like(hidden), "randn_like draws"),
    "noise in training": (
        lambda hidden, is_training: hidden + is_training * torch.randn_like(hidden),
        "randn_like draws",
    ),
    "dropout": (lambda hidden, is_training: functional.dropout(hidden, 0.5, is_training),
                "dropout draws"),
    "numpy": (lambda hidden, _: hidden * float(np.random.rand()),  # noqa: NPY002
              "something in it is random"),
    "a layer that is seldom skipped": (
        lambda hidden, is_training: hidden * (not is_training or random.random() > 0.001),
        "can change, if seldom, in the first 5 samples",
    ),
}  # fmt: skip


def refused(network: nn.Module, loss_fn: Any = nn.MSELoss()) -> str:  # noqa: B008
    states = torch.get_rng_state(), random.getstate()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    message = ""
    try:
        refuse_random_evaluations(network, loss_fn, INPUTS, TARGETS, torch.float32)
    except ValueError as error:
        message = str(error)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    for name, value in network.state_dict().items():
        assert torch.equal(before[name], value)
    return message


@pytest.mark.parametrize("name", RANDOM)
def test_training_of_a_network_that_draws_numbers_is_refused(name: str) -> None:
    function, cause = RANDOM[name]
    message = refused(Then(function))
    expected = "a network that is trained here must be deterministic in training mode, got "
    assert message.startswith(expected)
    assert cause in message
    assert message.endswith("give its state dict with training: {algorithm: saved}")
    assert "\n" not in message
    if "training" in name or name == "dropout":
        assert refused(Then(function).eval()) == ""


def test_training_with_a_random_loss_is_refused() -> None:
    assert "the loss that differs" in refused(nn.Linear(3, 2), noisy_loss)


@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(3, 2),
        Counting(),
        parametrizations.spectral_norm(nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0)),
        Then(lambda hidden, _: functional.dropout(hidden, 0.0, training=True)),
        Then(lambda hidden, _: hidden + 0.0 * torch.randn_like(hidden)),
    ],
)
def test_training_of_a_deterministic_network_is_not_refused(network: nn.Module) -> None:
    assert refused(network) == ""

"""Networks and losses from their entries in config.yaml."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from user_functions import REGRESSION, Normalized

from hesspipe.networks.build import (
    build_loss,
    build_network,
    build_uninitialized,
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

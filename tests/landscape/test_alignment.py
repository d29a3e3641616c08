"""Alignment of hidden units: exact for permuted copies, never worse for other networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from problems import EPS, network, normal, theta_of
from torch import nn
from torch.nn import functional

from hesspipe.data.dataset import Dataset
from hesspipe.data.mnist import mnist_digits
from hesspipe.landscape.alignment import align_units, match_units, permute_units
from hesspipe.landscape.barriers import find_barrier
from hesspipe.landscape.paths import evaluate_line, line_coefficients
from hesspipe.networks.architectures import (
    alexnet,
    convnet,
    initialize_normal,
    initialize_scaled,
    mlp,
)
from hesspipe.networks.training import Schedule, train

NETWORKS = {
    "one hidden layer": lambda: network([5, 7, 3]),
    "three hidden layers": lambda: network([5, 9, 8, 6, 3], "tanh"),
    "convolutions": lambda: convnet(
        input_shape=(2, 16, 16), channels=[6, 5], kernel_size=3, hidden_width=7, num_outputs=3
    ),
    "five convolutions": lambda: alexnet(
        input_shape=(1, 12, 12), channels=[4, 6, 8, 6, 5], kernel_sizes=[5, 3, 3, 3, 3],
        first_stride=1, pool_after=[1, 2], num_outputs=3,
    ),
}  # fmt: skip
SHAPES = {
    "one hidden layer": (5,),
    "three hidden layers": (5,),
    "convolutions": (2, 16, 16),
    "five convolutions": (1, 12, 12),
}


def drawn(name: str, seed: int) -> nn.Sequential:
    """A network at a random point."""
    model = NETWORKS[name]().double()
    initialize_normal(model, 0.4, torch.Generator().manual_seed(seed))
    return model


def random_orders(model: nn.Sequential, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    weights = [value for value in model.parameters() if value.dim() > 1]
    return [random.permutation(len(weight)) for weight in weights[:-1]]


def similarity(one: nn.Module, other: nn.Module) -> float:
    return float(theta_of(one) @ theta_of(other))


@pytest.mark.parametrize("name", NETWORKS)
def test_permute_units_leaves_the_function_and_moves_the_point(name):
    model = drawn(name, 0)
    before = theta_of(model)
    permuted = permute_units(model, random_orders(model, 1))
    inputs = normal(6, *SHAPES[name])
    expected = model(inputs)
    assert (permuted(inputs) - expected).abs().max() <= 50 * EPS * expected.abs().max()
    assert (theta_of(permuted) - before).norm() > 0.5 * before.norm()
    assert torch.equal(theta_of(model), before)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_align_units_finds_a_permuted_copy_exactly_at_zero_barrier(name, seed):
    model = drawn(name, seed)
    permuted = permute_units(model, random_orders(model, 10 + seed))
    aligned = align_units(model, permuted)
    assert torch.equal(theta_of(aligned), theta_of(model))
    # The labels are the network's predictions, so that both copies are solutions.
    train, test = normal(20, *SHAPES[name]), normal(5, *SHAPES[name], seed=3)
    data = Dataset(train, model(train).argmax(1), test, model(test).argmax(1), 3)
    coefficients = line_coefficients(10, 0)
    ends = theta_of(model), theta_of(permuted)
    apart = evaluate_line(model, data, *ends, coefficients, loss_fn=functional.cross_entropy)
    tolerance = 100 * EPS * model(train).abs().max().item()
    assert find_barrier(coefficients, apart["train_loss"]).height > 1000 * tolerance
    line = evaluate_line(
        model, data, ends[0], theta_of(aligned), coefficients, loss_fn=functional.cross_entropy
    )
    for column in ("train_loss", "test_loss"):
        height = find_barrier(coefficients, line[column]).height
        assert height <= tolerance


def test_match_units_finds_the_best_order_of_one_hidden_layer():
    # All 120 orders tried: one hidden layer is one assignment, whose optimum is global.
    one, other = network([3, 5, 2]), network([3, 5, 2])
    initialize_normal(other, 0.6, torch.Generator().manual_seed(5))
    best = max(
        similarity(one, permute_units(other, [np.array(order)]))
        for order in itertools.permutations(range(5))
    )
    found = similarity(one, align_units(one, other))
    assert found == pytest.approx(best, rel=10 * EPS)


@pytest.mark.parametrize("name", NETWORKS)
def test_match_units_ends_where_no_swap_of_two_units_helps(name):
    one, other = drawn(name, 3), drawn(name, 4)
    orders = match_units(one, other)
    found = similarity(one, permute_units(other, orders))
    assert found > similarity(one, other)
    for number, order in enumerate(orders):
        for left, right in itertools.combinations(range(len(order)), 2):
            swapped = [value.copy() for value in orders]
            swapped[number][[left, right]] = order[[right, left]]
            assert similarity(one, permute_units(other, swapped)) <= found + 1e-12 * abs(found)


def test_match_units_sees_the_biases():
    # Two units that differ only in their bias.
    one = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        for value in one.parameters():
            value.fill_(1.0)
        one[0].bias.copy_(torch.tensor([1.0, 3.0]))
    other = permute_units(one, [np.array([1, 0])])
    assert match_units(one, other)[0].tolist() == [1, 0]


def test_match_units_takes_layers_without_biases():
    one = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2)).double()
    initialize_normal(one, 1.0, torch.Generator().manual_seed(0))
    order = np.array([2, 0, 3, 1])
    assert torch.equal(theta_of(align_units(one, permute_units(one, [order]))), theta_of(one))


@pytest.mark.parametrize(
    "module", [nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=2), nn.LayerNorm(4)]
)
def test_match_units_refuses_what_treats_units_differently(module):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), module, nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"must be a Sequential of Linear and Conv2d .* at 1;"):
        match_units(model, model)


def test_match_units_refuses_networks_of_other_shapes():
    with pytest.raises(ValueError, match="layers of the same shape"):
        match_units(network([4, 5, 3]), network([4, 6, 3]))


def test_align_units_lowers_the_barrier_between_two_trained_networks(tmp_path):
    digits = mnist_digits(source="embedded", folder=None, num_train=500, seed=0)
    options = Schedule(0.1, 200, 50, 200, 200)
    models = []
    for seed in (0, 1):
        model = mlp(num_inputs=784, hidden_widths=[100], num_outputs=10, activation="relu").double()
        initialize_scaled(model, 2.0, torch.Generator().manual_seed(seed))
        train(model, digits, options, seed=seed, path_to_state=tmp_path / str(seed), progress=False)
        models.append(model)
    start, coefficients = theta_of(models[0]), line_coefficients(6, 0)
    heights = [
        find_barrier(
            coefficients,
            evaluate_line(
                models[0],
                digits,
                start,
                theta_of(end),
                coefficients,
                loss_fn=functional.cross_entropy,
            )["train_loss"],
        ).height
        for end in (models[1], align_units(*models))
    ]
    # Ainsworth et al. (2022), Section 5: it shrinks with the width; at 512 units to a fifth here.
    assert heights[1] < 0.5 * heights[0]

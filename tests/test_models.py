"""The paper's networks against explicit formulas, and their initial points."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hesspipe.models import build_model, initialize_normal, mlp
from hesspipe.seeding import generator

NONLINEARITIES = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}


def all_parameters(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def initialized(std: float, dtype: torch.dtype = torch.float64) -> nn.Module:
    model = mlp(num_inputs=50, hidden_widths=[100, 200], num_outputs=30, activation="relu")
    model.to(dtype)
    initialize_normal(model, std, generator(1, "initial parameters"))
    return model


@pytest.mark.parametrize(
    ("num_classes", "expected"), [(2, 4022), (5, 4115), (10, 4270), (20, 4580), (50, 5510)]
)
def test_mlp_has_the_number_of_parameters_of_table_1(num_classes, expected):
    model = mlp(num_inputs=100, hidden_widths=[30, 30], num_outputs=num_classes, activation="relu")
    assert len(all_parameters(model)) == expected


def forward(model: nn.Module, inputs: np.ndarray, activation: str) -> np.ndarray:
    """Evaluate W_L phi(... phi(W_1 x + b_1) ...) + b_L from the parameters alone."""
    parameters = [parameter.detach().numpy() for parameter in model.parameters()]
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    values = inputs.reshape(len(inputs), -1)
    for weight, bias in layers[:-1]:
        values = NONLINEARITIES[activation](values @ weight.T + bias)
    weight, bias = layers[-1]
    return values @ weight.T + bias


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("hidden_widths", [[], [5], [5, 4], [3, 6, 4]])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_mlp_equals_its_formula(activation, hidden_widths, shape):
    model = mlp(num_inputs=6, hidden_widths=hidden_widths, num_outputs=3, activation=activation)
    model.double()
    initialize_normal(model, 1.0, generator(0, "initial parameters"))
    inputs = torch.randn(7, *shape, generator=generator(0, "inputs"), dtype=torch.float64)
    outputs = model(inputs).detach().numpy()
    expected = forward(model, inputs.numpy(), activation)
    eps = np.finfo(np.float64).eps
    assert outputs.shape == (7, 3)
    assert np.abs(outputs - expected).max() <= 20 * eps * np.abs(expected).max()


@pytest.mark.parametrize("activation", ["sigmoid", "ReLU", ""])
def test_mlp_refuses_an_unknown_activation(activation):
    with pytest.raises(ValueError, match=r"activation must be one of \['relu', 'tanh'\], got"):
        mlp(num_inputs=2, hidden_widths=[2], num_outputs=2, activation=activation)


@pytest.mark.parametrize("std", [0.1, 2.0])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_initialize_normal_has_mean_zero_and_the_given_deviation(std, part):
    model = mlp(num_inputs=50, hidden_widths=[5000, 5], num_outputs=2, activation="relu")
    initialize_normal(model, std, generator(1, "initial parameters"))
    named = model.named_parameters()
    numbers = torch.cat([value.flatten() for name, value in named if name.endswith(part)]).double()
    size = len(numbers)
    assert abs(numbers.mean().item()) < 4 * std / math.sqrt(size)
    assert abs(numbers.std().item() - std) < 4 * std / math.sqrt(2 * size)


def test_initialize_normal_gives_normal_numbers():
    numbers = all_parameters(initialized(1.0))
    within = ((numbers.abs() < 1).double().mean() - math.erf(1 / math.sqrt(2))).abs()
    assert within < 4 * math.sqrt(0.6827 * 0.3173 / len(numbers))
    fourth = (numbers**4).mean() - 3
    assert fourth.abs() < 4 * math.sqrt(96 / len(numbers))


def test_initialize_normal_draws_no_number_twice():
    numbers = all_parameters(initialized(0.1))
    assert len(numbers.unique()) == len(numbers)


def test_initialize_normal_rounds_one_starting_point_to_every_dtype():
    single = all_parameters(initialized(0.1, torch.float32))
    double = all_parameters(initialized(0.1, torch.float64))
    assert single.dtype == torch.float32
    assert torch.equal(single, double.float())


def test_initialize_normal_scales_the_same_numbers():
    assert torch.equal(all_parameters(initialized(0.5)), 0.5 * all_parameters(initialized(1.0)))


def test_initialize_normal_leaves_the_global_random_state_alone():
    model = mlp(num_inputs=3, hidden_widths=[4], num_outputs=2, activation="tanh")
    before = torch.random.get_rng_state()
    initialize_normal(model, 0.1, generator(0, "initial parameters"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_initialize_normal_leaves_parameters_that_can_be_trained():
    model = initialized(0.1)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


def build(inputs: Tensor, **changes) -> nn.Module:
    settings = {"kind": "mlp", "initial_std": 0.3, "hidden_widths": [4], "activation": "tanh"}
    drawing = generator(2, "initial parameters")
    return build_model(inputs, 5, drawing, **settings | changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_build_model_fits_its_inputs(dtype):
    inputs = torch.ones(8, 2, 3, dtype=dtype)
    outputs = build(inputs)(inputs)
    assert outputs.shape == (8, 5)
    assert outputs.dtype == dtype


def test_build_model_starts_where_its_generator_says():
    model = build(torch.ones(1, 6, dtype=torch.float64))
    expected = mlp(num_inputs=6, hidden_widths=[4], num_outputs=5, activation="tanh").double()
    initialize_normal(expected, 0.3, generator(2, "initial parameters"))
    assert torch.equal(all_parameters(model), all_parameters(expected))


def test_build_model_does_not_depend_on_the_global_random_state():
    inputs = torch.ones(1, 6, dtype=torch.float64)
    first = all_parameters(build(inputs))
    with torch.random.fork_rng():
        torch.manual_seed(99)
        second = all_parameters(build(inputs))
    assert torch.equal(first, second)


def test_build_model_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="model kind must be 'mlp', got 'cnn'"):
        build(torch.ones(1, 6), kind="cnn")

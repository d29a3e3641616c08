"""The paper's networks against explicit formulas, and their initial points."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hesspipe.networks.architectures import (
    alexnet,
    build_model,
    convnet,
    initialize_normal,
    initialize_scaled,
    mlp,
)
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
    """Evaluate W_L phi(... phi(W_1 x + b_1) ...) + b_L from the parameters only."""
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


CONVNET = {"channels": [3, 4], "kernel_size": 5, "hidden_width": 6, "num_outputs": 10}


@pytest.mark.parametrize(
    ("shape", "channels", "kernel_size", "hidden_width", "num_outputs", "size"),
    [
        ((1, 28, 28), [10, 20], 5, 50, 10, (4, 4)),
        ((1, 28, 28), [1, 1], 1, 1, 2, (7, 7)),
        ((3, 32, 32), [6, 16], 5, 120, 10, (5, 5)),
        ((2, 17, 30), [4, 3], 3, 5, 7, (2, 6)),
        ((1, 28, 28), [2, 2], 9, 3, 10, (1, 1)),
    ],
)
def test_convnet_has_the_number_of_parameters_of_its_formula(
    shape, channels, kernel_size, hidden_width, num_outputs, size
):
    model = convnet(
        input_shape=shape,
        channels=channels,
        kernel_size=kernel_size,
        hidden_width=hidden_width,
        num_outputs=num_outputs,
    )
    expected = (
        channels[0] * (shape[0] * kernel_size**2 + 1)
        + channels[1] * (channels[0] * kernel_size**2 + 1)
        + hidden_width * (channels[1] * size[0] * size[1] + 1)
        + num_outputs * (hidden_width + 1)
    )
    assert len(all_parameters(model)) == expected
    assert model(torch.zeros(2, *shape)).shape == (2, num_outputs)


def small_convnet(shape: tuple[int, int, int], std: float = 0.5, **changes) -> nn.Module:
    model = convnet(input_shape=shape, **CONVNET | changes).double()
    initialize_normal(model, std, generator(0, "initial parameters"))
    return model


@pytest.mark.parametrize(("shape", "kernel_size"), [((1, 28, 28), 5), ((2, 13, 18), 3)])
def test_convnet_equals_its_formula(shape, kernel_size):
    model = small_convnet(shape, kernel_size=kernel_size)
    inputs = torch.randn(7, *shape, generator=generator(0, "inputs"), dtype=torch.float64)
    weights = list(model.parameters())
    values = inputs
    for weight, bias in (weights[:2], weights[2:4]):
        values = functional.max_pool2d(functional.conv2d(values, weight, bias).clamp(min=0), 2)
    hidden = (values.reshape(7, -1) @ weights[4].T + weights[5]).clamp(min=0)
    expected = hidden @ weights[6].T + weights[7]
    outputs = model(inputs)
    eps = torch.finfo(torch.float64).eps
    assert (outputs - expected).abs().max() <= 50 * eps * expected.abs().max()
    assert (hidden > 0).any()
    assert (hidden == 0).any()


def test_convnet_sees_every_part_of_a_digit():
    # 28 - 4 = 24, 12, 12 - 4 = 8, 4: no border pixels are dropped.
    inputs = torch.rand(3, 1, 28, 28, generator=generator(1, "inputs"), dtype=torch.float64)
    inputs.requires_grad_()
    small_convnet((1, 28, 28), channels=[8, 8], hidden_width=50)(inputs).sum().backward()
    seen = inputs.grad.abs().amax((0, 1)) > 0
    assert seen[0].any()
    assert seen[-1].any()
    assert seen[:, 0].any()
    assert seen[:, -1].any()


def test_convnet_starts_from_zero_and_draws_nothing():
    before = torch.random.get_rng_state()
    model = convnet(input_shape=(1, 28, 28), **CONVNET)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all_parameters(model).count_nonzero() == 0
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


@pytest.mark.parametrize("kernel_size", [10, 14, 28, 29, 60])
def test_convnet_refuses_kernels_that_leave_nothing(kernel_size):
    message = (
        "kernel_size must leave at least one pixel of 28 x 28 after 2 convolutions and "
        f"poolings, got {kernel_size}"
    )
    with pytest.raises(ValueError, match=message):
        convnet(input_shape=(1, 28, 28), **CONVNET | {"kernel_size": kernel_size})


def test_convnet_refuses_inputs_that_are_no_images():
    with pytest.raises(
        ValueError, match=r"height and width, got inputs of shape \(100,\); use an mlp"
    ):
        convnet(input_shape=(100,), **CONVNET)


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


IMAGE_SETTINGS = {
    "kind": "convnet",
    "initial_std": 0.3,
    "channels": [2, 3],
    "kernel_size": 5,
    "hidden_width": 4,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_build_model_builds_a_convnet_where_its_generator_says(dtype):
    inputs = torch.ones(8, 1, 28, 28, dtype=dtype)
    model = build_model(inputs, 5, generator(2, "initial parameters"), **IMAGE_SETTINGS)
    expected = convnet(
        input_shape=(1, 28, 28), channels=[2, 3], kernel_size=5, hidden_width=4, num_outputs=5
    ).to(dtype)
    initialize_normal(expected, 0.3, generator(2, "initial parameters"))
    assert torch.equal(all_parameters(model), all_parameters(expected))
    assert model(inputs).shape == (8, 5)
    assert model(inputs).dtype == dtype


def test_build_model_draws_a_convnet_without_the_global_random_state():
    inputs = torch.ones(1, 1, 28, 28)
    before = torch.random.get_rng_state()
    build_model(inputs, 5, generator(2, "initial parameters"), **IMAGE_SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_build_model_flattens_images_for_an_mlp():
    model = build(torch.ones(8, 1, 28, 28), hidden_widths=[30], activation="relu")
    # 784-30-5; the paper's networks on MNIST have 784-h-10.
    assert len(all_parameters(model)) == 785 * 30 + 31 * 5


def test_build_model_does_not_depend_on_the_global_random_state():
    inputs = torch.ones(1, 6, dtype=torch.float64)
    first = all_parameters(build(inputs))
    with torch.random.fork_rng():
        torch.manual_seed(99)
        second = all_parameters(build(inputs))
    assert torch.equal(first, second)


def test_build_model_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="model kind must be 'mlp', 'convnet' or 'alexnet', got"):
        build(torch.ones(1, 6), kind="cnn")


BARE_ALEXNET = {
    "channels": [64, 192, 384, 256, 256],
    "kernel_sizes": [11, 5, 3, 3, 3],
    "first_stride": 4,
    "pool_after": [1, 2, 5],
}
SMALL_ALEXNET = {
    "channels": [3, 4, 5, 4, 3],
    "kernel_sizes": [5, 3, 3, 1, 3],
    "first_stride": 2,
    "pool_after": [1, 2],
}


def test_alexnet_is_bare_and_has_five_convolutions():
    model = alexnet(input_shape=(3, 32, 32), num_outputs=10, **BARE_ALEXNET)
    kinds = {nn.Conv2d: 5, nn.ReLU: 5, nn.MaxPool2d: 3, nn.Flatten: 1, nn.Linear: 1}
    assert {kind: sum(type(module) is kind for module in model) for kind in kinds} == kinds
    assert len(model) == sum(kinds.values())
    # Counted by hand: inputs x outputs x kernel, and one bias for each output.
    expected = (
        (3 * 64 * 121 + 64) + (64 * 192 * 25 + 192) + (192 * 384 * 9 + 384)
        + (384 * 256 * 9 + 256) + (256 * 256 * 9 + 256) + (256 * 10 + 10)
    )  # fmt: skip
    assert len(all_parameters(model)) == expected
    assert all_parameters(model).count_nonzero() == 0


def convolved(values: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """A padded convolution from its definition, pixel by pixel."""
    half = weight.shape[-1] // 2
    padded = np.pad(values, ((0, 0), (0, 0), (half, half), (half, half)))
    rows, columns = (range(0, size, stride) for size in values.shape[2:])
    result = np.empty((len(values), len(weight), len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            patch = padded[:, :, row : row + 2 * half + 1, column : column + 2 * half + 1]
            result[:, :, i, j] = np.einsum("ncab,ocab->no", patch, weight) + bias
    return result


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 13, 18)])
def test_alexnet_equals_its_formula(shape):
    model = alexnet(input_shape=shape, num_outputs=3, **SMALL_ALEXNET).double()
    initialize_normal(model, 0.5, generator(0, "initial parameters"))
    inputs = torch.randn(4, *shape, generator=generator(0, "inputs"), dtype=torch.float64)
    weights = [value.detach().numpy() for value in model.parameters()]
    values = inputs.numpy()
    for number in range(5):
        stride = 2 if number == 0 else 1
        values = np.maximum(convolved(values, *weights[2 * number : 2 * number + 2], stride), 0)
        if number in (0, 1):
            height, width = values.shape[2] // 2, values.shape[3] // 2
            values = values[:, :, : 2 * height, : 2 * width]
            values = values.reshape(4, -1, height, 2, width, 2).max((3, 5))
    expected = values.reshape(4, -1) @ weights[10].T + weights[11]
    outputs = model(inputs).detach().numpy()
    assert np.abs(outputs - expected).max() <= 200 * np.finfo(float).eps * np.abs(expected).max()


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((100,), {}, r"height and width, got inputs of shape \(100,\); use an mlp"),
        ((1, 28, 28), {"kernel_sizes": [5, 3, 3, 4, 3]}, "must be 5 odd numbers.*4, 3"),
        ((1, 28, 28), {"kernel_sizes": [5, 3, 3]}, "must be 5 odd numbers"),
        ((1, 28, 28), {"pool_after": [1, 2, 3, 4]}, "pool_after must leave at least one pixel"),
    ],
)
def test_alexnet_refuses_sizes_that_do_not_fit(shape, changes, message):
    with pytest.raises(ValueError, match=message):
        alexnet(input_shape=shape, num_outputs=10, **SMALL_ALEXNET | changes)


def test_initialize_scaled_has_the_variance_of_each_layer_and_zero_biases():
    model = alexnet(input_shape=(3, 32, 32), num_outputs=10, **BARE_ALEXNET)
    initialize_scaled(model, 2.0, generator(0, "initial parameters"))
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert value.count_nonzero() == 0
            continue
        numbers, expected = value.detach().double().flatten(), 2.0 / value[0].numel()
        deviation = expected * math.sqrt(2 / len(numbers))
        assert abs((numbers**2).mean().item() - expected) < 4 * deviation, name
        assert abs(numbers.mean().item()) < 4 * math.sqrt(expected / len(numbers)), name


def test_initialize_scaled_keeps_the_mean_square_of_a_deep_relu_network():
    # With variance 2 / inputs, E[z^2] of a layer's sums is that of the layer before (He et al.).
    model = mlp(num_inputs=400, hidden_widths=[400] * 10, num_outputs=400, activation="relu")
    initialize_scaled(model, 2.0, generator(0, "initial parameters"))
    inputs = torch.randn(200, 400, generator=generator(0, "inputs"))
    first = model[:2](inputs).square().mean().item()
    last = model(inputs).square().mean().item()
    # A layer multiplies the mean square by 1 with deviation sqrt(5 / 400), ten layers by ten such.
    assert abs(math.log(last / first)) < 4 * math.sqrt(10 * 5 / 400)


@pytest.mark.parametrize("stds", [{}, {"initial_std": 0.1, "initial_gain": 2.0}])
def test_build_model_wants_one_way_to_draw_the_initial_point(stds):
    with pytest.raises(ValueError, match="one of initial_std and initial_gain must be given"):
        build_model(
            torch.ones(1, 6), 5, generator(0, "initial parameters"),
            kind="mlp", hidden_widths=[4], activation="tanh", **stds,
        )  # fmt: skip


def test_build_model_builds_an_alexnet_where_its_generator_says():
    inputs = torch.ones(2, 1, 28, 28)
    settings = {"kind": "alexnet", "initial_gain": 1.5, **SMALL_ALEXNET}
    model = build_model(inputs, 5, generator(2, "initial parameters"), **settings)
    expected = alexnet(input_shape=(1, 28, 28), num_outputs=5, **SMALL_ALEXNET)
    initialize_scaled(expected, 1.5, generator(2, "initial parameters"))
    assert torch.equal(all_parameters(model), all_parameters(expected))

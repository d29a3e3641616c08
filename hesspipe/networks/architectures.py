"""The paper's architectures, with parameters zero or at a random initial point."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(
    *, num_inputs: int, hidden_widths: Sequence[int], num_outputs: int, activation: str
) -> nn.Sequential:
    """Build a fully connected network that ends in logits.

    Parameters
    ----------
    num_inputs : int
        Dimension d of an input; inputs of more dimensions are flattened.
    hidden_widths : sequence of int
        Units in each hidden layer, first to last; may be empty.
    num_outputs : int
        C, the number of classes.
    activation : str
        "relu" or "tanh", after each hidden layer.

    Returns
    -------
    nn.Sequential
        For inputs of shape (N, ...), outputs of shape (N, C). Its parameters are zero; see
        `initialize_normal`.

    Examples
    --------
    >>> model = mlp(num_inputs=100, hidden_widths=[30, 30], num_outputs=10, activation="relu")
    >>> sum(parameter.numel() for parameter in model.parameters())
    4270
    """
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {activation!r}")
    layers: list[nn.Module] = [nn.Flatten()]
    for width, next_width in pairwise([num_inputs, *hidden_widths, num_outputs]):
        # Without torch's initialization, which draws from the global random state.
        layers += [torch.nn.utils.skip_init(nn.Linear, width, next_width)]
        layers += [_ACTIVATIONS[activation]()]
    return _with_zero_parameters(nn.Sequential(*layers[:-1]))


def convnet(
    *,
    input_shape: Sequence[int],
    channels: Sequence[int],
    kernel_size: int,
    hidden_width: int,
    num_outputs: int,
) -> nn.Sequential:
    """Build a network of convolutions and two fully connected layers that ends in logits.

    Each convolution (square kernels, stride 1, no padding) is followed by ReLU and by
    max-pooling over 2 x 2 (stride 2, an odd last row or column is dropped).

    Parameters
    ----------
    input_shape : sequence of int
        Channels, height and width of an input.
    channels : sequence of int
        Output channels of each convolution, first to last; the paper has two.
    kernel_size : int
        Height and width of every kernel.
    hidden_width : int
        Units between the two fully connected layers, with ReLU.
    num_outputs : int
        C, the number of classes.

    Returns
    -------
    nn.Sequential
        For inputs of shape (N, *input_shape), outputs of shape (N, C). Its parameters are
        zero; see `initialize_normal`.

    References
    ----------
    Sagun, Evci, Guney, Dauphin, Bottou (2017), Section 3.3: "2 convolution layers with
    relu-maxpool followed by two fully-connected layers".

    Examples
    --------
    >>> model = convnet(
    ...     input_shape=(1, 28, 28),
    ...     channels=[10, 20],
    ...     kernel_size=5,
    ...     hidden_width=50,
    ...     num_outputs=10,
    ... )
    >>> sum(parameter.numel() for parameter in model.parameters())
    21840
    """
    if len(input_shape) != 3:
        raise ValueError(
            "convnet must have inputs of channels, height and width, got inputs of shape "
            f"{tuple(input_shape)}; use an mlp for others"
        )
    num_channels, height, width = input_shape
    layers: list[nn.Module] = []
    for num_inputs, num_features in pairwise([num_channels, *channels]):
        height, width = (height - kernel_size + 1) // 2, (width - kernel_size + 1) // 2
        layers += [torch.nn.utils.skip_init(nn.Conv2d, num_inputs, num_features, kernel_size)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    if min(height, width) < 1:
        raise ValueError(
            f"kernel_size must leave at least one pixel of {input_shape[1]} x {input_shape[2]} "
            f"after {len(channels)} convolutions and poolings, got {kernel_size}"
        )
    num_features = [num_channels, *channels][-1] * height * width
    layers += [nn.Flatten(), torch.nn.utils.skip_init(nn.Linear, num_features, hidden_width)]
    layers += [nn.ReLU(), torch.nn.utils.skip_init(nn.Linear, hidden_width, num_outputs)]
    return _with_zero_parameters(nn.Sequential(*layers))


def alexnet(
    *,
    input_shape: Sequence[int],
    channels: Sequence[int],
    kernel_sizes: Sequence[int],
    first_stride: int,
    pool_after: Sequence[int],
    num_outputs: int,
) -> nn.Sequential:
    """Build the bare AlexNet: convolutions and one fully connected layer, ending in logits.

    Bare means without dropout and without normalization of any kind. Each convolution is padded
    by half of its kernel and followed by ReLU, and after some of them by max-pooling over 2 x 2
    (stride 2, an odd last row or column is dropped).

    Parameters
    ----------
    input_shape : sequence of int
        Channels, height and width of an input.
    channels : sequence of int
        Output channels of each convolution, first to last; AlexNet has five.
    kernel_sizes : sequence of int
        Height and width of the kernels of each convolution; odd.
    first_stride : int
        Step of the first convolution, in pixels; the others have 1.
    pool_after : sequence of int
        Numbers of the convolutions, counted from 1, that a max-pooling follows.
    num_outputs : int
        C, the number of classes.

    Returns
    -------
    nn.Sequential
        For inputs of shape (N, *input_shape), outputs of shape (N, C). Its parameters are
        zero; see `initialize_scaled`.

    References
    ----------
    Krizhevsky, Sutskever, Hinton (2012), ImageNet classification with deep convolutional neural
    networks; Krizhevsky (2014), One weird trick for parallelizing convolutional neural networks,
    for the number of channels.

    Examples
    --------
    >>> model = alexnet(
    ...     input_shape=(3, 32, 32),
    ...     channels=[64, 192, 384, 256, 256],
    ...     kernel_sizes=[11, 5, 3, 3, 3],
    ...     first_stride=4,
    ...     pool_after=[1, 2, 5],
    ...     num_outputs=10,
    ... )
    >>> sum(parameter.numel() for parameter in model.parameters())
    2472266
    """
    if len(input_shape) != 3:
        raise ValueError(
            "alexnet must have inputs of channels, height and width, got inputs of shape "
            f"{tuple(input_shape)}; use an mlp for others"
        )
    if len(kernel_sizes) != len(channels) or not all(size % 2 for size in kernel_sizes):
        raise ValueError(
            f"kernel_sizes must be {len(channels)} odd numbers, one for each convolution, "
            f"got {list(kernel_sizes)}"
        )
    layers: list[nn.Module] = []
    sides = list(input_shape[1:])
    widths = pairwise([input_shape[0], *channels])
    for number, ((before, after), size) in enumerate(zip(widths, kernel_sizes, strict=True), 1):
        stride = first_stride if number == 1 else 1
        layers += [torch.nn.utils.skip_init(nn.Conv2d, before, after, size, stride, size // 2)]
        layers += [nn.ReLU()]
        sides = [(side - 1) // stride + 1 for side in sides]
        if number in pool_after:
            layers += [nn.MaxPool2d(2)]
            sides = [side // 2 for side in sides]
    if min(sides) < 1:
        raise ValueError(
            f"pool_after must leave at least one pixel of {input_shape[1]} x {input_shape[2]} with "
            f"a first stride of {first_stride}, got {list(pool_after)}"
        )
    num_features = channels[-1] * sides[0] * sides[1]
    layers += [nn.Flatten(), torch.nn.utils.skip_init(nn.Linear, num_features, num_outputs)]
    return _with_zero_parameters(nn.Sequential(*layers))


def _with_zero_parameters(model: nn.Sequential) -> nn.Sequential:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


@torch.no_grad()
def initialize_normal(model: nn.Module, std: float, generator: torch.Generator) -> None:
    """Fill every parameter, weights and biases alike, with std * standard normal numbers.

    The numbers are drawn in float64 and then rounded, so that one seed gives one starting
    point in every dtype.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    std : float
    generator : torch.Generator
        On the CPU.
    """
    for parameter in model.parameters():
        numbers = torch.randn(
            parameter.shape, generator=generator, dtype=torch.float64, device="cpu"
        )
        parameter.copy_(std * numbers)


@torch.no_grad()
def initialize_scaled(model: nn.Module, gain: float, generator: torch.Generator) -> None:
    """Draw each weight with variance gain / (inputs of its unit); biases are zero.

    With a constant standard deviation, as in `initialize_normal`, the signal of a deep network
    grows or shrinks by the same factor in every layer. With gain = 2, ReLU layers preserve its
    mean square.

    Parameters
    ----------
    model : nn.Module
        Changed in place; parameters of two dimensions or more are weights, others biases.
    gain : float
    generator : torch.Generator
        On the CPU; the numbers are drawn in float64 and then rounded.

    References
    ----------
    He, Zhang, Ren, Sun (2015), Delving deep into rectifiers, Equation 10.
    """
    for parameter in model.parameters():
        if parameter.dim() < 2:
            parameter.zero_()
            continue
        numbers = torch.randn(
            parameter.shape, generator=generator, dtype=torch.float64, device="cpu"
        )
        parameter.copy_((gain / parameter[0].numel()) ** 0.5 * numbers)


def build_architecture(
    inputs: Tensor, num_outputs: int, *, kind: str, **settings: Any
) -> nn.Module:
    """Build one of the paper's networks with all parameters zero.

    Parameters
    ----------
    inputs : Tensor, shape (N, ...)
        Example inputs, which determine input size, dtype and device.
    num_outputs : int
        C, the number of classes.
    kind : str
        "mlp", "convnet" or "alexnet".
    **settings
        The other arguments of the function of that name.
    """
    if kind == "mlp":
        model = mlp(num_inputs=inputs[0].numel(), num_outputs=num_outputs, **settings)
    elif kind == "convnet":
        model = convnet(input_shape=inputs.shape[1:], num_outputs=num_outputs, **settings)
    elif kind == "alexnet":
        model = alexnet(input_shape=inputs.shape[1:], num_outputs=num_outputs, **settings)
    else:
        raise ValueError(f"model kind must be 'mlp', 'convnet' or 'alexnet', got {kind!r}")
    return model.to(inputs.device, inputs.dtype)


def build_model(
    inputs: Tensor,
    num_outputs: int,
    generator: torch.Generator,
    *,
    kind: str,
    initial_std: float | None = None,
    initial_gain: float | None = None,
    **settings: Any,
) -> nn.Module:
    """Build one of the paper's networks at a random initial point.

    Parameters
    ----------
    inputs, num_outputs, kind, **settings
        See `build_architecture`.
    generator : torch.Generator
        Draws the initial point; on the CPU.
    initial_std, initial_gain : float
        Exactly one of them: see `initialize_normal` and `initialize_scaled`.
    """
    if (initial_std is None) == (initial_gain is None):
        raise ValueError(
            "one of initial_std and initial_gain must be given, "
            f"got {initial_std} and {initial_gain}"
        )
    model = build_architecture(inputs, num_outputs, kind=kind, **settings)
    if initial_gain is not None:
        initialize_scaled(model, initial_gain, generator)
    elif initial_std is not None:
        initialize_normal(model, initial_std, generator)
    return model

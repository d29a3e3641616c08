"""The paper's architectures."""

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
        # Without torch's own initialization, which draws from the global random state.
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
    max-pooling over 2 x 2 (stride 2, an odd last row or column is left out).

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
        numbers = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(std * numbers)


def build_model(
    inputs: Tensor,
    num_outputs: int,
    generator: torch.Generator,
    *,
    kind: str,
    initial_std: float,
    **settings: Any,
) -> nn.Module:
    """Build a model from its entry in config.yaml, at a random initial point.

    Parameters
    ----------
    inputs : Tensor, shape (N, ...)
        A batch of what the model will see: gives its input size, dtype and device.
    num_outputs : int
        C, the number of classes.
    generator : torch.Generator
        Draws the initial point; on the CPU.
    kind : str
        "mlp" or "convnet".
    initial_std : float
        See `initialize_normal`.
    **settings
        The other arguments of the function of that name.
    """
    if kind == "mlp":
        model = mlp(num_inputs=inputs[0].numel(), num_outputs=num_outputs, **settings)
    elif kind == "convnet":
        model = convnet(input_shape=inputs.shape[1:], num_outputs=num_outputs, **settings)
    else:
        raise ValueError(f"model kind must be 'mlp' or 'convnet', got {kind!r}")
    model = model.to(inputs.device, inputs.dtype)
    initialize_normal(model, initial_std, generator)
    return model

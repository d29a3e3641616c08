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
    model = nn.Sequential(*layers[:-1])
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
        "mlp".
    initial_std : float
        See `initialize_normal`.
    **settings
        The other arguments of the function of that name.
    """
    if kind != "mlp":
        raise ValueError(f"model kind must be 'mlp', got {kind!r}")
    model = mlp(num_inputs=inputs[0].numel(), num_outputs=num_outputs, **settings)
    model = model.to(inputs.device, inputs.dtype)
    initialize_normal(model, initial_std, generator)
    return model

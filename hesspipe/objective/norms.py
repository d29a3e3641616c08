"""Normalization by the statistics of its input, with correct derivatives of every order.

Torch's layer norm, and the batch norm that instance norm is computed with, keep the mean and the
variance of the forward pass for the second derivative, and take them as constants: the third
derivative is wrong. So is the derivative of the one in forward mode. A loss that differentiates the
model, such as a gradient penalty or the residual of a differential equation, needs both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# In the place of functions of torch, with their arguments; what they leave to torch is what it
# refuses, or what has no statistics of the input.


def layer_norm(
    input: Tensor,  # noqa: A002 (torch's name, which may be a keyword)
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Compute what `torch.nn.functional.layer_norm` does.

    Examples
    --------
    >>> layer_norm(torch.tensor([[-1.0, 1.0]]), [2], eps=0.0)
    tensor([[-1.,  1.]])
    """
    count = len(normalized_shape)
    if not count or tuple(input.shape[-count:]) != tuple(normalized_shape):
        return functional.layer_norm(input, normalized_shape, weight, bias, eps)
    found = _normalized(input, range(-count, 0), eps)
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


def instance_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute what `torch.nn.functional.instance_norm` does."""
    if not use_input_stats or running_mean is not None or input[0, 0].numel() < 2:
        return functional.instance_norm(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        )
    found = _normalized(input, range(2, input.ndim), eps)
    return _of_channels(found, weight, bias)


def batch_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute what `torch.nn.functional.batch_norm` does."""
    if not training or running_mean is not None or input[:, 0].numel() < 2:
        return functional.batch_norm(
            input, running_mean, running_var, weight, bias, training, momentum, eps
        )
    found = _normalized(input, [0, *range(2, input.ndim)], eps)
    return _of_channels(found, weight, bias)


def _normalized(values: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    centered = values - values.mean(tuple(dims), keepdim=True)
    return centered * (centered.square().mean(tuple(dims), keepdim=True) + eps).rsqrt()


def _of_channels(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = [-1] + [1] * (values.ndim - 2)
    values = values if weight is None else values * weight.view(shape)
    return values if bias is None else values + bias.view(shape)


EXACT_NORMS = {
    functional.layer_norm: layer_norm,
    functional.instance_norm: instance_norm,
    functional.batch_norm: batch_norm,
}


def is_differentiated_inside() -> bool:
    """Whether a transform of `torch.func` or forward mode differentiates what is evaluated."""
    is_transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return is_transformed or torch.autograd.forward_ad._current_level >= 0

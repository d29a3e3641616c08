"""The networks of the questions, at drawn points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from battery.libraries import normal


def drawn(model: nn.Module) -> Any:
    """The model in float64, with standard normal parameters, a little smaller."""
    model = model.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
    return model


def mlp(activation: Callable[[], nn.Module] = nn.Tanh, num_outputs: int = 3) -> Any:
    """A network of 55 parameters with 3 outputs."""
    return drawn(nn.Sequential(nn.Linear(6, 4), activation(), nn.Linear(4, 3), nn.Tanh(),
                               nn.Linear(3, num_outputs)))  # fmt: skip


def layers(*between: nn.Module, num_outputs: int = 3) -> Any:
    """A network with these modules between its two layers."""
    return drawn(nn.Sequential(nn.Linear(6, 4), *between, nn.Linear(4, num_outputs)))


def ending(last: nn.Module, num_outputs: int = 3) -> Any:
    """A network with a module after its last layer."""
    return drawn(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, num_outputs), last))


class Between(nn.Module):
    """A network with a user function between its layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 4), nn.Linear(4, 3), function

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply."""
        outputs: Tensor = self.last(self.function(self.first(inputs)))
        return outputs


def between(function: Callable[[Tensor], Tensor]) -> Any:
    """The same at a drawn point."""
    return drawn(Between(function))


class Attention(nn.Module):
    """Causal self-attention over 3 places by the fused function of torch 2."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.last = nn.Linear(2, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Mix the places."""
        query, key, value = self.project(inputs.view(-1, 1, 3, 2)).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        outputs: Tensor = self.last(mixed.flatten(1))
        return outputs


class Recurrent(nn.Module):
    """An LSTM over 3 places."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores from the last state."""
        outputs: Tensor = self.last(self.recurrent(inputs.view(-1, 3, 2))[0][:, -1])
        return outputs


class Places(nn.Module):
    """Scores of 3 classes at 5 places, (N, 3, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 15)

    def forward(self, inputs: Tensor) -> Tensor:
        """Classes come before places, as torch's cross-entropy wants them."""
        outputs: Tensor = self.last(self.first(inputs).tanh()).view(-1, 3, 5)
        return outputs


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Twice through the weight."""
        outputs: Tensor = self.last(self.second(self.first(inputs).tanh()).tanh())
        return outputs


class Checkpointed(nn.Module):
    """A layer whose activations are computed again in the backward pass."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 3)
        self.use_reentrant = use_reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        """With a checkpoint, or without if `use_reentrant` is None."""
        hidden = self.first(inputs)
        if self.use_reentrant is None:
            hidden = hidden.tanh()
        else:
            hidden = checkpoint(torch.tanh, hidden, use_reentrant=self.use_reentrant)
        outputs: Tensor = self.last(hidden)
        return outputs


class Slope(nn.Module):
    """The derivative of a network in its inputs, as gradient penalties have it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, inputs: Tensor) -> Tensor:
        """The slope of the sum of the outputs, (N, 6)."""
        inputs = inputs.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.inner(inputs).sum(), inputs, create_graph=True)
        return slope


class DetachedForSome(nn.Module):
    """No gradient flows through the hidden layer of some samples."""

    def __init__(self, *, is_detached: bool) -> None:
        super().__init__()
        self.first, self.last, self.is_detached = nn.Linear(6, 4), nn.Linear(4, 3), is_detached

    def forward(self, inputs: Tensor) -> Tensor:
        """Where the first input is large."""
        hidden = self.first(inputs).tanh()
        if self.is_detached:
            hidden = torch.where(inputs[:, :1] > 1, hidden.detach(), hidden)
        outputs: Tensor = self.last(hidden)
        return outputs


class SquareWithConstantSlope(torch.autograd.Function):
    """Its backward method detaches: the second derivative lacks a term."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """The square."""
        ctx.save_for_backward(values)
        return values.square()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        """The derivative, as a number."""
        return 2 * ctx.saved_tensors[0].detach() * slope


def square_with_constant_slope(values: Tensor) -> Tensor:
    """As a function."""
    # torch leaves `apply` without types.
    result: Tensor = SquareWithConstantSlope.apply(values)  # type: ignore[no-untyped-call]
    return result


def in_float32(hidden: Tensor) -> Tensor:
    """Like models that keep their norms in float32."""
    return hidden.float().tanh().double()


def straight_through(hidden: Tensor) -> Tensor:
    """Rounding with the derivative of the identity."""
    return (hidden + (hidden.round() - hidden).detach()).tanh()


def with_noise(hidden: Tensor) -> Tensor:
    """Noise whether or not the model is in training mode."""
    return hidden.tanh() + 0.1 * torch.randn_like(hidden)


def normalized_mlp() -> Any:
    """A network with batch normalization and non-trivial statistics."""
    model = layers(nn.BatchNorm1d(4), nn.Tanh())
    model(normal(40, 6, seed=7) + 1)
    return model


def frozen_mlp() -> Any:
    """The first bias is constant."""
    model = mlp()
    model[0].bias.requires_grad_(False)
    return model


def unused_mlp() -> Any:
    """A layer that the outputs do not depend on."""
    model = Between(torch.tanh)
    model.unused = nn.Linear(2, 2)
    return drawn(model)


def convolutional() -> Any:
    """A convolution and max pooling."""
    return drawn(nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 8, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 3),
    ))  # fmt: skip


class WrittenOutWeightNorm(nn.Linear):
    """Weight normalization by elementary operations, with the parameters in torch's order."""

    def __init__(self) -> None:
        super().__init__(6, 4)
        del self.weight
        self.scale = nn.Parameter(torch.ones(4, 1))
        self.direction = nn.Parameter(torch.ones(4, 6))

    def forward(self, inputs: Tensor) -> Tensor:
        """The same numbers as torch.nn.utils.parametrizations.weight_norm."""
        norm = self.direction.square().sum(1, keepdim=True).sqrt()
        return functional.linear(inputs, self.scale * self.direction / norm, self.bias)


def weight_norm_networks() -> list[Any]:
    """By torch's function, and by elementary operations."""
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    return [
        drawn(nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3)))
        for layer in (normed, WrittenOutWeightNorm())
    ]


class WrittenOutPruning(nn.Linear):
    """A layer with a mask, with the parameters in the order of torch's pruning."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(6, 4)
        weight = self.weight
        del self.weight
        self.weight_orig = nn.Parameter(weight.detach())
        self.register_buffer("mask", mask)

    def forward(self, inputs: Tensor) -> Tensor:
        """The weight times the mask."""
        return functional.linear(inputs, self.weight_orig * self.mask, self.bias)


def pruned_networks() -> list[Any]:
    """By torch's function, and by elementary operations."""
    pruned = nn.Linear(6, 4)
    prune.l1_unstructured(pruned, "weight", 0.5)
    written = WrittenOutPruning(pruned.weight_mask.clone())
    return [drawn(nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3))) for layer in (pruned, written)]


def embedding() -> Any:
    """Tokens of which number 0 is padding."""
    return drawn(nn.Sequential(nn.Embedding(5, 4, padding_idx=0), nn.Flatten(), nn.Tanh(),
                               nn.Linear(12, 3)))  # fmt: skip


dropout_function = partial(functional.dropout, p=0.3)

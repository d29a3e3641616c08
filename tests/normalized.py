"""Networks with normalization, and losses that differentiate them, for tests of derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.autograd.forward_ad as forward_mode
from problems import normal
from torch import Tensor, nn

INPUTS = normal(5, 3, seed=1)


class Normalized(nn.Module):
    """Normalizes rows of 6 numbers, by a layer or by its formula over parts of a row."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...], is_written_out: bool) -> None:
        super().__init__()
        self.layer, self.shape, self.is_written_out = layer, shape, is_written_out

    def forward(self, rows: Tensor) -> Tensor:
        values = rows.view(-1, *self.shape)
        if not self.is_written_out:
            return self.layer(values).flatten(1)
        centered = values - values.mean(-1, keepdim=True)
        values = centered / (centered.square().mean(-1, keepdim=True) + self.layer.eps).sqrt()
        weight, bias = self.layer.weight, self.layer.bias
        if isinstance(self.layer, nn.InstanceNorm1d):
            weight, bias = weight.unsqueeze(1), bias.unsqueeze(1)
        return (values * weight + bias).flatten(1)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer": (lambda: nn.LayerNorm(6), (6,)),
    "layer, parts": (lambda: nn.LayerNorm(2), (3, 2)),
    "instance": (lambda: nn.InstanceNorm1d(2, affine=True), (2, 3)),
}


def network(name: str, *, is_written_out: bool) -> nn.Sequential:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    norm = Normalized(make(), shape, is_written_out)
    model = nn.Sequential(nn.Linear(3, 6), norm, nn.Softplus(), nn.Linear(6, 1)).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def backward(model: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]


def transform(model: nn.Module, x: Tensor) -> Tensor:
    return torch.vmap(torch.func.grad(lambda row: model(row.unsqueeze(0)).sum()))(x)


def forward(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.jvp(model, (x,), (torch.ones_like(x),))[1]


def dual(model: nn.Module, x: Tensor) -> Tensor:
    with forward_mode.dual_level():
        outputs = model(forward_mode.make_dual(x, torch.ones_like(x)))
        return forward_mode.unpack_dual(outputs).tangent


def catching(model: nn.Module, x: Tensor) -> Tensor:
    try:
        return backward(model, x)
    except Exception:
        return model(x)


SLOPES = {one.__name__: one for one in (backward, transform, forward, dual, catching)}


def penalty(slopes: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, x: Tensor) -> Tensor:
    return ((slopes(model, x).square().sum(1) + 0.1).sqrt() - 1).square().mean()


def hessian_by_double_backward(model: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(loss(), parameters, create_graph=True, materialize_grads=True)
    rows = [
        torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True)
        for slope in slopes
        for entry in slope.flatten()
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


class Field(nn.Module):
    """A Hamiltonian vector field, whose forward method differentiates a network."""

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return backward(self.energy, x).roll(1, dims=1)


class Returned:
    """The inputs and outputs of a network, with their graph."""

    def __init__(self, x: Tensor, outputs: Tensor) -> None:
        self.x, self.outputs = x, outputs

    def slopes(self) -> Tensor:
        return torch.autograd.grad(self.outputs.sum(), self.x, create_graph=True)[0]


class Returning(nn.Module):
    """Returns a graph, which a loss differentiates."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Returned:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return Returned(x, self.inner(x))


def distance(returned: Returned, targets: Tensor) -> Tensor:
    return (returned.slopes() - targets).square().mean()

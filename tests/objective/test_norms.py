"""Losses that differentiate a model with normalization, of which torch's third derivative is wrong.

The reference is the same network with normalization written out, by plain double backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from problems import assert_close, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.objective.norms import batch_norm, instance_norm, layer_norm
from hesspipe.objective.objective import Objective

# torch warns about torch.jit.script, which it uses itself, when it first differentiates forward.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

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


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", SLOPES)
def test_hessian_of_a_penalty_on_slopes_is_that_of_the_formula(way: str, name: str) -> None:
    slopes = SLOPES[way]
    objective = Objective.from_batches(
        network(name, is_written_out=False),
        lambda model, batch: penalty(slopes, model, batch),
        [INPUTS],
    )
    plain = network(name, is_written_out=True)
    expected = hessian_by_double_backward(plain, lambda: penalty(slopes, plain, INPUTS))
    assert_close(hesspipe.hessian_matrix(objective), expected, factor=500)


class Field(nn.Module):
    """A Hamiltonian vector field, whose forward method differentiates a network."""

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return backward(self.energy, x).roll(1, dims=1)


@pytest.mark.parametrize("name", LAYERS)
def test_hessian_of_a_model_that_differentiates_is_that_of_the_formula(name: str) -> None:
    targets = normal(5, 3, seed=2)
    model = Field(network(name, is_written_out=False))
    objective = Objective(model, nn.MSELoss(), (INPUTS, targets))
    plain = Field(network(name, is_written_out=True))
    expected = hessian_by_double_backward(
        plain, lambda: functional.mse_loss(plain(INPUTS), targets)
    )
    assert_close(hesspipe.hessian_matrix(objective), expected, factor=500)


VALUES = normal(4, 3, 5, seed=3)
SCALES = normal(3, seed=4), normal(3, seed=5)
CALLS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Any, ...]]] = {
    "layer": (layer_norm, functional.layer_norm, ((5,), normal(5), normal(5, seed=6), 1e-3)),
    "layer, two dimensions": (layer_norm, functional.layer_norm, ((3, 5),)),
    "instance": (instance_norm, functional.instance_norm, (None, None, *SCALES)),
    "instance, plain": (instance_norm, functional.instance_norm, ()),
    "instance, given statistics": (
        instance_norm, functional.instance_norm,
        (SCALES[0], SCALES[1].abs(), None, None, False),
    ),
    "batch": (batch_norm, functional.batch_norm, (None, None, *SCALES, True)),
    "batch, given statistics": (
        batch_norm, functional.batch_norm, (SCALES[0], SCALES[1].abs(), *SCALES),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_norm_has_the_values_and_slopes_of_torch(name: str) -> None:
    ours, torchs, arguments = CALLS[name]
    found, expected = [], []
    for function, results in ((ours, found), (torchs, expected)):
        point = VALUES.clone().requires_grad_()
        outputs = function(point, *arguments)
        results += [outputs.detach(), *torch.autograd.grad(outputs.pow(3).sum(), point)]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, factor=100)


@pytest.mark.parametrize(
    ("ours", "torchs", "values", "arguments"),
    [
        (layer_norm, functional.layer_norm, VALUES, ((4,),)),
        (instance_norm, functional.instance_norm, VALUES[..., :1], ()),
        (batch_norm, functional.batch_norm, VALUES[:1, :, :1], (None, None, None, None, True)),
    ],
)
def test_norm_refuses_what_torch_refuses(
    ours: Any, torchs: Any, values: Tensor, arguments: tuple[Any, ...]
) -> None:
    for function in (torchs, ours):
        with pytest.raises((RuntimeError, ValueError), match=r"shape|Expected more than 1"):
            function(values, *arguments)

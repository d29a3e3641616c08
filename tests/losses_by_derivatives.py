"""Losses of (model, batch) that differentiate inside, by inputs or by parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call
from torch.nn import functional

Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def _base(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch["x"]), batch["y"])


def _gradient_of_inputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    points = batch["x"].clone().requires_grad_()
    (slopes,) = grad(model(points).sum(), points, create_graph=True)
    return _base(model, batch) + (slopes.norm(dim=1) - 1).square().mean()


def _laplacian(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    points = batch["x"].clone().requires_grad_()
    values = model(points)[:, 0]
    (slopes,) = grad(values.sum(), points, create_graph=True)
    second = [grad(slope.sum(), points, create_graph=True)[0] for slope in slopes.unbind(1)]
    total = torch.stack([one[:, index] for index, one in enumerate(second)]).sum(0)
    return (total - values).square().mean()


def _gradient_norm(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    loss, parameters = _base(model, batch), list(model.parameters())
    slopes = grad(loss, parameters, create_graph=True)
    return loss + 0.1 * sum(slope.square().sum() for slope in slopes)


def _parameters_first(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    parameters = dict(model.named_parameters())
    slopes = grad(_base(model, batch), parameters.values(), create_graph=True)
    return sum((p * slope).sum() for p, slope in zip(parameters.values(), slopes, strict=True))


def _where_unused_is_allowed(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    loss = _base(model, batch)
    slopes = grad(loss, list(model.parameters()), create_graph=True, allow_unused=True)
    return loss + sum(slope.square().sum() for slope in slopes if slope is not None)


def _twice_evaluated(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    total = _base(model, batch) + model(batch["x"] + 1).square().mean()
    (slope,) = grad(total, model[1].weight, create_graph=True)
    return total + slope.square().sum()


def _weights_alone(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    weights = [p for p in model.parameters() if p.ndim == 2]
    penalty = sum(weight.pow(4).sum() for weight in weights)
    slopes = grad(penalty, list(model.parameters()), create_graph=True, materialize_grads=True)
    return _base(model, batch) + 0.01 * sum(slope.square().sum() for slope in slopes)


def _inner_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    names, loss = list(dict(model.named_parameters())), _base(model, batch)
    slopes = grad(loss, list(model.parameters()), create_graph=True)
    moved = {
        name: p - 0.5 * slope
        for (name, p), slope in zip(model.named_parameters(), slopes, strict=True)
    }
    assert list(moved) == names
    after = functional_call(model, moved, (batch["x"],))
    return functional.cross_entropy(after, batch["y"]) + 0.1 * _base(model, batch)


def _by_name(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    loss = _base(model, batch)
    slopes = grad(loss, dict(model.named_parameters()), create_graph=True, allow_unused=True)
    return loss + sum(
        number * slope.square().sum() for number, slope in enumerate(slopes.values(), 1)
    )


def _held_constant(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    fixed = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        functional_call(model, fixed, (batch["x"],))
    target = functional_call(model, fixed, (batch["x"],))
    return (model(batch["x"]) - target.sin()).square().mean()


def _curvature(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    loss, parameters = _base(model, batch), list(model.parameters())
    slopes = grad(loss, parameters, create_graph=True)
    along = sum((slope * p.detach()).sum() for slope, p in zip(slopes, parameters, strict=True))
    second = grad(along, list(model.parameters()), create_graph=True)
    return loss + sum(one.square().sum() for one in second)


LOSSES: dict[str, Loss] = {
    "norm of the gradient by inputs": _gradient_of_inputs,
    "Laplacian by inputs": _laplacian,
    "norm of the gradient by parameters": _gradient_norm,
    "parameters that are read before": _parameters_first,
    "parameters that may be unused": _where_unused_is_allowed,
    "a weight that two evaluations read": _twice_evaluated,
    "weights alone": _weights_alone,
    "an inner step": _inner_step,
    "parameters by name": _by_name,
    "constants in place of parameters": _held_constant,
    "second derivatives": _curvature,
}


def _by_transform(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    slopes = torch.func.grad(lambda points: model(points).sum())(batch["x"])
    return slopes.square().mean()


def _of_each_sample(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return torch.vmap(lambda point: model(point[None])[0])(batch["x"]).square().mean()


def _forward_mode(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return torch.func.jvp(model, (batch["x"],), (batch["x"],))[1].square().mean()


def _backward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    loss = _base(model, batch)
    loss.backward(create_graph=True)
    return loss


def _unused(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    (slope,) = grad(_base(model, batch), batch["x"].clone().requires_grad_(), create_graph=True)
    return slope.square().sum()


# What a sharded objective refuses, and what its message says.
REFUSED: dict[str, tuple[Loss, str]] = {
    "torch.func": (_by_transform, "differentiated by torch.autograd.grad(..., create_graph=True)"),
    "torch.vmap": (_of_each_sample, "inside _of_each_sample, got torch.func, torch.vmap"),
    "forward mode": (_forward_mode, "inside _forward_mode, got torch.func, torch.vmap"),
    "backward": (_backward, "got a call of loss.backward()"),
    "unused": (_unused, "appears to not have been used in the graph"),
}


def plain_product(
    loss: Loss, model: nn.Module, batches: list[dict[str, Any]], vector: Tensor
) -> Tensor:
    """H v of the mean over samples, by double backward of the caller's model."""
    parameters = list(model.parameters())
    count = sum(len(batch["y"]) for batch in batches)
    total = sum(len(batch["y"]) / count * loss(model, batch) for batch in batches)
    slopes = grad(total, parameters, create_graph=True)
    flat = torch.cat([slope.flatten() for slope in slopes])
    rows = grad(flat @ vector, parameters, materialize_grads=True)
    return torch.cat([row.flatten() for row in rows])

"""The layers of a sequential network whose units can be permuted, and what forbids it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Weighted = nn.Linear | nn.Conv2d
# Modules allowed between layers of weights: they treat all units of a layer alike. What follows the
# last layer of weights may be anything.
_UNIT_WISE = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus,
    nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity, nn.Dropout,
    nn.ReLU6, nn.SELU, nn.CELU, nn.Mish, nn.Hardtanh, nn.Hardswish, nn.Softsign, nn.LogSigmoid,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip


@dataclass(frozen=True)
class UnitLayer:
    """One layer of weights.

    Attributes
    ----------
    weight : array, shape (units, units before it, weights from each of them), float64
    bias : array, shape (units,), float64
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]


def weighted_layers(model: nn.Sequential) -> dict[str, Weighted]:
    """Collect the layers of weights by name; refuse all other modules before the last of them."""
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        raise ValueError(
            f"a network to align must be a Sequential, got {type(model).__name__}; permute its "
            "units yourself"
        )
    children = model._modules  # with modules that are used twice
    for name, module in model.named_modules():
        if "forward" in vars(module):
            raise ValueError(
                "a network to align must have the forward methods of its classes, got "
                f"{type(module).__name__} {name or '(the whole)'} with another one; permute its "
                "units yourself"
            )
    found = {name: child for name, child in children.items() if _is_weighted(child)}
    if not found:
        raise ValueError("a network to align must have a Linear or Conv2d layer, got none")
    names = list(children)
    last = list(found)[-1]
    for name in names[: names.index(last)]:
        if name not in found and not isinstance(children[name], _UNIT_WISE):
            raise ValueError(
                "a network to align must be a Sequential of Linear and Conv2d layers and modules "
                f"that treat their units alike, got {children[name]} at {name}; permute its units "
                "yourself"
            )
    _refuse_shared(children)
    units = 1
    for name, module in found.items():
        _refuse_unusual(name, module)
        if module.weight.shape[1] % units:
            raise ValueError(
                f"layer {name} must have a whole number of inputs for each of the {units} units "
                f"before it, got {module.weight.shape[1]}"
            )
        units = len(module.weight)
    return found


def _is_weighted(module: nn.Module | None) -> TypeGuard[Weighted]:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _refuse_unusual(name: str, module: Weighted) -> None:
    """Refuse weights that are not real parameters of the layer with a known shape."""
    if isinstance(module.weight, nn.UninitializedParameter):
        raise ValueError(
            f"weights must be initialized, got a lazy layer {name}; call the network once"
        )
    if "weight" not in module._parameters or "bias" not in module._parameters:
        raise ValueError(
            "a network to align must have plain weights and biases, got pruned or "
            f"parametrized ones in layer {name}; remove the reparametrization first"
        )
    if module.weight.is_complex():
        raise ValueError(f"weights must be real, got complex ones in layer {name}")


def _refuse_shared(children: Mapping[str, nn.Module | None]) -> None:
    """Refuse weights that two layers share: an order of the one's units is one of the other's."""
    seen: dict[int, str] = {}
    for name, child in children.items():
        for parameter in () if child is None else child.parameters():
            if seen.setdefault(id(parameter), name) != name:
                raise ValueError(
                    "a network to align must have weights of its own in each layer, got one "
                    f"parameter in {seen[id(parameter)]} and {name}; permute its units yourself"
                )


def kinds_of_modules(model: nn.Sequential) -> list[str]:
    """Name the modules up to the last layer of weights that do something in evaluation mode."""
    children, names = model._modules, list(model._modules)
    last = list(weighted_layers(model))[-1]
    through = [children[name] for name in names[: names.index(last) + 1]]
    return [
        type(child).__name__ for child in through if not isinstance(child, nn.Identity | nn.Dropout)
    ]


def unit_layers(model: nn.Sequential) -> list[UnitLayer]:
    """Read weights and biases by units; refuse those that are not finite."""
    layers: list[UnitLayer] = []
    for name, module in weighted_layers(model).items():
        weight = module.weight.detach().double().cpu()
        # After Flatten, each channel is a run of consecutive inputs, one per pixel.
        units = layers[-1].weight.shape[0] if layers else weight.shape[1]
        bias = (
            torch.zeros(len(weight), dtype=module.weight.dtype, device="cpu")
            if module.bias is None
            else module.bias.detach().cpu()
        )
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"weights must be finite, got nan or inf in layer {name}")
        layers.append(
            UnitLayer(weight.reshape(len(weight), units, -1).numpy(), bias.double().numpy())
        )
    return layers

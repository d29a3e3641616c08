"""Alignment: the hidden units of a network permuted to match another network's weights.

Permuting the units of a layer, with their incoming and outgoing weights, does not change the
function. Two trainings may therefore find the same solution in different orders of its units, far
apart in parameter space and with a barrier between them that is an artifact of the order.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

Order = npt.NDArray[np.int64]
# Modules allowed between layers of weights: they treat all units of a layer alike.
_UNIT_WISE = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus,
    nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity, nn.Dropout,
)  # fmt: skip


@dataclass(frozen=True)
class _Layer:
    """One layer of weights.

    Attributes
    ----------
    weight : array, shape (units, units before it, weights from each of them), float64
    bias : array, shape (units,), float64
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]


def match_units(reference: nn.Sequential, other: nn.Sequential) -> list[Order]:
    """Find the order of a network's hidden units that brings its weights closest to another's.

    The sum over all layers of the inner products of weights and biases is maximized layer by
    layer: with the order of all other layers fixed, the best order of one is a linear assignment.
    The sweeps start from the best orders for the incoming weights alone, first layer to last. A
    network that is a permutation of the reference is then always recovered: if no two units are
    equal, the true order is the only one whose inner product is the squared norm. From the given
    order, the sweeps could end in a local maximum.

    Parameters
    ----------
    reference, other : nn.Sequential
        Of the same architecture: Linear and Conv2d layers, with modules between them that treat
        all units alike (elementwise functions, pooling, Flatten). Not changed.

    Returns
    -------
    list of array, shape (units,), int64
        For each layer but the last: the unit of `other` at each position.

    Raises
    ------
    ValueError
        If the networks differ in architecture or have other modules.

    References
    ----------
    Ainsworth, Hayase, Srinivasa (2022), Git Re-Basin: merging models modulo permutation
    symmetries, Section 3.2.
    """
    layers, others = _layers(reference), _layers(other)
    if [layer.weight.shape for layer in layers] != [layer.weight.shape for layer in others]:
        raise ValueError(
            "the two networks must have layers of the same shape, got weights of "
            f"{[layer.weight.shape for layer in layers]} and "
            f"{[layer.weight.shape for layer in others]}"
        )
    orders: list[Order] = []
    for layer, found in zip(layers[:-1], others[:-1], strict=True):
        orders.append(_best_order(_incoming(layer, found, orders[-1] if orders else None)))
    has_changed = True
    while has_changed:  # terminates, because each change increases the sum of inner products
        has_changed = False
        for number in range(len(orders)):
            likeness = _likeness(layers, others, orders, number)
            order = _best_order(likeness)
            before, after = _total(likeness, orders[number]), _total(likeness, order)
            if after > before + 1e-12 * abs(before):
                orders[number], has_changed = order, True
    return orders


def permute_units(model: nn.Sequential, orders: list[Order]) -> nn.Sequential:
    """Copy a network with its hidden units in another order, which computes the same function.

    Parameters
    ----------
    model : nn.Sequential
        Not changed.
    orders : list of array, shape (units,), int64
        For each layer of weights but the last: the unit at each position.
    """
    permuted = copy.deepcopy(model)
    before: Tensor | None = None
    modules = _weighted(permuted)
    last = torch.arange(len(modules[-1].weight)).numpy()
    with torch.no_grad():
        for module, order in zip(modules, [*orders, last], strict=True):
            weight, index = module.weight, torch.from_numpy(order).to(module.weight.device)
            units = weight.shape[1] if before is None else len(before)
            columns = weight.reshape(len(weight), units, -1)
            columns = columns if before is None else columns[:, before]
            weight.copy_(columns[index].reshape(weight.shape))
            if module.bias is not None:
                module.bias.copy_(module.bias[index])
            before = index
    return permuted


def align_units(reference: nn.Sequential, other: nn.Sequential) -> nn.Sequential:
    """Copy a network with its hidden units in the order found by `match_units`."""
    return permute_units(other, match_units(reference, other))


def _weighted(model: nn.Sequential) -> list[nn.Linear | nn.Conv2d]:
    found: list[nn.Linear | nn.Conv2d] = []
    for name, module in model.named_children():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            found.append(module)
        elif not isinstance(module, _UNIT_WISE):
            raise ValueError(
                "a network to align must be a Sequential of Linear and Conv2d layers and modules "
                f"that treat their units alike, got {module} at {name}; permute its units yourself"
            )
    if not found:
        raise ValueError("a network to align must have a Linear or Conv2d layer, got none")
    return found


def _layers(model: nn.Sequential) -> list[_Layer]:
    layers: list[_Layer] = []
    for module in _weighted(model):
        weight = module.weight.detach().double().cpu()
        # After Flatten, each channel is a run of consecutive inputs, one per pixel.
        units = layers[-1].weight.shape[0] if layers else weight.shape[1]
        bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach().cpu()
        layers.append(_Layer(weight.reshape(len(weight), units, -1).numpy(), bias.double().numpy()))
    return layers


def _incoming(layer: _Layer, other: _Layer, before: Order | None) -> npt.NDArray[np.float64]:
    """Compute inner products of both networks' units by incoming weights and biases."""
    weight = other.weight if before is None else other.weight[:, before]
    count = len(layer.weight)
    rows: npt.NDArray[np.float64] = layer.weight.reshape(count, -1)
    return rows @ weight.reshape(count, -1).T + np.outer(layer.bias, other.bias)


def _likeness(
    layers: list[_Layer], others: list[_Layer], orders: list[Order], number: int
) -> npt.NDArray[np.float64]:
    """Compute inner products of one layer's units, given the order of all other layers."""
    before = orders[number - 1] if number else None
    following, other = layers[number + 1].weight, others[number + 1].weight
    if number + 1 < len(orders):
        other = other[orders[number + 1]]
    outgoing = np.tensordot(following, other, axes=([0, 2], [0, 2]))
    return _incoming(layers[number], others[number], before) + outgoing


def _best_order(likeness: npt.NDArray[np.float64]) -> Order:
    order: Order = linear_sum_assignment(likeness, maximize=True)[1].astype(np.int64)
    return order


def _total(likeness: npt.NDArray[np.float64], order: Order) -> float:
    return float(likeness[np.arange(len(order)), order].sum())

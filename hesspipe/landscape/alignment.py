"""Alignment: the hidden units of a network permuted to match another network's weights.

Permuting the units of a layer, with their incoming and outgoing weights, does not change the
function. Two trainings may therefore find the same solution in different orders of its units, far
apart in parameter space and with a barrier between them that is an artifact of the order.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from hesspipe.landscape.unit_layers import (
    UnitLayer,
    Weighted,
    kinds_of_modules,
    unit_layers,
    weighted_layers,
)
from hesspipe.tolerances import NUM_ROUNDINGS, rounding

Order = npt.NDArray[np.int64]
# Inputs drawn for the comparison of a network with its permuted copy, and the largest side of an
# image that is tried where the layers do not say it.
_NUM_INPUTS = 16
_LARGEST_SIDE = 256


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
    layers, others = unit_layers(reference), unit_layers(other)
    if [layer.weight.shape for layer in layers] != [layer.weight.shape for layer in others]:
        raise ValueError(
            "the two networks must have layers of the same shape, got weights of "
            f"{[layer.weight.shape for layer in layers]} and "
            f"{[layer.weight.shape for layer in others]}"
        )
    kinds, other_kinds = kinds_of_modules(reference), kinds_of_modules(other)
    if kinds != other_kinds:
        raise ValueError(
            "the two networks must have the same modules, got "
            f"{', '.join(kinds)} and {', '.join(other_kinds)}"
        )
    orders: list[Order] = []
    for number in range(len(layers) - 1):
        layer, found = _scaled(layers, others, number, number)
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


def permute_units(
    model: nn.Sequential, orders: Sequence[npt.ArrayLike], inputs: Tensor | None = None
) -> nn.Sequential:
    """Copy a network with its hidden units in another order, which computes the same function.

    That it does is shown: the outputs of both are compared in float64, in evaluation mode.

    Parameters
    ----------
    model : nn.Sequential
        As in `match_units`. Not changed.
    orders : sequence of array_like, shape (units,), integers
        For each layer of weights but the last: the unit at each position.
    inputs : Tensor, shape (n, ...), optional
        Compared on these, and on random ones of their shape; needed where the layers do not say
        the shape.

    Raises
    ------
    ValueError
        If an order is not a permutation of the units, the network is not of this kind, or the
        copy computes another function; with the name of the layer.
    """
    modules = weighted_layers(model)
    if not isinstance(orders, Sequence | np.ndarray | Tensor):
        raise TypeError(f"orders must be a sequence of arrays, got {type(orders).__name__}")
    names, last = list(modules), len(next(reversed(modules.values())).weight)
    if len(orders) != len(modules) - 1:
        raise ValueError(
            f"orders must be {len(modules) - 1}, one for each layer of weights but the last, got "
            f"{len(orders)}"
        )
    checked = [
        _checked(order, name, len(modules[name].weight))
        for order, name in zip(orders, names, strict=False)
    ]
    permuted = _permuted(model, [*checked, np.arange(last)])
    data = _inputs(model, modules, inputs)
    _require_outputs(model, data)
    if not _is_same_function(model, permuted, data):
        _refuse_layer(model, checked, data)
    return permuted


def align_units(
    reference: nn.Sequential, other: nn.Sequential, inputs: Tensor | None = None
) -> nn.Sequential:
    """Copy a network with its hidden units in the order found by `match_units`.

    `inputs` and errors are those of `permute_units`.
    """
    return permute_units(other, match_units(reference, other), inputs)


def _permuted(model: nn.Sequential, orders: list[Order]) -> nn.Sequential:
    """Copy a network and reorder the units of each layer of weights."""
    permuted = copy.deepcopy(model)
    before: Tensor | None = None
    with torch.no_grad():
        for module, order in zip(weighted_layers(permuted).values(), orders, strict=True):
            weight, index = module.weight, torch.from_numpy(order).to(module.weight.device)
            units = weight.shape[1] if before is None else len(before)
            columns = weight.reshape(len(weight), units, -1)
            columns = columns if before is None else columns[:, before]
            weight.copy_(columns[index].reshape(weight.shape))
            if module.bias is not None:
                module.bias.copy_(module.bias[index])
            before = index
    return permuted


def _checked(order: npt.ArrayLike, name: str, num_units: int) -> Order:
    try:
        found = np.asarray(order)
    except (ValueError, TypeError, RuntimeError):  # of different lengths, or not on the CPU
        found = np.zeros(0, dtype=object)
    if found.dtype.kind not in "iu" or found.shape != (num_units,):
        raise ValueError(
            f"the order of layer {name} must be {num_units} integers, got {found.dtype} of shape "
            f"{found.shape}"
        )
    if not np.array_equal(np.sort(found), np.arange(num_units)):
        raise ValueError(
            f"the order of layer {name} must hold each of 0 to {num_units - 1} once, got "
            f"{found.tolist()}"
        )
    return np.ascontiguousarray(found, dtype=np.int64)


def _inputs(
    model: nn.Sequential, modules: dict[str, Weighted], inputs: Tensor | None
) -> list[Tensor]:
    """Collect inputs for the comparison: random ones, and those that were given."""
    random = torch.Generator().manual_seed(0)
    if inputs is not None:
        if not isinstance(inputs, Tensor):
            raise TypeError(f"inputs must be a Tensor, got {type(inputs).__name__}")
        if inputs.is_complex() or inputs.numel() == 0 or inputs.ndim == 0:
            raise ValueError(
                f"inputs must be real numbers of at least one sample, got {inputs.dtype} of shape "
                f"{tuple(inputs.shape)}"
            )
        given = inputs[: 4 * _NUM_INPUTS].detach().cpu().double()
        spread = given.std().nan_to_num(0.0) + given.abs().mean()
        drawn = torch.randn(given.shape, generator=random, dtype=torch.float64, device="cpu")
        return [given, given + spread * drawn]
    first = next(iter(modules.values()))
    shape = (first.weight.shape[1],) if isinstance(first, nn.Linear) else _image(model, first)
    drawn = torch.randn(_NUM_INPUTS, *shape, generator=random, dtype=torch.float64, device="cpu")
    return [drawn, 10 * drawn]


def _image(model: nn.Sequential, first: nn.Conv2d) -> tuple[int, ...]:
    """Find the smallest square image that a network takes."""
    on_meta = copy.deepcopy(model).to("meta").eval()
    for side in range(1, _LARGEST_SIDE + 1):
        shape = first.weight.shape[1], side, side
        try:
            with torch.no_grad():
                on_meta(torch.empty(1, *shape, dtype=first.weight.dtype, device="meta"))
        except (RuntimeError, ValueError):
            continue
        return shape
    raise ValueError("the shape of the inputs must be known; pass some inputs of the network")


def _require_outputs(model: nn.Sequential, data: list[Tensor]) -> None:
    """Raise an error for inputs that the network does not take, or outputs that overflow."""
    network = copy.deepcopy(model).cpu().double().eval()
    for inputs in data:
        try:
            with torch.no_grad():
                outputs = network(inputs.clone())
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"inputs must be those of the network, got shape {tuple(inputs.shape)} (torch "
                f"says: {str(error).splitlines()[0]}); pass inputs of the shape it takes"
            ) from error
        if not outputs.isfinite().all():
            raise ValueError(
                "outputs must be finite to compare a network with its permuted copy, got nan or "
                "inf; pass other inputs, or make the weights smaller"
            )


def _is_same_function(model: nn.Sequential, other: nn.Sequential, data: list[Tensor]) -> bool:
    """Compare outputs up to rounding, as measured by relative changes of the weights."""
    one, two = (copy.deepcopy(network).cpu().double().eval() for network in (model, other))
    moved = copy.deepcopy(one)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in moved.parameters():
            noise = (
                torch.rand(weight.shape, generator=random, dtype=torch.float64, device="cpu") * 2
                - 1
            )
            weight.mul_(1 + NUM_ROUNDINGS * torch.finfo(torch.float64).eps * noise)
        for inputs in data:
            expected, found, near = (network(inputs.clone()) for network in (one, two, moved))
            size = rounding(expected.norm(), torch.float64) + 4 * (near - expected).norm()
            if not (found - expected).norm() <= size:
                return False
    return True


def _refuse_layer(model: nn.Sequential, orders: list[Order], data: list[Tensor]) -> NoReturn:
    """Say which layer's units cannot be reordered."""
    sizes = [len(module.weight) for module in weighted_layers(model).values()]
    guilty = []
    for number, (name, order) in enumerate(zip(weighted_layers(model), orders, strict=False)):
        others = [np.arange(size) for size in sizes]
        others[number] = order
        if not _is_same_function(model, _permuted(model, others), data):
            guilty.append(name)
    raise ValueError(
        "a network to align must compute the same function with its units in another order, got "
        f"another function from the units of layer {', '.join(guilty) or 'any'}; permute its units "
        "yourself"
    )


def _incoming(layer: UnitLayer, other: UnitLayer, before: Order | None) -> npt.NDArray[np.float64]:
    """Compute inner products of both networks' units by incoming weights and biases."""
    weight = other.weight if before is None else other.weight[:, before]
    count = len(layer.weight)
    rows: npt.NDArray[np.float64] = layer.weight.reshape(count, -1)
    return rows @ weight.reshape(count, -1).T + np.outer(layer.bias, other.bias)


def _scaled(
    layers: list[UnitLayer], others: list[UnitLayer], first: int, last: int
) -> list[UnitLayer]:
    """Divide the layers by a power of two, which is exact, so that no product overflows."""
    chosen = [*layers[first : last + 1], *others[first : last + 1]]
    largest = max(np.abs(part).max() for layer in chosen for part in (layer.weight, layer.bias))
    exponent = -int(np.frexp(largest)[1])
    return [
        UnitLayer(np.ldexp(layer.weight, exponent), np.ldexp(layer.bias, exponent))
        for layer in chosen
    ]


def _likeness(
    layers: list[UnitLayer], others: list[UnitLayer], orders: list[Order], number: int
) -> npt.NDArray[np.float64]:
    """Compute inner products of one layer's units, given the order of all other layers."""
    before = orders[number - 1] if number else None
    layer, after, found, other_after = _scaled(layers, others, number, number + 1)
    following, other = after.weight, other_after.weight
    if number + 1 < len(orders):
        other = other[orders[number + 1]]
    outgoing = np.tensordot(following, other, axes=([0, 2], [0, 2]))
    return _incoming(layer, found, before) + outgoing


def _best_order(likeness: npt.NDArray[np.float64]) -> Order:
    order: Order = linear_sum_assignment(likeness, maximize=True)[1].astype(np.int64)
    return order


def _total(likeness: npt.NDArray[np.float64], order: Order) -> float:
    return float(likeness[np.arange(len(order)), order].sum())

"""Alignment: the hidden units of a network permuted to match another network's weights.

Permuting the units of a layer, with their incoming and outgoing weights, does not change the
function. Two trainings may therefore find the same solution in different orders of its units, far
apart in parameter space and with a barrier between them that is an artifact of the order.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from hesspipe.tolerances import NUM_ROUNDINGS, rounding

Order = npt.NDArray[np.int64]
_Weighted = nn.Linear | nn.Conv2d
# Modules allowed between layers of weights: they treat all units of a layer alike. What follows the
# last layer of weights may be anything.
_UNIT_WISE = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus,
    nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Identity, nn.Dropout,
    nn.ReLU6, nn.SELU, nn.CELU, nn.Mish, nn.Hardtanh, nn.Hardswish, nn.Softsign, nn.LogSigmoid,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
# Inputs drawn for the comparison of a network with its permuted copy, and the largest side of an
# image that is tried where the layers do not say it.
_NUM_INPUTS = 16
_LARGEST_SIDE = 256


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
    kinds, other_kinds = _kinds(reference), _kinds(other)
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
    modules = _weighted(model)
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
        for module, order in zip(_weighted(permuted).values(), orders, strict=True):
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
    model: nn.Sequential, modules: dict[str, _Weighted], inputs: Tensor | None
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
        drawn = torch.randn(given.shape, generator=random, dtype=torch.float64)
        return [given, given + spread * drawn]
    first = next(iter(modules.values()))
    shape = (first.weight.shape[1],) if isinstance(first, nn.Linear) else _image(model, first)
    drawn = torch.randn(_NUM_INPUTS, *shape, generator=random, dtype=torch.float64)
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
            noise = torch.rand(weight.shape, generator=random, dtype=torch.float64) * 2 - 1
            weight.mul_(1 + NUM_ROUNDINGS * torch.finfo(torch.float64).eps * noise)
        for inputs in data:
            expected, found, near = (network(inputs.clone()) for network in (one, two, moved))
            size = rounding(expected.norm(), torch.float64) + 4 * (near - expected).norm()
            if not (found - expected).norm() <= size:
                return False
    return True


def _refuse_layer(model: nn.Sequential, orders: list[Order], data: list[Tensor]) -> NoReturn:
    """Say which layer's units cannot be reordered."""
    sizes = [len(module.weight) for module in _weighted(model).values()]
    guilty = []
    for number, (name, order) in enumerate(zip(_weighted(model), orders, strict=False)):
        others = [np.arange(size) for size in sizes]
        others[number] = order
        if not _is_same_function(model, _permuted(model, others), data):
            guilty.append(name)
    raise ValueError(
        "a network to align must compute the same function with its units in another order, got "
        f"another function from the units of layer {', '.join(guilty) or 'any'}; permute its units "
        "yourself"
    )


def _weighted(model: nn.Sequential) -> dict[str, _Weighted]:
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


def _is_weighted(module: nn.Module | None) -> TypeGuard[_Weighted]:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _refuse_unusual(name: str, module: _Weighted) -> None:
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


def _kinds(model: nn.Sequential) -> list[str]:
    """Name the modules up to the last layer of weights that do something in evaluation mode."""
    children, names = model._modules, list(model._modules)
    last = list(_weighted(model))[-1]
    through = [children[name] for name in names[: names.index(last) + 1]]
    return [
        type(child).__name__ for child in through if not isinstance(child, nn.Identity | nn.Dropout)
    ]


def _layers(model: nn.Sequential) -> list[_Layer]:
    layers: list[_Layer] = []
    for name, module in _weighted(model).items():
        weight = module.weight.detach().double().cpu()
        # After Flatten, each channel is a run of consecutive inputs, one per pixel.
        units = layers[-1].weight.shape[0] if layers else weight.shape[1]
        bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach().cpu()
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"weights must be finite, got nan or inf in layer {name}")
        layers.append(_Layer(weight.reshape(len(weight), units, -1).numpy(), bias.double().numpy()))
    return layers


def _incoming(layer: _Layer, other: _Layer, before: Order | None) -> npt.NDArray[np.float64]:
    """Compute inner products of both networks' units by incoming weights and biases."""
    weight = other.weight if before is None else other.weight[:, before]
    count = len(layer.weight)
    rows: npt.NDArray[np.float64] = layer.weight.reshape(count, -1)
    return rows @ weight.reshape(count, -1).T + np.outer(layer.bias, other.bias)


def _scaled(layers: list[_Layer], others: list[_Layer], first: int, last: int) -> list[_Layer]:
    """Divide the layers by a power of two, which is exact, so that no product overflows."""
    chosen = [*layers[first : last + 1], *others[first : last + 1]]
    largest = max(np.abs(part).max() for layer in chosen for part in (layer.weight, layer.bias))
    exponent = -int(np.frexp(largest)[1])
    return [
        _Layer(np.ldexp(layer.weight, exponent), np.ldexp(layer.bias, exponent)) for layer in chosen
    ]


def _likeness(
    layers: list[_Layer], others: list[_Layer], orders: list[Order], number: int
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

"""The Linear and Conv2d layers of a network: their positions in theta, and their inputs.

For sample n, output position s, unit o, and the entries k of a patch a_l, layer l computes

    z_l[n, o, s] = sum_k W_l[o, k] a_l[n, k, s] + b_l[o],     a~_l = [a_l; 1]

A convolution is a Linear layer applied at each output position to the patch of its input there:
k counts input channels and kernel positions. A Linear layer has one position.

For derivatives by pre-activations, perturbations delta_l, leaves of value zero, are added to z_l.
Two functions evaluate a network with perturbations:

    evaluate_linear    layers are computed by their modules, fastest for Linear layers
    evaluate_patches   layers are computed as products of weights and patches: the patches are
                       needed anyway, and in float64 derivatives of matrix products are fast and
                       those of convolutions slow
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from hesspipe.objective.objective import Objective
from hesspipe.seeding import probe, probe_generator
from hesspipe.tolerances import agrees

# Samples whose structure is tested at once: patches of images take memory, and vectors are views.
_IMAGES_PER_TEST = 256
_VECTORS_PER_TEST = 4096
# Relative size of a step away from theta.
_RELATIVE_STEP = 1e-3


@dataclass(frozen=True)
class Layer:
    """Sizes of one Linear or Conv2d layer, and the positions of its parameters and units.

    Attributes
    ----------
    name : str
        Name of the module in the model.
    is_linear : bool
        Whether the module is a Linear layer, and not a Conv2d.
    num_units : int
        U: units of a Linear layer, or output channels.
    num_inputs : int
        K: inputs of a Linear layer, or entries of a patch, input channels times kernel size.
    num_positions : int
        S: output pixels; 1 for a Linear layer.
    weight, bias : int or None
        Positions of their first entries in theta; no bias is None.
    first_unit : int
        Position of the layer's first unit among the units of all layers.
    """

    name: str
    is_linear: bool
    num_units: int
    num_inputs: int
    num_positions: int
    weight: int
    bias: int | None
    first_unit: int

    @property
    def width(self) -> int:
        """Length of a~: the inputs, and one for the bias."""
        return self.num_inputs + (self.bias is not None)

    @property
    def num_parameters(self) -> int:
        """Entries of the weight and the bias."""
        return self.num_units * self.width

    @property
    def weights(self) -> slice:
        """The weight's entries in theta."""
        return slice(self.weight, self.weight + self.num_units * self.num_inputs)

    @property
    def biases(self) -> slice:
        """The bias's entries in theta; none without a bias."""
        if self.bias is None:
            return slice(0, 0)
        return slice(self.bias, self.bias + self.num_units)

    @property
    def units(self) -> slice:
        """The layer's units among those of all layers."""
        return slice(self.first_unit, self.first_unit + self.num_units)


@dataclass(frozen=True)
class LinearEvaluation:
    """Outputs of a network of Linear layers at n samples, with a graph behind them.

    Attributes
    ----------
    outputs : Tensor, shape (n, C)
    inputs : dict of Tensor, shape (n, K)
        a_l, the input of each layer, by name.
    deltas : dict of Tensor, shape (n, U)
        Leaves of zeros added to the pre-activations, in the order of the layers.
    """

    outputs: Tensor
    inputs: dict[str, Tensor]
    deltas: dict[str, Tensor]


@dataclass(frozen=True)
class PatchEvaluation:
    """Outputs of a network at n samples, computed from patches, with a graph behind them.

    Attributes
    ----------
    outputs : Tensor, shape (n, C)
    patches : dict of Tensor, shape (n, K, S)
        a_l, by layer name, in the order of the calls.
    deltas : dict of Tensor, shape (n, U, S)
        Leaves of zeros added to the pre-activations.
    weights : dict of Tensor, shape (U, K)
    """

    outputs: Tensor
    patches: dict[str, Tensor]
    deltas: dict[str, Tensor]
    weights: dict[str, Tensor]


_Affine: TypeAlias = nn.Conv2d | nn.Linear


class _NotApplicableError(Exception):
    """A layer is called twice, or not on one image or vector per sample."""


def find_layers(objective: Objective) -> list[Layer]:
    """Find the layers of a network whose parameters all belong to Linear and Conv2d layers.

    Module types do not show how the forward method uses a layer, so this is tested: the network
    computed from its layers must have the outputs and gradients of the network itself, for all
    samples, at theta and at a point nearby, where weights of zero hide nothing. Whatever else goes
    wrong in a network that is evaluated in another way than it was written for (a hook, a branch
    that some samples take) means that it has no such layers, too: methods for any network remain.

    Returns
    -------
    list of Layer
        In the order in which they are called. Empty unless every parameter is trainable and is
        the weight or bias of a Linear or Conv2d (one group, zero padding) module that is called
        once, on one vector or image per sample, and samples are independent.
    """
    modules = _owners(objective) if objective.is_separable else {}
    if not modules:
        return []
    try:
        found = [
            _tested_layers(point, modules, inputs)
            for point in (objective, _nearby(objective))
            for inputs in _parts(objective, modules.values())
        ]
    except Exception:  # of any kind: the network was not written for hooks and parts of batches
        return []
    return found[0] if all(layers == found[0] for layers in found) else []


def is_piecewise_linear(objective: Objective, layers: list[Layer]) -> bool:
    """Test whether the outputs' second derivative in all pre-activations is exactly zero.

    In one random direction of all perturbations at once, with random cotangents, at all samples:
    curvature anywhere in the network shows, within a layer and between layers.
    """
    modules = [module for _, module in objective.model.named_modules()]
    try:
        parts = _parts(objective, modules)
        return not any(_is_curved(objective, layers, inputs) for inputs in parts)
    except RuntimeError:  # an operation without a second derivative in the pre-activations
        return False


def _is_curved(objective: Objective, layers: list[Layer], inputs: Tensor) -> bool:
    evaluation = evaluate_patches(objective, [layer.name for layer in layers], inputs)
    slopes = evaluation_slopes(evaluation, probe(evaluation.outputs), create_graph=True)
    moved = sum((slope * probe(slope)).sum() for slope in slopes)
    if not isinstance(moved, Tensor) or not moved.requires_grad:
        return False
    deltas = list(evaluation.deltas.values())
    changes = torch.autograd.grad(moved, deltas, materialize_grads=True)
    return any(bool(change.any()) for change in changes)


def evaluate_linear(objective: Objective, layers: list[Layer], inputs: Tensor) -> LinearEvaluation:
    """Evaluate a network of Linear layers with perturbations of their pre-activations.

    Parameters
    ----------
    objective : Objective
    layers : list of Layer
    inputs : Tensor, shape (n, ...)

    Returns
    -------
    LinearEvaluation
    """
    deltas = {
        layer.name: objective.theta.new_zeros(len(inputs), layer.num_units).requires_grad_()
        for layer in layers
    }
    entering: dict[str, Tensor] = {}

    def add_delta(layer: Layer, _: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        entering[layer.name] = args[0]
        return output + deltas[layer.name]

    hooks = {layer.name: partial(add_delta, layer) for layer in layers}
    return LinearEvaluation(_hooked_outputs(objective, inputs, hooks), entering, deltas)


def evaluate_patches(objective: Objective, names: Iterable[str], inputs: Tensor) -> PatchEvaluation:
    """Evaluate a network with its layers as products of weights and patches.

    Parameters
    ----------
    objective : Objective
    names : iterable of str
        Of the layers' modules.
    inputs : Tensor, shape (n, ...)

    Returns
    -------
    PatchEvaluation
    """
    patches: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}

    def multiply(name: str, module: _Affine, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        expected_ndim = 4 if isinstance(module, nn.Conv2d) else 2
        # No argument: the input was passed by keyword, which a hook does not see.
        _require(name not in patches and len(args) > 0 and args[0].ndim == expected_ndim)
        _require(len(args[0]) == len(inputs))
        patches[name] = _patches(module, args[0])
        weights[name] = module.weight.flatten(1)
        each = weights[name] if are_vectors else weights[name].expand(len(inputs), -1, -1)
        # (n, U, S)
        product = (args[0] @ each.mT).unsqueeze(2) if are_vectors else each @ patches[name]
        if module.bias is not None:
            product = product + module.bias.unsqueeze(1)
        deltas[name] = torch.zeros_like(product, requires_grad=True)
        return (product + deltas[name]).view(output.shape)

    hooks = {name: partial(multiply, name) for name in names}
    # Without convolutions there is one position: one product for all samples, not one for each.
    are_vectors = nn.Conv2d not in {type(objective.model.get_submodule(name)) for name in hooks}
    return PatchEvaluation(_hooked_outputs(objective, inputs, hooks), patches, deltas, weights)


def evaluation_slopes(
    evaluation: PatchEvaluation, cotangents: Tensor, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Differentiate <cotangents, f> by each layer's pre-activations.

    Parameters
    ----------
    evaluation : PatchEvaluation
    cotangents : Tensor, shape (n, C)
    create_graph : bool
        Whether the slopes can be differentiated again.

    Returns
    -------
    tuple of Tensor, shape (n, U, S)
        In the order of the calls.
    """
    return torch.autograd.grad(
        evaluation.outputs, list(evaluation.deltas.values()), cotangents,
        retain_graph=True, create_graph=create_graph, materialize_grads=True,
    )  # fmt: skip


def extend(layer: Layer, patches: Tensor) -> Tensor:
    """Make a~ from a: append a row of ones where the layer has a bias.

    Parameters
    ----------
    layer : Layer
    patches : Tensor, shape (n, K, S)

    Returns
    -------
    Tensor, shape (n, width, S)
        Without a graph.
    """
    return functional.pad(patches.detach(), (0, 0, 0, layer.width - layer.num_inputs), value=1.0)


def chunks(num_samples: int, step: int) -> Iterator[slice]:
    """Divide samples into consecutive slices of at most `step`, at least one sample each."""
    step = max(1, step)
    return (slice(start, start + step) for start in range(0, num_samples, step))


def _hooked_outputs(
    objective: Objective, inputs: Tensor, hooks: Mapping[str, Callable[..., Any]]
) -> Tensor:
    """Evaluate the network with forward hooks on some modules, by name."""
    modules = dict(objective.model.named_modules())
    handles = [modules[name].register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        return objective.outputs(objective.theta, inputs)
    finally:
        for handle in handles:
            handle.remove()


def _is_affine(module: nn.Module) -> TypeGuard[_Affine]:
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def _owners(objective: Objective) -> dict[str, _Affine]:
    """The Linear and Conv2d modules of theta, by name; none unless they own all of it, once."""
    names = set(objective.names)
    modules: dict[str, _Affine] = {}
    uses: Counter[int] = Counter()
    for name, module in objective.model.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        uses.update(map(id, parameters.values()))
        owned = {f"{name}.{key}" if name else key for key in parameters}
        if not owned & names:
            continue
        keys = set(parameters) - {"bias"}
        if not (_is_affine(module) and keys == {"weight"} and owned <= names):
            return {}
        modules[name] = module
    is_shared = any(
        uses[id(value)] > 1 for module in modules.values() for value in module.parameters()
    )
    return {} if is_shared or not objective.is_varied.all() else modules


def _parts(objective: Objective, modules: Iterable[nn.Module]) -> Iterator[Any]:
    """Inputs of all samples, in parts of a batch that are about equally large."""
    has_images = any(isinstance(module, nn.Conv2d) for module in modules)
    most = _IMAGES_PER_TEST if has_images else _VECTORS_PER_TEST
    for batch in objective.batches:
        num_parts = math.ceil(batch.num_samples / most)
        for part in chunks(batch.num_samples, math.ceil(batch.num_samples / num_parts)):
            yield batch.inputs[part]


def _nearby(objective: Objective) -> Objective:
    """Copy the objective at a random point near theta, where no weight is zero."""
    moved = copy.copy(objective)
    size = objective.theta.abs()
    step = _RELATIVE_STEP * (size + (size.mean() or 1.0))
    moved.theta = objective.theta + step * probe(size)
    return moved


def _patches(module: _Affine, inputs: Tensor) -> Tensor:
    """Extract the patches that the layer multiplies with its weight, of shape (n, K, S)."""
    if not isinstance(module, nn.Conv2d):
        return inputs.unsqueeze(2)
    size, step, gap = module.kernel_size, module.stride, module.dilation
    if isinstance(module.padding, str):
        totals = [gap[i] * (size[i] - 1) * (module.padding == "same") for i in (0, 1)]
        before = [total // 2 for total in totals]
    else:
        totals, before = [2 * padding for padding in module.padding], list(module.padding)
    margins = (before[1], totals[1] - before[1], before[0], totals[0] - before[0])
    padded = functional.pad(inputs, margins)
    spans = [gap[i] * (size[i] - 1) + 1 for i in (0, 1)]
    # Strided views and one copy: faster than functional.unfold at 20 to 100 samples.
    windows = padded.unfold(2, spans[0], step[0]).unfold(3, spans[1], step[1])
    windows = windows[..., :: gap[0], :: gap[1]]  # (n, channels, height, width, *kernel)
    return windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)


def _locate(
    objective: Objective, modules: Mapping[str, _Affine], evaluation: PatchEvaluation
) -> list[Layer]:
    """Describe the layers in the order of their calls."""
    starts, position = {}, 0
    for name, shape in zip(objective.names, objective.shapes, strict=True):
        starts[name] = position
        position += shape.numel()
    layers, first_unit = [], 0
    for name, delta in evaluation.deltas.items():
        prefix = f"{name}." if name else ""
        weight = modules[name].weight
        layers.append(
            Layer(
                name=name,
                is_linear=isinstance(modules[name], nn.Linear),
                num_units=len(weight),
                num_inputs=weight[0].numel(),
                num_positions=delta.shape[2],
                weight=starts[f"{prefix}weight"],
                bias=starts.get(f"{prefix}bias"),
                first_unit=first_unit,
            )
        )
        first_unit += len(weight)
    return layers


def _tested_layers(
    objective: Objective, modules: Mapping[str, _Affine], inputs: Tensor
) -> list[Layer]:
    """Describe the layers that some samples pass; an error if they are not the network."""
    evaluation = evaluate_patches(objective, modules, inputs)
    if set(evaluation.patches) != set(modules):
        raise _NotApplicableError
    layers = _locate(objective, modules, evaluation)
    theta = objective.theta.clone().requires_grad_()
    outputs = objective.outputs(theta, inputs)
    _require(agrees(evaluation.outputs, outputs, outputs.norm()))
    is_half = torch.randperm(len(inputs), generator=probe_generator(), device="cpu") % 2 == 0
    for is_kept in (is_half, ~is_half):
        cotangents = probe(outputs) * is_kept.to(outputs).unsqueeze(1)
        slopes = evaluation_slopes(evaluation, cotangents)
        # A row of a layer belongs to the sample of the same row: the others do not feel it.
        _require(not any(slope[~is_kept.to(slope.device)].any() for slope in slopes))
        (expected,) = torch.autograd.grad(outputs, theta, cotangents, retain_graph=True)
        found = _gradient(layers, evaluation, slopes, theta)
        _require(agrees(found, expected, expected.norm()))
    return layers


def _require(condition: bool) -> None:
    if not condition:
        raise _NotApplicableError


def _gradient(
    layers: list[Layer], evaluation: PatchEvaluation, slopes: Iterable[Tensor], theta: Tensor
) -> Tensor:
    """Compute sum_n sum_s d_l a~_l^T; not the gradient where a weight is used elsewhere, too."""
    gradient = torch.zeros_like(theta)
    for layer, slope in zip(layers, slopes, strict=True):
        patches = evaluation.patches[layer.name].detach()  # (n, K, S)
        if layer.is_linear:
            products = slope[:, :, 0].mT @ patches[:, :, 0]  # (U, K)
        else:
            products = (slope @ patches.mT).sum(0)
        gradient[layer.weights] = products.flatten()
        if layer.bias is not None:
            gradient[layer.biases] = slope.sum((0, 2))
    return gradient

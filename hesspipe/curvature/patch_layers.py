"""Piecewise linear networks of Conv2d and Linear layers: which ones are, and their patches.

A convolution is a Linear layer that is applied at each output position s to the patch of its
input there: z[n, o, s] = sum_k W[o, k] a[n, k, s] + b[o], where k counts input channels and
places in the kernel. A Linear layer has one position.

The network is evaluated through this product: the patches are needed anyway, and derivatives
then pass through matrix products, which are fast in float64, where convolutions are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from hesspipe.curvature.linear_layers import first_entries, owns_every_parameter
from hesspipe.objective.objective import Objective

# Samples on which the structure is tested: what it asks for does not depend on the sample.
_NUM_PROBES = 32


@dataclass(frozen=True)
class PatchLayer:
    """Where the parameters of one layer stand.

    Attributes
    ----------
    name : str
        Of the module in the model.
    num_units : int
        U: output channels, or units of a Linear layer.
    num_inputs : int
        K: entries of a patch, input channels times kernel size.
    num_positions : int
        S: output pixels; 1 for a Linear layer.
    weight, bias : int or None
        Positions of their first entries in theta; no bias is None.
    """

    name: str
    num_units: int
    num_inputs: int
    num_positions: int
    weight: int
    bias: int | None

    @property
    def width(self) -> int:
        """Length of a patch with a one for the bias."""
        return self.num_inputs + (self.bias is not None)

    @property
    def weights(self) -> slice:
        """The weight's places in theta."""
        return slice(self.weight, self.weight + self.num_units * self.num_inputs)

    @property
    def biases(self) -> slice:
        """The bias's places in theta; none without a bias."""
        if self.bias is None:
            return slice(0, 0)
        return slice(self.bias, self.bias + self.num_units)


@dataclass(frozen=True)
class Evaluation:
    """A network's evaluation at some samples, with a graph behind it.

    Attributes
    ----------
    outputs : Tensor, shape (n, C)
    patches : dict of Tensor, shape (n, K, S)
        What enters each layer, by name, in the order of the calls.
    deltas : dict of Tensor, shape (n, U, S)
        Leaves of value zero that were added to the pre-activations: to differentiate by.
    weights : dict of Tensor, shape (U, K)
    """

    outputs: Tensor
    patches: dict[str, Tensor]
    deltas: dict[str, Tensor]
    weights: dict[str, Tensor]


Affine: TypeAlias = nn.Conv2d | nn.Linear


class _NotApplicableError(Exception):
    """A layer is called twice, or on something else than one image or vector a sample."""


def patch_layers(objective: Objective) -> list[PatchLayer] | None:
    """Find the layers of a network whose matrices `hesspipe.curvature.convolutional` can assemble.

    What the forward method does between the layers cannot be read from module types: it is
    tested, by derivatives at some samples. A network that is not as found there fails the
    check of every matrix in `hesspipe.curvature.dense`, and is refused.

    Returns
    -------
    list of PatchLayer, or None
        In the order in which they are called. None unless every parameter is trainable and is
        the weight or bias of a Conv2d (one group, zero padding) or Linear module that is called
        once, each sample's outputs depend on that sample alone, and the outputs are a piecewise
        linear function of the pre-activations.
    """
    modules = {
        name: module for name, module in objective.model.named_modules() if _is_affine(module)
    }
    if not owns_every_parameter(objective, modules):
        return None
    inputs = objective.batches[0].inputs[:_NUM_PROBES]
    try:
        evaluation = evaluate(objective, list(modules), inputs)
    except _NotApplicableError:
        return None
    outputs = evaluation.outputs
    if set(evaluation.patches) != set(modules) or outputs.ndim != 2 or not outputs.requires_grad:
        return None
    layers = [
        _locate(objective, name, modules[name], evaluation.deltas[name].shape[2])
        for name in evaluation.patches
    ]
    is_as_required = (
        _samples_are_apart(objective, evaluation, inputs)
        and _gradient_agrees(objective, layers, evaluation, inputs)
        and _is_piecewise_linear(evaluation)
    )
    return layers if is_as_required else None


def evaluate(objective: Objective, names: list[str], inputs: Tensor) -> Evaluation:
    """Evaluate the network with its layers as products of weights and patches.

    Parameters
    ----------
    objective : Objective
    names : list of str
        Of the layers' modules.
    inputs : Tensor, shape (n, ...)

    Returns
    -------
    Evaluation
    """
    named = objective.model.named_modules()
    modules = {name: module for name, module in named if _is_affine(module)}
    patches: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}

    def multiply(name: str, module: Affine, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        expected_ndim = 4 if isinstance(module, nn.Conv2d) else 2
        if name in patches or args[0].ndim != expected_ndim or len(args[0]) != len(inputs):
            raise _NotApplicableError
        patches[name] = _patches(module, args[0])
        weights[name] = module.weight.flatten(1)
        product = weights[name].expand(len(inputs), -1, -1) @ patches[name]
        if module.bias is not None:
            product = product + module.bias.unsqueeze(1)
        deltas[name] = torch.zeros_like(product, requires_grad=True)
        return (product + deltas[name]).view(output.shape)

    handles = [modules[name].register_forward_hook(partial(multiply, name)) for name in names]
    try:
        outputs = objective.outputs(objective.theta, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return Evaluation(outputs, patches, deltas, weights)


def extend(layer: PatchLayer, patches: Tensor) -> Tensor:
    """Patches without a graph, and ones for the bias: (n, width, S)."""
    return functional.pad(patches.detach(), (0, 0, 0, layer.width - layer.num_inputs), value=1.0)


def chunks(num_samples: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most `step` samples, at least one sample each."""
    step = max(1, step)
    return (slice(start, start + step) for start in range(0, num_samples, step))


def _is_affine(module: nn.Module) -> TypeGuard[Affine]:
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def _patches(module: Affine, inputs: Tensor) -> Tensor:
    """What the layer multiplies with its weight, of shape (n, K, S)."""
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
    windows = windows[..., :: gap[0], :: gap[1]]
    return windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)


def _locate(objective: Objective, name: str, module: Affine, num_positions: int) -> PatchLayer:
    starts = first_entries(objective)
    prefix = f"{name}." if name else ""
    weight = module.weight
    return PatchLayer(
        name=name,
        num_units=len(weight),
        num_inputs=weight[0].numel(),
        num_positions=num_positions,
        weight=starts[f"{prefix}weight"],
        bias=starts.get(f"{prefix}bias"),
    )


def _samples_are_apart(objective: Objective, evaluation: Evaluation, inputs: Tensor) -> bool:
    with torch.no_grad():
        alone = objective.outputs(objective.theta, inputs[:1])
    tolerance = 1e3 * torch.finfo(objective.dtype).eps * evaluation.outputs.abs().max()
    return bool((evaluation.outputs[:1] - alone).abs().max() <= tolerance)


def _random_like(values: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values)


def _gradient_agrees(
    objective: Objective, layers: list[PatchLayer], evaluation: Evaluation, inputs: Tensor
) -> bool:
    """Whether sum_s d_l a~_l^T is the gradient: false where a weight is used elsewhere, too."""
    cotangents = _random_like(evaluation.outputs)
    theta = objective.theta.clone().requires_grad_()
    outputs = objective.outputs(theta, inputs)
    (expected,) = torch.autograd.grad(outputs, theta, cotangents, materialize_grads=True)
    slopes = torch.autograd.grad(
        evaluation.outputs, list(evaluation.deltas.values()), cotangents,
        retain_graph=True, materialize_grads=True,
    )  # fmt: skip
    found = torch.zeros_like(expected)
    for layer, slope in zip(layers, slopes, strict=True):
        products = (slope @ evaluation.patches[layer.name].detach().mT).sum(0)
        found[layer.weights] = products.flatten()
        if layer.bias is not None:
            found[layer.biases] = slope.sum((0, 2))
    tolerance = 1e3 * torch.finfo(objective.dtype).eps * expected.norm()
    return bool((found - expected).norm() <= tolerance)


def _is_piecewise_linear(evaluation: Evaluation) -> bool:
    """Whether the outputs' second derivative in all pre-activations is exactly zero.

    In one random direction of all layers' perturbations at once, with random cotangents: what
    is curved anywhere in the network shows, within a layer and between layers.
    """
    deltas = list(evaluation.deltas.values())
    slopes = torch.autograd.grad(
        evaluation.outputs, deltas, _random_like(evaluation.outputs),
        create_graph=True, materialize_grads=True,
    )  # fmt: skip
    moved = sum((slope * _random_like(slope)).sum() for slope in slopes)
    if not isinstance(moved, Tensor) or not moved.requires_grad:
        return True
    changes = torch.autograd.grad(moved, deltas, materialize_grads=True, retain_graph=True)
    return not any(change.any() for change in changes)

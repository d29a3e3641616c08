"""Networks whose parameters sit in Linear layers: which ones are, and where each layer stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hesspipe.objective.objective import Objective


@dataclass(frozen=True)
class LinearLayer:
    """Where one Linear layer's parameters and units stand.

    Attributes
    ----------
    name : str
        Of the module in the model.
    num_units, num_inputs : int
    weight, bias : int or None
        Positions of their first entries in theta; no bias is None.
    first_unit : int
        Position of the layer's first unit among all pre-activations.
    """

    name: str
    num_units: int
    num_inputs: int
    weight: int
    bias: int | None
    first_unit: int

    @property
    def units(self) -> slice:
        """The layer's units among all pre-activations."""
        return slice(self.first_unit, self.first_unit + self.num_units)

    @property
    def width(self) -> int:
        """Length of a~: the inputs, and one for the bias."""
        return self.num_inputs + (self.bias is not None)


def linear_layers(objective: Objective) -> list[LinearLayer] | None:
    """Find the Linear layers of a network that this module can handle.

    Returns
    -------
    list of LinearLayer, or None
        In the order in which they are called. None unless every parameter is trainable and is the
        weight or bias of a Linear module that is called once, on one vector per sample, and
        each sample's outputs depend on that sample alone.
    """
    modules = {
        name: module
        for name, module in objective.model.named_modules()
        if type(module) is nn.Linear
    }
    if not owns_every_parameter(objective, modules):
        return None
    batch = objective.batches[0]
    calls: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        outputs = perturbed_outputs(
            objective, _locate(objective, modules), batch.inputs, None, calls
        )
        alone = objective.outputs(objective.theta, batch.inputs[:1])
    called_once = set(calls) == set(modules) and all(
        len(inputs) == 1 and inputs[0].shape == (len(batch.inputs), modules[name].in_features)
        for name, inputs in calls.items()
    )
    tolerance = 1e3 * torch.finfo(objective.dtype).eps * outputs.abs().max()
    if not called_once or (outputs[:1] - alone).abs().max() > tolerance:
        return None
    layers = _locate(objective, {name: modules[name] for name in calls})
    return layers if _gradient_agrees(objective, layers) else None


def owns_every_parameter(objective: Objective, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the modules' parameters are all of theta, all trainable, with a row per sample."""
    owned = {
        f"{name}.{key}" if name else key
        for name, module in modules.items()
        for key, _ in module.named_parameters()
    }
    is_whole = owned == set(objective.names) and not any(objective.is_frozen)
    return is_whole and objective.has_output_rows and not objective.couples_samples


def first_entries(objective: Objective) -> dict[str, int]:
    """Position of each parameter's first entry in theta, by name."""
    starts, position = {}, 0
    for name, shape in zip(objective.names, objective.shapes, strict=True):
        starts[name] = position
        position += shape.numel()
    return starts


def _locate(objective: Objective, modules: dict[str, nn.Linear]) -> list[LinearLayer]:
    starts = first_entries(objective)
    layers, first_unit = [], 0
    for name, module in modules.items():
        prefix = f"{name}." if name else ""
        layers.append(
            LinearLayer(
                name=name,
                num_units=module.out_features,
                num_inputs=module.in_features,
                weight=starts[f"{prefix}weight"],
                bias=starts.get(f"{prefix}bias"),
                first_unit=first_unit,
            )
        )
        first_unit += module.out_features
    return layers


def zero_delta(objective: Objective, layers: list[LinearLayer], num_samples: int) -> Tensor:
    """No perturbation of D pre-activations of n samples: zeros of shape (n, D)."""
    return objective.theta.new_zeros(num_samples, sum(layer.num_units for layer in layers))


def perturbed_outputs(
    objective: Objective,
    layers: list[LinearLayer],
    inputs: Tensor,
    delta: Tensor | None,
    calls: dict[str, list[Tensor]],
) -> Tensor:
    """Evaluate the network with a perturbation added to every pre-activation.

    Parameters
    ----------
    objective : Objective
    layers : list of LinearLayer
    inputs : Tensor, shape (n, ...)
    delta : Tensor, shape (n, D), or None
        The perturbation, in the layers' order; None adds nothing.
    calls : dict
        Gets, for each layer's name, what entered it, call by call.

    Returns
    -------
    Tensor, shape (n, C)
    """
    modules = dict(objective.model.named_modules())

    def add_delta(
        layer: LinearLayer, _: nn.Module, args: tuple[Tensor, ...], output: Tensor
    ) -> Tensor | None:
        calls.setdefault(layer.name, []).append(args[0])
        return None if delta is None else output + delta[:, layer.units]

    handles = [
        modules[layer.name].register_forward_hook(partial(add_delta, layer)) for layer in layers
    ]
    try:
        return objective.outputs(objective.theta, inputs)
    finally:
        for handle in handles:
            handle.remove()


def _gradient_agrees(objective: Objective, layers: list[LinearLayer]) -> bool:
    """Whether sum_n d_l a~_l^T is the gradient: false where a weight is used elsewhere, too."""
    batch = objective.batches[0]
    theta = objective.theta.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        batch.share * objective.batch_loss(theta, batch), theta, materialize_grads=True
    )
    delta = zero_delta(objective, layers, len(batch.inputs)).requires_grad_()
    calls: dict[str, list[Tensor]] = {}
    outputs = perturbed_outputs(objective, layers, batch.inputs, delta, calls)
    loss = batch.share * objective.loss_fn(outputs, batch.targets)
    (slopes,) = torch.autograd.grad(loss, delta)
    found = torch.zeros_like(expected)
    for layer in layers:
        outer = slopes[:, layer.units].mT @ calls[layer.name][0].detach()
        found[layer.weight : layer.weight + outer.numel()] = outer.flatten()
        if layer.bias is not None:
            found[layer.bias : layer.bias + layer.num_units] = slopes[:, layer.units].sum(0)
    tolerance = 1e3 * torch.finfo(objective.dtype).eps * expected.norm()
    return bool((found - expected).norm() <= tolerance)


def jacobian_rows(values: Tensor, delta: Tensor) -> Tensor:
    """Differentiate each sample's values by its own perturbation.

    Parameters
    ----------
    values : Tensor, shape (n, K)
        Each row depends on the same row of delta alone; without a graph the result is zero.
    delta : Tensor, shape (n, D)

    Returns
    -------
    Tensor, shape (n, K, D)
    """
    jacobian = delta.new_zeros(*values.shape, delta.shape[1])
    if values.requires_grad:
        for row in range(values.shape[1]):
            (jacobian[:, row],) = torch.autograd.grad(
                values[:, row].sum(), delta, retain_graph=True, materialize_grads=True
            )
    return jacobian

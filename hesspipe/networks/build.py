"""The network and loss of an experiment, from its `model` entry in config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.imports import call_function, call_seeded
from hesspipe.networks.architectures import build_architecture, build_model
from hesspipe.objective.batches import Batch
from hesspipe.objective.copies import Copier
from hesspipe.objective.determinism import preserved_random_state, second_evaluation
from hesspipe.objective.explanations import explained
from hesspipe.objective.pytrees import map_tensors
from hesspipe.objective.reductions import LossFunction
from hesspipe.seeding import generator

_INITIAL = ("initial_std", "initial_gain")
_PURPOSE = "initial parameters"


def build_network(
    inputs: Tensor,
    num_classes: int | None,
    seed: int,
    model: Mapping[str, Any],
    dtype: torch.dtype,
) -> nn.Module:
    """Build the network of an experiment at its random initial point.

    Parameters
    ----------
    inputs : Tensor, shape (N, ...)
        Example inputs; the paper's networks take their sizes from it.
    num_classes : int or None
        C; None where targets are not class labels.
    seed : int
        Draws the initial point. A user function draws it from torch's global random state, which
        is seeded for the call and restored after it.
    model : mapping
        Its entry in config.yaml.
    dtype : torch.dtype
        Of the parameters; inputs of another dtype are indices.

    Returns
    -------
    nn.Module
        On the device of `inputs`.

    Raises
    ------
    ValueError
        If a user function is not found, or does not return a module.
    """
    if model["kind"] == "user":
        return _user_network(inputs, seed, model, dtype)
    num_outputs = _require_classes(num_classes, model)
    return build_model(inputs, num_outputs, generator(seed, _PURPOSE), **model)


def build_uninitialized(
    inputs: Tensor,
    num_classes: int | None,
    seed: int,
    model: Mapping[str, Any],
    dtype: torch.dtype,
) -> nn.Module:
    """Build the network of an experiment to be filled from a checkpoint.

    Parameters and errors are those of `build_network`. The paper's networks have zero parameters;
    a user function is called as for training, because non-persistent buffers, which are not in a
    checkpoint, may also be random.
    """
    if model["kind"] == "user":
        return _user_network(inputs, seed, model, dtype)
    settings = {key: model[key] for key in model if key not in _INITIAL}
    return build_architecture(inputs, _require_classes(num_classes, model), **settings)


def build_loss(
    model: Mapping[str, Any],
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> LossFunction:
    """Build the loss of an experiment; that of the paper's networks is the cross-entropy.

    Parameters
    ----------
    model : mapping
        Its entry in config.yaml.
    dtype : torch.dtype
        Of the loss's own tensors, such as class weights: that of the network.
    device : torch.device, optional
        Of the same; by default the CPU.

    Raises
    ------
    ValueError
        If a user function is not found, or does not return a callable.
    """
    if model["kind"] != "user":
        return nn.CrossEntropyLoss()
    loss_fn = call_function(model["loss"], model["loss_arguments"])
    if not callable(loss_fn):
        raise ValueError(
            f"{model['loss']!r} must return a loss of (outputs, targets), "
            f"got {type(loss_fn).__name__}"
        )
    copied: LossFunction = Copier(dtype, device or torch.device("cpu")).copy(loss_fn)
    return copied


_SAVED = "train it with your own code, and give its state dict with training: {algorithm: saved}"


def refuse_random_training(network: nn.Module) -> None:
    """Refuse to train a network whose evaluations are random or change its buffers.

    With dropout, a resumed training would differ, because a checkpoint holds no random state; with
    batch normalization, the history's evaluations would change the network.

    Raises
    ------
    ValueError
        If the network has dropout or batch normalization.
    """
    for name, module in network.named_modules():
        has_dropout = (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0) or float(
            getattr(module, "dropout", None) or 0.0
        ) > 0
        if has_dropout or isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"a network that is trained here must be without dropout and batch "
                f"normalization, got {name} ({type(module).__name__}); {_SAVED}"
            )


def refuse_random_evaluations(
    network: nn.Module, loss_fn: LossFunction, inputs: Tensor, targets: Any, dtype: torch.dtype
) -> None:
    """Refuse to train a network that draws random numbers in other ways, or with a random loss.

    Copies of the network are evaluated twice. What changes in its buffers may be deterministic.

    Parameters
    ----------
    network : nn.Module
        In the mode in which it is trained.
    loss_fn : callable (outputs, targets) -> scalar Tensor
    inputs, targets
        A batch.
    dtype : torch.dtype
        Of the network.

    Raises
    ------
    ValueError
        If the outputs or the loss differ.
    """

    def evaluate() -> tuple[Any, Tensor]:
        outputs = Copier(dtype, inputs.device).copy(network)(inputs)
        loss = loss_fn(outputs, targets)
        return map_tensors(torch.detach, outputs), loss.detach()  # without the graph

    what = f"the first {len(inputs):,} samples"
    with explained(Batch(inputs, targets, 1.0), 0, dtype), preserved_random_state(inputs.device):
        _, found = second_evaluation(evaluate(), evaluate, what, dtype)
    if found is not None:
        raise ValueError(
            f"a network that is trained here must be deterministic in training mode, got {found}; "
            f"{_SAVED}"
        )


def _user_network(
    inputs: Tensor, seed: int, model: Mapping[str, Any], dtype: torch.dtype
) -> nn.Module:
    name = model["function"]
    network = call_seeded(name, model["arguments"], seed, _PURPOSE)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name!r} must return a torch.nn.Module, got {type(network).__name__}")
    return network.to(inputs.device, dtype)


def _require_classes(num_classes: int | None, model: Mapping[str, Any]) -> int:
    if num_classes is None:
        raise ValueError(f"a {model['kind']} must have data with class labels, got none")
    return num_classes

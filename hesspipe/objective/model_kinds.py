"""Which models can be differentiated twice as functions of their parameters."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList


def unwrapped(model: nn.Module) -> nn.Module:
    """Unwrap a model that is compiled or wrapped for several devices.

    Raises
    ------
    ValueError
        If it is no module.
    """
    if not isinstance(model, nn.Module):
        what = model.__name__ if isinstance(model, type) else type(model).__name__
        raise ValueError(
            f"model must be an instance of nn.Module, got {what}; build it first, or use "
            "Objective.from_function for a function of the parameters"
        )
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def require_usable(model: nn.Module) -> None:
    """Raise an error unless the parameters are real, finite and on one device.

    Raises
    ------
    ValueError
    """
    parameters = dict(model.named_parameters())
    divided = [name for name, value in parameters.items() if hasattr(value, "full_tensor")]
    if divided or any(hasattr(module, "reshard") for module in model.modules()):
        raise ValueError(
            "model must be whole in this process, got one that is divided among processes "
            f"({', '.join(divided[:3]) or 'by fully_shard'}); use hesspipe.ShardedObjective"
        )
    for name, module in model.named_modules():
        _require_usable_module(name or "the model", module)
    if not parameters:
        raise ValueError(f"model must have parameters, got {type(model).__name__} with none")
    for name, value in chain(parameters.items(), model.named_buffers()):
        if is_lazy(value):
            raise ValueError(
                f"parameters must be initialized, got {name} of a lazy module; call the model once"
            )
        if value.is_meta:
            raise ValueError(f"parameters must have data, got {name} on the meta device")
    for name, value in parameters.items():
        if value.layout != torch.strided or value.is_nested:
            kind = "a nested tensor" if value.is_nested else f"layout {value.layout}"
            raise ValueError(
                f"parameters must be ordinary dense tensors, got {name} of {kind}; keep the values "
                "as the parameter, and make the sparse or nested tensor of them in forward"
            )
        if value.is_complex():
            raise ValueError(
                f"parameters must be real, got {name} of {value.dtype}; keep pairs of real numbers "
                "(torch.view_as_real) and use torch.view_as_complex in forward"
            )
        if not torch.isfinite(value.detach()).all():  # made in inference mode, perhaps
            raise ValueError(f"parameters must be finite, got nan or inf in {name}")
    devices = {value.device for value in parameters.values()}
    if len(devices) > 1:
        raise ValueError(f"model must be on one device, got {sorted(map(str, devices))}")


def refuse_varying_reflections(model: nn.Module, varied: Iterable[Tensor]) -> None:
    """Raise an error if parameters of orthogonal weights by Householder reflections vary.

    Their diagonal of -1 and 1 is cut to integers, so that the weight jumps and torch takes a
    derivative of zero. Behind a head or a gate of zeros the loss does not jump, only its gradient,
    which `hesspipe.objective.jumps` does not see; in float32 neither does it see a small jump.

    Parameters
    ----------
    model : nn.Module
    varied : iterable of Tensor
        Its parameters that vary.

    Raises
    ------
    ValueError
    """
    ids = set(map(id, varied))
    for name, module in model.named_modules():
        if not isinstance(module, ParametrizationList) or not ids & set(
            map(id, module.parameters(recurse=False))
        ):
            continue
        for place, part in enumerate(module):
            if getattr(getattr(part, "orthogonal_map", None), "name", "") == "householder":
                raise ValueError(
                    f"the loss must be continuous in the parameters, got {name}.{place} "
                    f"({type(part).__name__}), orthogonal weights by Householder reflections, "
                    "which jump where torch takes a derivative of zero; use orthogonal(..., "
                    "orthogonal_map='matrix_exp') or 'cayley', or leave them out by parameters="
                )


def _require_usable_module(name: str, module: nn.Module) -> None:
    """Raise an error for modules that have no second derivative, or change when they are called."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"model must not hold TorchScript, got {name}, whose parameters cannot be replaced; "
            "pass the model from before torch.jit"
        )
    if "quantized" in type(module).__module__:
        raise ValueError(
            f"model must compute with real numbers, got {name} ({type(module).__name__}); pass the "
            "model from before quantization"
        )
    rounds = getattr(module, "fake_quant_enabled", None)
    if isinstance(rounds, torch.Tensor) and rounds.any():
        raise ValueError(
            f"the gradient must be the derivative of the loss, got {name} "
            f"({type(module).__name__}), which rounds to few numbers and has the gradient of no "
            "rounding; turn it off with model.apply(torch.ao.quantization.disable_fake_quant) and "
            "model.apply(torch.ao.quantization.disable_observer)"
        )
    for setting in ("max_norm", "scale_grad_by_freq"):
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and getattr(module, setting):
            raise ValueError(
                f"embeddings must be functions of their weight, got {name} with {setting}, which "
                f"changes the weight or its gradient; set {name}.{setting} to None or False"
            )

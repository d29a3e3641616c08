"""Networks, losses, data and states of one's own, from what config.yaml names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.data.dataset import Dataset
from hesspipe.imports import call_function
from hesspipe.networks.architectures import build_model
from hesspipe.objective.reductions import LossFunction
from hesspipe.seeding import derive_seed, generator

_PARTS = ("train_inputs", "train_targets", "test_inputs", "test_targets")


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
        What the network will see. One of the paper's takes its sizes from it.
    num_classes : int or None
        C; None where targets are no class labels.
    seed : int
        Draws the initial point. A function of one's own draws it with torch's own
        initialization, whose random state is seeded for the call and then put back.
    model : mapping
        Its entry in config.yaml.
    dtype : torch.dtype
        Of the parameters; inputs that are no numbers of this dtype are indices.

    Returns
    -------
    nn.Module
        On the device of `inputs`.

    Raises
    ------
    ValueError
        If a function of one's own is not found, or returns no module.
    """
    if model["kind"] != "own":
        if num_classes is None:
            raise ValueError(f"a {model['kind']} must have data with class labels, got none")
        return build_model(inputs, num_classes, generator(seed, "initial parameters"), **model)
    name = model["function"]
    network = call_seeded(name, model["arguments"], seed, "initial parameters")
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name!r} must return a torch.nn.Module, got {_kind(network)}")
    return network.to(inputs.device, dtype)


def build_loss(model: Mapping[str, Any]) -> LossFunction:
    """Build the loss of an experiment; that of the paper's networks is the cross-entropy.

    Raises
    ------
    ValueError
        If a function of one's own is not found, or returns nothing that can be called.
    """
    if model["kind"] != "own":
        return nn.CrossEntropyLoss()
    loss_fn = call_function(model["loss"], model["loss_arguments"])
    if not callable(loss_fn):
        raise ValueError(
            f"{model['loss']!r} must return a loss of (outputs, targets), got {_kind(loss_fn)}"
        )
    return loss_fn  # type: ignore[no-any-return]  # what a user's function returns is Any


def call_seeded(name: str, arguments: Mapping[str, Any], seed: int, purpose: str) -> Any:
    """Call a function by its name with torch's random state seeded; it is put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, purpose))
        return call_function(name, arguments)


def refuse_random_training(network: nn.Module) -> None:
    """Refuse to train what hesspipe's plain descent cannot resume or would not train rightly.

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
                f"normalization, got {name} ({type(module).__name__}); train it with your own "
                "code, and give its state dict with training: {algorithm: saved}"
            )


def make_own_dataset(settings: Mapping[str, Any]) -> Dataset:
    """Make a dataset of one's own from its entry in config.yaml.

    Parameters
    ----------
    settings : mapping
        With kind "own": function, arguments; it returns (inputs, targets) or these and
        (test_inputs, test_targets) behind them, or a `hesspipe.data.dataset.Dataset`. With kind
        "file":
        path, of a safetensors file that holds tensors of these names, with train_ before the
        first two.

    Returns
    -------
    Dataset
        Without held-out data, those are empty.

    Raises
    ------
    ValueError
        If these are no tensors, or not as many targets as inputs.
    """
    if settings["kind"] == "file":
        what = settings["path"]
        found: Any = read_own_tensors(what)
        if set(found) not in ({*_PARTS[:2]}, {*_PARTS}):
            raise ValueError(
                f"{what} must hold the tensors {_PARTS[:2]} or {_PARTS}, got {[*found]}"
            )
        parts: Any = tuple(found[name] for name in _PARTS if name in found)
    else:
        what = settings["function"]
        parts = call_seeded(what, settings["arguments"], 0, "data")
    if isinstance(parts, Dataset):
        num_classes, parts = parts.num_classes, tuple(getattr(parts, name) for name in _PARTS)
    else:
        num_classes = None
    tensors = dict(zip(_PARTS, _checked_parts(parts, str(what)), strict=True))
    return Dataset(**tensors, num_classes=num_classes, settings=dict(settings))


def load_state(network: nn.Module, path: str | Path) -> None:
    """Put a saved state dict into a network.

    Raises
    ------
    ValueError
        If a name is missing or unknown, a shape is another one, or a value is not finite.
    """
    saved, expected = read_own_tensors(path), network.state_dict()
    # Tied weights have several names and may be saved under one of them.
    names = {tensor.data_ptr(): name for name, tensor in expected.items() if name in saved}
    complete = {
        name: saved[name if name in saved else names.get(tensor.data_ptr(), name)]
        for name, tensor in expected.items()
        if name in saved or tensor.data_ptr() in names
    }
    mistakes = [f"lacks {name}" for name in expected if name not in complete]
    mistakes += [f"has {name}, which the network lacks" for name in saved if name not in expected]
    mistakes += [
        f"has {name} of shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
        for name, tensor in complete.items()
        if tensor.shape != expected[name].shape
    ]
    mistakes += [
        f"has nan or inf in {name}"
        for name, tensor in complete.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if mistakes:
        more = f" (and {len(mistakes) - 3} more)" if len(mistakes) > 3 else ""
        raise ValueError(
            f"{path} must hold the state dict of this network, but it "
            + ", ".join(mistakes[:3])
            + more
        )
    network.load_state_dict(complete)


def read_own_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file that is the user's own."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except FileNotFoundError:
        raise ValueError(f"{path} must be a safetensors file, and does not exist") from None
    except SafetensorError as error:
        raise ValueError(
            f"{path} must be a safetensors file, and cannot be read: {error}"
        ) from None


def _checked_parts(parts: Any, what: str) -> Sequence[Tensor]:
    """Training and held-out inputs and targets, the latter empty where there are none."""
    if not isinstance(parts, tuple) or len(parts) not in (2, 4):
        raise ValueError(
            f"{what!r} must return (inputs, targets) or (inputs, targets, test_inputs, "
            f"test_targets), got {_kind(parts)}"
        )
    for name, part in zip(_PARTS, parts, strict=False):
        if not isinstance(part, Tensor):
            raise ValueError(f"{what!r} must return tensors, got {_kind(part)} as {name}")
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise ValueError(f"{what!r} must return finite numbers, got nan or inf in {name}")
    if len(parts) == 2:
        parts = (*parts, parts[0][:0], parts[1][:0])
    for inputs, targets in (parts[:2], parts[2:]):
        if len(inputs) != len(targets):
            raise ValueError(
                f"{what!r} must return as many targets as inputs, got {len(inputs)} inputs and "
                f"{len(targets)} targets"
            )
    if len(parts[0]) == 0:
        raise ValueError(f"{what!r} must return at least one sample, got none")
    checked: Sequence[Tensor] = parts
    return checked


def _kind(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__

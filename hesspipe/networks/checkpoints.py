"""Checkpoints: the parameters of a network at one step of its training, in one file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.errors import DamagedFileError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.objective.flattening import flatten, unflatten

_NUM_SHOWN = 3  # faults in a message


@dataclass(frozen=True)
class Checkpoint:
    """A point in parameter space, and how training got there.

    The file holds one tensor per parameter and buffer, under its name in the network, so that it
    can be read without hesspipe. A parameter that several modules share is stored once.

    Attributes
    ----------
    theta : Tensor, shape (P,)
        All parameters in the order of `network.named_parameters()`, in the dtype of training.
    shapes : mapping of str to torch.Size
        Names and shapes of the parameters, in the same order.
    step : int
        Updates since the start of this training.
    provenance : mapping
        JSON-like: experiment, seed, and the settings of dataset, model and training.
    buffers : mapping of str to Tensor
        The network's persistent buffers, such as running means.
    """

    theta: Tensor
    shapes: Mapping[str, torch.Size]
    step: int
    provenance: Mapping[str, Any]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, network: nn.Module, step: int, provenance: Mapping[str, Any]) -> Checkpoint:
        """Take a checkpoint of a network: a copy."""
        parameters = {name: value.detach() for name, value in network.named_parameters()}
        return cls(
            flatten(parameters),
            {name: value.shape for name, value in parameters.items()},
            step,
            provenance,
            {name: buffer.clone() for name, buffer in _buffers(network).items()},
        )

    @classmethod
    def read(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint file, onto the CPU.

        Raises
        ------
        DamagedFileError
            If the file is truncated, or not a checkpoint with its provenance.
        FileNotFoundError
            If it does not exist.
        """
        tensors, header = read_tensors(path)
        try:
            names = json.loads(header["parameters"])
            parameters = {name: tensors.pop(name) for name in names}
            return cls(
                flatten(parameters),
                {name: parameter.shape for name, parameter in parameters.items()},
                int(header["step"]),
                json.loads(header["provenance"]),
                tensors,
            )
        except KeyError as error:
            raise DamagedFileError(path, f"not a checkpoint: it lacks {error}") from None
        except (RuntimeError, TypeError, ValueError) as error:
            raise DamagedFileError(path, f"not a checkpoint: {error}") from None

    def write(self, path: str | Path) -> None:
        """Write to a safetensors file, atomically; equal checkpoints give equal bytes."""
        header = {
            "step": str(self.step),
            "provenance": json.dumps(self.provenance, sort_keys=True),
            "parameters": json.dumps([*self.shapes]),
        }
        write_tensors({**self.parameters, **self.buffers}, path, header)

    def into(self, network: nn.Module) -> nn.Module:
        """Copy parameters and buffers into a network, in its dtype and on its device.

        Returns
        -------
        nn.Module
            The network itself.

        Raises
        ------
        ValueError
            If its parameters or buffers have other names or shapes; it is then unchanged.
        """
        self.require_fit(network)
        stored = {**self.parameters, **self.buffers}
        with torch.no_grad():
            for name, tensor in _parameters_and_buffers(network).items():
                tensor.copy_(stored[name])
        return network

    def require_fit(self, network: nn.Module) -> None:
        """Refuse a network whose parameters or buffers have other names or shapes.

        Raises
        ------
        ValueError
        """
        stored = {**self.parameters, **self.buffers}
        mistakes = mismatches(stored, _parameters_and_buffers(network))
        if mistakes:
            raise ValueError(f"the checkpoint must be of this network, but it {mistakes}")

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Views of theta by name."""
        return unflatten(self.theta, self.shapes)

    @property
    def origin(self) -> dict[str, Any]:
        """Which point this is: experiment, seed and step, and the seed it is aligned to, if any."""
        keys = [key for key in ("experiment", "seed", "aligned_to") if key in self.provenance]
        return {"step": self.step} | {key: self.provenance[key] for key in keys}


def read_checkpoint(path: str | Path, network: nn.Module) -> Checkpoint:
    """Read a checkpoint of this network, which is not changed.

    Raises
    ------
    DamagedFileError
        If the file is truncated, not a checkpoint, or one of another network.
    """
    checkpoint = Checkpoint.read(path)
    try:
        checkpoint.require_fit(network)
    except ValueError as error:
        raise DamagedFileError(path, error) from None
    return checkpoint


def mismatches(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Describe the named tensors that do not fit into a network.

    Parameters
    ----------
    found : mapping of str to Tensor
    expected : mapping of str to Tensor
        The network's parameters and buffers.

    Returns
    -------
    str
        What "it" lacks or has (names, shapes, values that are not finite), up to three faults;
        empty if all fits.
    """
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    prefix = common_prefix(missing, unknown)
    if prefix:
        return f"has names that begin with {prefix!r}, which those of the network do not"
    mistakes = [f"lacks {name}{_nearest(name, unknown, 'it has')}" for name in missing]
    mistakes += [
        f"has {name}, which the network lacks{_nearest(name, missing, 'nearest is')}"
        for name in unknown
    ]
    for name in (name for name in expected if name in found):
        tensor, shape = found[name], expected[name].shape
        if tensor.shape != shape:
            mistakes.append(f"has {name} of shape {tuple(tensor.shape)}, not {tuple(shape)}")
        elif tensor.is_floating_point() and not torch.isfinite(tensor).all():
            mistakes.append(f"has nan or inf in {name}")
    more = len(mistakes) - _NUM_SHOWN
    return ", ".join(mistakes[:_NUM_SHOWN]) + (f" (and {more} more)" if more > 0 else "")


def _parameters_and_buffers(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **_buffers(network)}


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    """Persistent buffers: what the state dict holds and is not a parameter."""
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    state = network.state_dict()
    return {name: value for name, value in state.items() if name not in parameters}


def _nearest(name: str, others: list[str], words: str) -> str:
    matches = difflib.get_close_matches(name, others, 1)
    return f" ({words} {matches[0]})" if matches else ""


def common_prefix(missing: list[str], unknown: list[str]) -> str:
    """The prefix that a wrapper such as DataParallel or torch.compile put before every name."""
    candidates = {name.removesuffix(missing[0]) for name in unknown if missing}
    for prefix in candidates - {""}:
        if {f"{prefix}{name}" for name in missing} == set(unknown):
            return prefix
    return ""

"""State dicts saved by other programs: read, checked, and loaded into a network."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.config.user_files import is_torch_file, wrong_state
from hesspipe.data.user import read_user_tensors
from hesspipe.networks.checkpoints import common_prefix, mismatches

# Of torch's message: what a file holds besides tensors.
_OBJECT = re.compile(r"GLOBAL ([\w.]+)|([\w.]+) was not an allowed global")


def load_state(network: nn.Module, path: str | Path) -> None:
    """Load a saved state dict into a network.

    Parameters
    ----------
    network : nn.Module
        Changed in place; unchanged if the state does not fit.
    path : str or Path
        See `read_state`. Tied weights may be saved under one of their names or under all.
        Floating-point numbers are converted to the network's dtype.

    Raises
    ------
    ValueError
        If the file holds no state dict, a name is missing or unknown, a shape differs, numbers are
        of another kind, or a value is not finite.
    """
    network.load_state_dict(fitting_state(network, path))


def fitting_state(network: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Read a saved state dict, and refuse one that is not that of a network.

    Parameters
    ----------
    network : nn.Module
        May be on the meta device.
    path : str or Path
        See `load_state`.

    Returns
    -------
    dict of str to Tensor
        With every name of the network's own state dict.

    Raises
    ------
    ValueError
        See `load_state`.
    """
    saved, expected = read_state(path), network.state_dict(keep_vars=True)
    known = {id(tensor): name for name, tensor in expected.items() if name in saved}
    complete = dict(saved)
    for name, tensor in expected.items():
        if name not in saved and id(tensor) in known:
            complete[name] = saved[known[id(tensor)]]
    mistakes = _of_other_kinds(complete, expected)
    # In float64 every value of a narrower type is the same number, and can be tested.
    real = [name for name, value in complete.items() if value.is_floating_point()]
    if not mistakes:
        complete |= {name: complete[name].to(torch.float64) for name in real}
        mistakes = mismatches(complete, expected)
    if mistakes:
        missing = [name for name in expected if name not in complete]
        prefix = common_prefix(missing, [name for name in complete if name not in expected])
        without = f", after name.removeprefix({prefix!r}) for each name" if prefix else ""
        raise ValueError(
            f"{path} must hold the state dict of this network, but it {mistakes}; save it "
            f"with safetensors.torch.save_file(network.state_dict(), path){without}"
        )
    return complete


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict without running code that the file may hold.

    Parameters
    ----------
    path : str or Path
        A safetensors file, or one of torch.save: a state dict, or a mapping with one state dict
        among its values, as most programs write checkpoints. Which of its entries is taken is
        printed.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    ValueError
        If the file is in another format, holds other objects, or more than one state dict; the
        message says how to convert it.
    """
    for mistake in wrong_state("path", str(path)):
        raise ValueError(mistake)
    if not is_torch_file(path):
        return read_user_tensors(path)
    return _state_of(_read_torch_file(path), path)


def _read_torch_file(path: str | Path) -> Any:
    """Read a file of torch.save with the objects that torch takes for harmless."""
    damaged = (
        f"{path} is damaged or incomplete, or was not written by torch.save; write it again with "
        "torch.save(network.state_dict(), path)"
    )
    # torch does not compare the checksums of the archive.
    if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip() is not None:
        raise ValueError(damaged)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript archives, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # of damaged files torch raises errors of many classes
        text = str(error)
        found = _OBJECT.search(text)
        if "TorchScript" in text:
            what, source = "a TorchScript program", f"torch.jit.load({str(path)!r}).state_dict()"
        elif found is not None:
            what = next(filter(None, found.groups()))
            source = f"torch.load({str(path)!r}, weights_only=False).state_dict()"
        else:
            raise ValueError(damaged) from None
        checkpoint = "" if found is None else "; of a checkpoint, ['state_dict'] instead"
        raise ValueError(
            f"{path} must hold only tensors by name, got {what}, and reading it runs code; if you "
            f"trust the file, convert it with {_written(source, path)}{checkpoint}"
        ) from None


def _state_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """Find the one state dict in what a file holds."""
    if _is_state(content):
        return dict(content)
    entries = dict(content) if isinstance(content, Mapping) else {}
    states = [key for key, value in entries.items() if _is_state(value)]
    if len(states) == 1:
        print(f"{path}: the state dict is its entry {states[0]!r}")
        return dict(entries[states[0]])
    if states:
        source = f"torch.load({str(path)!r}, weights_only=True)[{states[0]!r}]"
        raise ValueError(
            f"{path} must hold one state dict, got {len(states)}: {states}; keep the one that you "
            f"mean, as with {_written(source, path)}"
        )
    other = next((key for key, value in entries.items() if not isinstance(value, Tensor)), None)
    what = f"a {type(content).__name__}"
    if other is not None:
        what = f"a mapping with a {type(entries[other]).__name__} as {other!r}"
    raise ValueError(
        f"{path} must hold tensors by name, got {what}; write it again with "
        "torch.save(network.state_dict(), path)"
    )


def _written(source: str, path: str | Path) -> str:
    """The line that writes a state dict next to a file."""
    return f"torch.save({source}, {str(Path(path).with_suffix('.state.pt'))!r})"


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def _of_other_kinds(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Describe the first tensor that cannot be converted without changing its meaning."""
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            return f"has {name}, which is sparse, quantized or without values (on the meta device)"
        if name in expected and _kind(tensor) != _kind(expected[name]):
            return f"has {name} of {_name(tensor)}, where the network has {_name(expected[name])}"
    return ""


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    if tensor.is_floating_point():
        return "real"
    return "boolean" if tensor.dtype == torch.bool else "integer"


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

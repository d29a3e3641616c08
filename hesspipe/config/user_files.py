"""Checks of user functions and files before any job starts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hesspipe.errors import nearest_names
from hesspipe.imports import call_function, check_name


def wrong_function(key: str, name: str) -> Iterator[str]:
    """Find a function that its module does not define."""
    mistake = check_name(name)
    if mistake is not None:
        yield f"{key} {mistake}"


def wrong_tensors(key: str, path: str) -> Iterator[str]:
    """Find a file that is not in the safetensors format, by its content."""
    fault = _unreadable(path)
    if fault is None and tensor_names(path) is None:
        fault = _describe(path)
    if fault is not None:
        yield f"{key} must be a safetensors file, got {path!r}, which {fault}"


def wrong_state(key: str, path: str) -> Iterator[str]:
    """Find a file that is neither in the safetensors format nor one of torch.save."""
    fault = _unreadable(path)
    if fault is None and not is_torch_file(path) and tensor_names(path) is None:
        fault = _describe(path)
    if fault is not None:
        yield f"{key} must be a safetensors file or one of torch.save, got {path!r}, which {fault}"


def is_torch_file(path: str | Path) -> bool:
    """Whether a file is a zip archive as torch.save writes it, or a pickle as it once did."""
    if zipfile.is_zipfile(path):
        names = zipfile.ZipFile(path).namelist()
        return any(name.endswith("data.pkl") for name in names)
    with Path(path).open("rb") as file:
        return file.read(1) == b"\x80"


def _unreadable(path: str) -> str | None:
    """Say why a file cannot be opened, if it cannot; a pipe would wait for its other end."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            return f"is {'a folder' if Path(path).is_dir() else 'a device or a pipe'}"
        with open(path, "rb"):
            return None
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def tensor_names(path: str) -> list[str] | None:
    """Read the names of the tensors in a safetensors file; None if it is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as tensors:
            return [*tensors.keys()]
    except (SafetensorError, OSError, ValueError):
        return None


def _describe(path: str) -> str:
    """Describe a file that is not safetensors, with advice on how to convert it."""
    if not Path(path).stat().st_size:
        return "is empty"
    with Path(path).open("rb") as file:
        start = file.read(64)
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    target = str(Path(path).with_suffix(".safetensors"))
    if any(name.endswith(".npy") for name in names):
        return (
            "is a NumPy archive; convert it with "
            f"safetensors.numpy.save_file(dict(numpy.load({path!r})), {target!r})"
        )
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS; fetch the file itself with git lfs pull"
    if is_torch_file(path):
        return (
            "is a PyTorch file; convert it with safetensors.torch.save_file("
            f"torch.load({path!r}, map_location='cpu', weights_only=True), {target!r})"
        )
    return (
        "is damaged or incomplete, or of another format; write it with safetensors.torch.save_file"
    )


def parameter_names(function: str, arguments: Mapping[str, Any]) -> list[str] | None:
    """Build a user's network on the meta device, without memory, and name its parameters.

    Returns None if that fails: the job that builds the network reports the reason.
    """
    sizes = _parameter_sizes(function, arguments)
    return None if sizes is None else [*sizes]


def num_parameters(function: str, arguments: Mapping[str, Any]) -> int | None:
    """Count the parameters of a user's network in the same way."""
    sizes = _parameter_sizes(function, arguments)
    return None if sizes is None else sum(sizes.values())


def num_rows_to_form(function: str, arguments: Mapping[str, Any]) -> int:
    """Count the rows of H and R that an exact spectrum forms, in the same way.

    Those of networks of Linear layers may be found from factors, which can be of any size: 0, as
    for a network that cannot be built here.
    """
    import torch

    try:
        modules = [*_network(function, arguments).modules()]
    except Exception:  # a user function may raise anything
        return 0
    varied = {
        parameter: type(module) is torch.nn.Linear
        for module in modules
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad
    }
    return 0 if all(varied.values()) else sum(parameter.numel() for parameter in varied)


def _parameter_sizes(function: str, arguments: Mapping[str, Any]) -> dict[str, int] | None:
    try:
        named = _network(function, arguments).named_parameters()
        return {name: parameter.numel() for name, parameter in named}
    except Exception:  # a user function may raise anything
        return None


def _network(function: str, arguments: Mapping[str, Any]) -> Any:
    """Build a network on the meta device."""
    import torch

    with torch.device("meta"):
        return call_function(function, arguments)


def unmatched_patterns(
    key: str, groups: Mapping[str, Sequence[str]], names: Sequence[str]
) -> Iterator[str]:
    """Find patterns of parameter names that match none of them."""
    for group, patterns in groups.items():
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                yield (
                    f"{key}.{group} must match parameters of the network, got {pattern!r}; the "
                    f"nearest are {nearest_names(pattern, names)}"
                )

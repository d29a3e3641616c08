"""What decides numbers, described by text: functions by their code and what they hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hesspipe.objective.streaming import digest

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, np.generic, Enum)
_FUNCTIONS = (FunctionType, BuiltinFunctionType, partial)
_DEEPEST = 6
_OF_A_PROCESS = re.compile("rank|device|process")


def numbers_digest(tensor: Tensor) -> str:
    """Hash the numbers of a tensor."""
    return digest(tensor).hex()[:16]


@cache
def code_of_package() -> str:
    """Hash the modules of hesspipe as they are installed here."""
    package = Path(__file__).parents[1]
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package).as_posix()}:".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def text_digest(value: Any) -> str:
    """Hash what is printed of a value."""
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


def described(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Describe a function, or whatever else decides the numbers, by what it holds."""
    if isinstance(value, _PLAIN):
        yield name, repr(value)
    elif hasattr(value, "full_tensor"):  # a DTensor, of which every process has another part
        yield name, f"numbers of shape {tuple(value.shape)}, divided among processes"
    elif isinstance(value, (Tensor, np.ndarray)):
        yield name, f"numbers of shape {tuple(value.shape)}, {digest(value).hex()[:16]}"
    elif depth >= _DEEPEST:
        yield name, type(value).__qualname__
    else:
        yield name, _name_of(value)
        for part, held in _held(value):
            yield from described(f"{name}.{part}", held, depth + 1)


def described_layers(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Describe what the modules of a model compute, apart from parameters and buffers.

    These are their classes, the code of `forward`, and public attributes that are plain values,
    tuples of them, or functions. Those that say which process this is, such as `rank` and `device`,
    may differ.
    """
    for name, module in model.named_modules():
        place = f"model.{name}" if name else "model"
        kind = type(module)
        yield place, f"{kind.__qualname__}, forward {_name_of(kind.forward)}"
        for key, held in vars(module).items():
            is_public = not key.startswith("_") and not _OF_A_PROCESS.search(key)
            if is_public and isinstance(held, (*_PLAIN, *_FUNCTIONS, tuple)):
                yield from described(f"{place}.{key}", held)


def _name_of(value: Any) -> str:
    if isinstance(value, FunctionType):
        return f"{value.__qualname__} ({text_digest(list(_code(value.__code__)))})"
    if isinstance(value, (type, Callable)) and hasattr(value, "__qualname__"):  # type: ignore[arg-type]
        return f"{value.__module__}.{value.__qualname__}"
    return type(value).__qualname__


def _code(code: CodeType) -> Iterator[Any]:
    """What a function does, without where its source is."""
    yield code.co_code
    yield code.co_names
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, CodeType) else [repr(constant)]


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """What functions, modules, containers and other objects hold, by name."""
    if isinstance(value, partial):
        yield "func", value.func
        yield from ((str(place), held) for place, held in enumerate(value.args))
        yield from value.keywords.items()
    elif isinstance(value, MethodType):
        yield "self", value.__self__
    elif isinstance(value, FunctionType):
        yield from _held_by_function(value)
    elif isinstance(value, nn.Module):
        yield from value.named_parameters()
        yield from value.named_buffers()
        yield from _attributes(value)
        yield from value.named_children()
    elif isinstance(value, Mapping):
        yield from ((str(key), held) for key, held in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((str(place), held) for place, held in enumerate(value))
    elif not isinstance(value, type):
        yield from _attributes(value)


def _held_by_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    yield from _defaults(function)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet set
            continue
    for name in function.__code__.co_names:
        held = function.__globals__.get(name)
        if name in function.__globals__ and isinstance(held, (*_PLAIN, Tensor)):
            yield name, held


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the values of arguments that have one."""
    yield from (
        (f"default {place}", held) for place, held in enumerate(function.__defaults__ or ())
    )
    yield from (function.__kwdefaults__ or {}).items()


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Public attributes that are plain values or tensors."""
    for name, held in getattr(value, "__dict__", {}).items():
        if not name.startswith("_") and isinstance(
            held, (*_PLAIN, Tensor, np.ndarray, list, tuple)
        ):
            yield name, held

"""Copies of models and losses that do not change when the originals do.

`copy.deepcopy` treats functions as constants, although they hold tensors, modules and settings in
closures, default arguments and globals, and it neither converts dtypes nor allows tensors with a
history. Here one traversal copies all of these. What cannot be copied is shared.
"""

from __future__ import annotations

import copy
import sysconfig
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator, MutableMapping
from functools import partial
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset

from hesspipe.objective.pytrees import cast
from hesspipe.objective.training_steps import without_steps

# Never copied: they cannot change, or hold no part of a loss.
_SHARED = (
    type(None), bool, int, float, complex, str, bytes, type, ModuleType, CodeType, torch.Size,
    torch.dtype, torch.device, torch.Generator, Dataset, DataLoader,
)  # fmt: skip
# The most frequent of them, and what modules hold most of: hooks and buffers that are not there.
_CONSTANTS = frozenset({type(None), bool, int, float, str})
_CONTAINERS = frozenset({dict, list, set, OrderedDict})
# Directories of libraries, whose globals are not settings of a loss.
_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


class Copier:
    """Copies objects with all that they refer to, each object once.

    Parameters
    ----------
    dtype : torch.dtype
        Floating-point tensors are converted to it.
    device : torch.device
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        # Copies by the `id` of the originals, which are kept alive.
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []

    def replace(self, value: Any, replacement: Any) -> None:
        """Use a given object as the copy of another."""
        self._copies[id(value)] = replacement
        self._originals.append(value)

    def has_copy(self, value: Any) -> bool:
        """Whether an object was copied."""
        return id(value) in self._copies

    def copy(self, value: Any) -> Any:
        """Copy an object.

        Parameters
        ----------
        value : Any
            Module, function, `functools.partial`, method, container or other object.

        Returns
        -------
        Any
            Of the same type. Tensors are constants, unless they have a history.
        """
        if type(value) in _CONSTANTS:
            return value
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, _SHARED) or type(value) in weakref.ProxyTypes:
            return value
        found = type(value)() if _is_empty_container(value) else self._new(value)
        if id(value) not in self._copies:
            self.replace(value, found)
        return self._copies[id(value)]

    def _new(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray):
            return value.copy()
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return MethodType(self.copy(value.__func__), self.copy(value.__self__))
        if isinstance(value, BuiltinMethodType):  # of a tensor, for example
            owner = self.copy(value.__self__)
            return value if owner is value.__self__ else getattr(owner, value.__name__)
        if type(value) is partial:
            keywords = {name: self.copy(part) for name, part in value.keywords.items()}
            return partial(self.copy(value.func), *map(self.copy, value.args), **keywords)
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, torch.optim.Optimizer):
            return without_steps(value)
        if isinstance(value, (tuple, frozenset)):
            parts = [self.copy(part) for part in value]
            is_same = all(part is copied for part, copied in zip(value, parts, strict=True))
            if is_same and not getattr(value, "__dict__", None):  # of a class with any arguments
                return value
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return self._object(value)

    def _tensor(self, tensor: Tensor) -> Tensor:
        if is_lazy(tensor) or tensor.is_quantized or tensor.is_meta:
            return tensor
        if tensor.grad_fn is not None:  # what it depends on must remain visible
            return cast(tensor, self.dtype, self.device)
        constant = cast(tensor.detach(), self.dtype, self.device)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(constant, requires_grad=False)
        return constant.requires_grad_(tensor.requires_grad)

    def _function(self, function: FunctionType) -> Any:
        """Rebuild a function with copies of its globals, closure and defaults."""
        if hasattr(function, "_torchdynamo_orig_callable"):  # torch.compile
            return self.copy(function._torchdynamo_orig_callable)
        is_library = _is_library(function.__code__)
        if is_library and _is_constant(function, set()):
            return function
        namespace = function.__globals__ if is_library else self._namespace(function.__globals__)
        cells = tuple(CellType() for _ in function.__closure__ or ())
        rebuilt = FunctionType(function.__code__, namespace, function.__name__, None, cells or None)
        self.replace(function, rebuilt)  # before its parts, which may refer to it
        for cell, original in zip(cells, function.__closure__ or (), strict=True):
            if not _is_empty(original):
                cell.cell_contents = self.copy(original.cell_contents)
        if not is_library:
            for name in sorted(_names(function.__code__)):  # in one order in all processes
                if name in function.__globals__:
                    namespace[name] = self.copy(function.__globals__[name])
        rebuilt.__defaults__ = self.copy(function.__defaults__)
        rebuilt.__kwdefaults__ = self.copy(function.__kwdefaults__)
        rebuilt.__dict__.update({name: self.copy(part) for name, part in vars(function).items()})
        for name in ("__qualname__", "__module__", "__doc__", "__annotations__"):
            setattr(rebuilt, name, getattr(function, name))
        return rebuilt

    def _namespace(self, names: dict[str, Any]) -> dict[str, Any]:
        """Return the one copy of a module's globals."""
        if id(names) not in self._copies:
            self.replace(names, dict(names))
        found: dict[str, Any] = self._copies[id(names)]
        return found

    def _module(self, module: nn.Module) -> nn.Module:
        own = getattr(type(module), "__deepcopy__", None)
        if own is None or getattr(own, "__module__", "") == "torch.nn.utils.parametrize":
            found = type(module).__new__(type(module))
            self.replace(module, found)
            found.__dict__ = {name: self.copy(part) for name, part in vars(module).items()}
            return found
        tensors = [*module.parameters(), *module.buffers()]
        if isinstance(module, torch.jit.ScriptModule):
            if any(id(tensor) in self._copies for tensor in tensors):
                return module
            return copy.deepcopy(module).to(self.device, self.dtype)
        for tensor in tensors:
            self.copy(tensor)
        deep: nn.Module = own(module, self._copies)
        return deep

    def _object(self, value: Any) -> Any:
        """Copy a container or an object with attributes; share it if that is not possible."""
        try:
            if hasattr(type(value), "__deepcopy__"):
                return value.__deepcopy__(self._copies)
            found = copy.copy(value)
        except Exception:  # whatever the class raises: file handles, locks, generators
            return value
        if found is value:
            return value
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, (dict, type(None))):  # list[int] shows that of its class
            return value
        if attributes is not None and getattr(found, "__dict__", None) is attributes:
            return value
        self.replace(value, found)
        if isinstance(value, MutableMapping):
            for key, part in list(value.items()):
                if self.copy(key) is not key:
                    del found[key]
                found[self.copy(key)] = self.copy(part)
        elif isinstance(value, (list, set, deque)):
            parts = [self.copy(part) for part in value]
            found.clear()
            (found.update if isinstance(value, set) else found.extend)(parts)
        if attributes is not None:
            found.__dict__.update({name: self.copy(part) for name, part in attributes.items()})
        for name in _slots(type(value)):
            if hasattr(value, name):
                object.__setattr__(found, name, self.copy(getattr(value, name)))
        return found


def _is_library(code: CodeType) -> bool:
    return code.co_filename.startswith((*_LIBRARIES, "<frozen"))


def _is_constant(value: Any, seen: set[int]) -> bool:
    """Whether a function of a library, or what it holds, cannot change."""
    if isinstance(value, (*_SHARED, BuiltinMethodType)) or id(value) in seen:
        return True
    seen.add(id(value))
    if isinstance(value, tuple):
        return all(_is_constant(part, seen) for part in value)
    if not isinstance(value, FunctionType) or not _is_library(value.__code__):
        return False
    cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
    keywords = tuple((value.__kwdefaults__ or {}).values())
    return _is_constant((*cells, *(value.__defaults__ or ()), *keywords), seen)


def _is_empty_container(value: Any) -> bool:
    return type(value) in _CONTAINERS and not value and not getattr(value, "__dict__", None)


def _is_empty(cell: CellType) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _names(code: CodeType) -> set[str]:
    """Names of globals that a function and the functions inside it may use."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _slots(kind: type) -> Iterator[str]:
    for parent in kind.__mro__:
        names = vars(parent).get("__slots__", ())
        for name in [names] if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__"):
                is_private = name.startswith("__") and not name.endswith("__")
                yield f"_{parent.__name__.lstrip('_')}{name}" if is_private else name

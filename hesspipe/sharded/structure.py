"""A copy of a model without its parameters, in which reading a parameter gathers it.

Modules find their parameters in the dictionary `_parameters`. In the copy it is one that gathers
where an entry is read, in `forward` or in any other method, by the module itself or by another one.
A copy of a parameter that does not go through it (in a list, in a closure) is nan, so that nothing
is computed with it unnoticed.

Hooks of FSDP, which would gather a second time, are left out. What a loss holds of divided modules
and tensors is gathered once, and is whole in each process. FSDP and DTensor are recognized
without being imported, which takes seconds: a model that has them has imported them.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.objective.copies import Copier
from hesspipe.ranks.ranks import Ranks

Find = Callable[[str], Tensor]

# Attributes that torch adds to the modules it shards, which hold its groups.
_STATES = "__composable_api_state_key"


def is_dtensor(value: Any) -> bool:
    """Whether processes hold parts of a tensor."""
    return hasattr(value, "full_tensor")


def _is_fsdp(module: nn.Module) -> bool:
    """Whether `fully_shard` was applied to a module."""
    return hasattr(type(module), "_orig_cls_mro_index")


def refuse_other_kinds(model: nn.Module) -> None:
    """Raise an error for models that are divided in ways that are not gathered here.

    Raises
    ------
    ValueError
    """
    for name, module in model.named_modules():
        where = name or "the model"
        if type(module).__name__ == "FullyShardedDataParallel":
            raise ValueError(
                f"model must be sharded by torch.distributed.fsdp.fully_shard, got {where} in "
                "FullyShardedDataParallel, which joins parameters to flat ones; wrap it anew"
            )
        hooks = [hook for found in _hooks(module) for hook in found.values()]
        if any(_origin(hook).startswith("torch.distributed.tensor") for hook in hooks):
            raise ValueError(
                f"model must compute with whole parameters, got tensor parallelism in {where}; "
                "shard it by fully_shard only"
            )
    for name, buffer in model.named_buffers():
        if is_dtensor(buffer):
            raise ValueError(f"buffers must be whole, got the DTensor {name}; use full_tensor()")
        if buffer.is_meta:
            raise ValueError(
                f"buffers must have data, got {name} on the meta device; call model.to_empty("
                "device=...) and load or initialize it"
            )


def placeholder(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """Make a parameter of nan with the shape of another one, and the memory of one number."""
    nan = torch.full((), torch.nan, dtype=dtype, device=value.device)
    return nn.Parameter(nan.expand(value.shape), requires_grad=False)


class WholeCopier(Copier):
    """Copies modules of FSDP as those that they were before, and DTensors as whole tensors.

    All processes must copy the same objects in the same order, which is compared where a tensor is
    gathered. Parameters of the model itself are replaced by placeholders before.

    Parameters
    ----------
    dtype : torch.dtype
    device : torch.device
    ranks : Ranks
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, ranks: Ranks) -> None:
        super().__init__(dtype, device)
        self._ranks = ranks

    def _tensor(self, tensor: Tensor) -> Tensor:
        if not is_dtensor(tensor):
            return super()._tensor(tensor)
        value: Any = tensor
        require_mesh_of_all("tensors that loss_fn or the model holds", value, self._ranks)
        self._ranks.agree_on({"a divided tensor that loss_fn or the model holds": layout_of(value)})
        with torch.no_grad():
            whole = super()._tensor(value.detach().full_tensor())
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(whole, requires_grad=False)
        return whole.requires_grad_(tensor.requires_grad)

    def _module(self, module: nn.Module) -> nn.Module:
        for hooks in _hooks(module):
            if any(_is_of_fsdp(hook) for hook in hooks.values()):
                kept = {key: hook for key, hook in hooks.items() if not _is_of_fsdp(hook)}
                self.replace(hooks, self.copy(type(hooks)(kept)))
        if not _is_fsdp(module):
            return super()._module(module)
        kinds: Any = type(module)
        kind = kinds.__mro__[kinds._orig_cls_mro_index]
        found: nn.Module = kind.__new__(kind)
        self.replace(module, found)  # before its parts, which may refer to it
        found.__dict__ = {
            name: self.copy(value)
            for name, value in vars(module).items()
            if not name.startswith(_STATES)
        }
        return found


def layout_of(value: Any) -> str:
    """Describe how a DTensor is divided; the same in all processes."""
    mesh = tuple(value.device_mesh.shape)
    return f"shape {tuple(value.shape)}, {value.dtype}, {value.placements} on a mesh {mesh}"


def require_mesh_of_all(name: str, value: Any, ranks: Ranks) -> None:
    """Raise an error unless a DTensor is divided among all processes."""
    if value.device_mesh.size() != ranks.size:
        raise ValueError(
            f"{name} must be divided among all {ranks.size} processes of the group, got one on a "
            f"mesh of {value.device_mesh.size()}"
        )


def gather_where_read(
    structure: nn.Module, names: dict[int, str], find: Find, is_read: Callable[[str, Any], bool]
) -> None:
    """Let the modules of a copy find their parameters.

    Parameters
    ----------
    structure : nn.Module
        Changed in place.
    names : dict of str
        Of the parameters, by the `id` of their placeholders.
    find : callable (name) -> Tensor
    is_read : callable (name, value) -> bool
        Whether a value is what `find` has given for a parameter.
    """
    for module in structure.modules():
        if any(id(value) in names for value in module._parameters.values()):
            vars(module)["_parameters"] = _Parameters(module._parameters, names, find, is_read)
        if isinstance(module, nn.RNNBase):
            module.register_forward_pre_hook(_read_weights)
            module.register_forward_hook(_forget_weights)


class _Parameters(dict[str, Any]):
    """Parameters of a module, each found anew whenever it is read.

    `torch.func.functional_call` puts other tensors in their places, and then back what it has read.
    """

    def __init__(
        self,
        entries: Mapping[str, Any],
        names: dict[int, str],
        find: Find,
        is_read: Callable[[str, Any], bool],
    ) -> None:
        super().__init__(entries)
        self._names = {key: names.get(id(value)) for key, value in entries.items()}
        self._others: dict[str, Any] = {}
        self._find, self._is_read = find, is_read

    def __getitem__(self, key: str) -> Any:
        value, name = super().__getitem__(key), self._names.get(key)
        if key in self._others:
            return self._others[key]
        return value if name is None else self._find(name)

    def __setitem__(self, key: str, value: Any) -> None:
        name = self._names.get(key)
        if name is None:
            super().__setitem__(key, value)
        elif self._is_read(name, value):
            self._others.pop(key, None)
        else:
            self._others[key] = value

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401 (this is `get`)

    def values(self) -> Any:
        return ValuesView(self)

    def items(self) -> Any:
        return ItemsView(self)


def _hooks(module: nn.Module) -> Iterator[dict[Any, Any]]:
    """All that a module calls at its forward, backward, saving and loading."""
    for name, value in vars(module).items():
        if name.endswith("_hooks") and isinstance(value, dict):
            yield value


def _is_of_fsdp(hook: Any) -> bool:
    return _origin(hook).startswith(("torch.distributed.fsdp", "torch.distributed._composable"))


def _origin(hook: Any) -> str:
    return str(getattr(getattr(hook, "hook", hook), "__module__", ""))


def _read_weights(module: Any, _: Any) -> None:
    """Recurrent layers hold a list of their parameters."""
    module._flat_weights = list(_weights(module))


def _forget_weights(module: Any, *_: Any) -> None:
    module._flat_weights = []


def _weights(module: Any) -> Iterator[Tensor | None]:
    for name in module._flat_weights_names:
        yield getattr(module, name) if name in module._parameters else None

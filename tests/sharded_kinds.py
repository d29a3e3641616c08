"""Models that are divided among processes in unusual ways, for tests/sharded/test_kinds.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from problems import labels, normal
from sharded_cases import PARTS, products
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.utils.checkpoint import checkpoint

import hesspipe

INPUTS, TARGETS = normal(9, 4), labels(9, 3)


class Twice(nn.Module):
    """A submodule that is called twice, and held under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.same = self.inner
        self.last = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.same(torch.tanh(self.inner(inputs)))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.last = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(inputs)))))


class Collected(nn.Module):
    """Parameters in lists, dictionaries and as scalars, one without entries."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ParameterList([torch.randn(4, 3), torch.randn(3)])
        self.named = nn.ParameterDict({"shift": torch.randn(3)})
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.nothing = nn.Parameter(torch.empty(0, 5))

    def forward(self, inputs: Tensor) -> Tensor:
        out = torch.tanh(inputs @ self.listed[0] + self.listed[1])
        return self.scale * out + self.named["shift"] + self.nothing.sum()


class Small(nn.Module):
    """So few parameters that some processes hold none."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.shift = nn.Parameter(torch.tensor([0.3]))
        self.register_buffer("basis", torch.randn(4, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(self.scale * inputs @ self.basis + self.shift) ** 2


class Checkpointed(nn.Module):
    """A part that is computed again for derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(
            checkpoint(lambda x: torch.tanh(self.inner(x)), inputs, use_reentrant=False)
        )


class Hooked(nn.Sequential):
    """Hooks of its state, and of its forward pass."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.register_state_dict_post_hook(_renamed)
        self.register_load_state_dict_pre_hook(lambda *_: None)
        self[1].register_forward_hook(lambda module, args, out: 2 * out)


def _renamed(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in list(state):
        state[f"{name}.renamed"] = state.pop(name)


class Deep(nn.Module):
    """Layers in layers in layers."""

    def __init__(self) -> None:
        super().__init__()
        inner = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 5))
        self.blocks = nn.Sequential(inner, nn.Tanh(), nn.Linear(5, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.blocks(inputs)


def frozen_inside() -> nn.Module:
    model = Deep()
    for value in model.blocks[0][0].parameters():
        value.requires_grad_(False)
    return model


class Symmetric(nn.Module):
    """A weight that is computed of another one."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


def parametrized() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    nn.utils.parametrize.register_parametrization(model[0], "weight", Symmetric())
    return model


def whole(model: nn.Module, _: int) -> None:
    """Divide nothing."""


def leaves(model: nn.Module, size: int) -> None:
    """Divide every module with parameters of its own, and then the whole."""
    mesh = init_device_mesh("cpu", (size,))
    for module in list(model.modules()):
        if module is not model and list(module.parameters(recurse=False)):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def nested(model: nn.Module, size: int) -> None:
    """Divide every module, from the inside."""
    mesh = init_device_mesh("cpu", (size,))
    for module in reversed(list(model.modules())):
        fully_shard(module, mesh=mesh)


def root(model: nn.Module, size: int) -> None:
    fully_shard(model, mesh=init_device_mesh("cpu", (size,)))


def replicated(model: nn.Module, size: int) -> None:
    """A mesh of two dimensions, of which one has copies."""
    fully_shard(model, mesh=init_device_mesh("cpu", (size, 1), mesh_dim_names=("copies", "parts")))


def tensors(
    placements: Callable[[Tensor], list[Any]], *shape: int
) -> Callable[[nn.Module, int], None]:
    """DTensors on a mesh, of which a dimension -1 is the number of processes."""

    def divide(model: nn.Module, size: int) -> None:
        mesh = init_device_mesh("cpu", tuple(size if n == -1 else n for n in shape))
        found: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, value in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                if id(value) not in found:
                    spread = distribute_tensor(value.detach(), mesh, placements(value))
                    found[id(value)] = nn.Parameter(spread, requires_grad=value.requires_grad)
                module.register_parameter(name, found[id(value)])

    return divide


def partial_sums(model: nn.Module, size: int) -> None:
    """Parameters that are sums over processes."""
    mesh = init_device_mesh("cpu", (size,))
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            own = DTensor.from_local(value.detach() / size, mesh, [Partial()])
            module.register_parameter(name, nn.Parameter(own))


def _by_rows(value: Tensor) -> list[Any]:
    return [Shard(0), Replicate()] if value.ndim else [Replicate(), Replicate()]


def _by_last(value: Tensor) -> list[Any]:
    return [Replicate(), Shard(value.ndim - 1)] if value.ndim else [Replicate(), Replicate()]


@dataclass(frozen=True)
class Kind:
    """A model, and how it is divided."""

    make: Callable[[], nn.Module]
    divide: Callable[[nn.Module, int], None]


KINDS = {
    "a module used twice": Kind(Twice, root),
    "a module used twice, each layer divided": Kind(Twice, leaves),
    "tied weights": Kind(Tied, root),
    "tied weights of DTensors": Kind(Tied, tensors(_by_rows, -1, 1)),
    "lists, scalars and nothing": Kind(Collected, tensors(_by_rows, -1, 1)),
    "lists, scalars and nothing, whole": Kind(Collected, whole),
    "processes without a parameter": Kind(Small, whole),
    "checkpoints": Kind(Checkpointed, leaves),
    "hooks of the state": Kind(Hooked, leaves),
    "nested": Kind(Deep, nested),
    "frozen inside": Kind(frozen_inside, nested),
    "a mesh of two dimensions": Kind(Deep, replicated),
    "columns on a mesh of two dimensions": Kind(Deep, tensors(_by_last, 1, -1)),
    "sums over processes": Kind(Deep, partial_sums),
    "weights that are computed": Kind(parametrized, root),
    "weights that are computed, of DTensors": Kind(parametrized, tensors(_by_rows, -1, 1)),
}


def model_of(name: str) -> nn.Module:
    torch.manual_seed(7)
    return KINDS[name].make().double()


def every_kind(rank: int, size: int) -> dict[str, Any]:
    """Products of each kind, and of those with few parameters what the methods find."""
    found: dict[str, Any] = {}
    part = PARTS[size][rank]
    for name, kind in KINDS.items():
        model = model_of(name)
        kind.divide(model, size)
        objective = hesspipe.ShardedObjective(
            model, nn.CrossEntropyLoss(), (INPUTS[part], TARGETS[part])
        )
        found[name] = products(objective, ["hessian", "ggn"])
        if name == "processes without a parameter":
            found["methods"] = _by_all_methods(objective)
    return found


def _by_all_methods(objective: hesspipe.ShardedObjective) -> dict[str, Any]:
    pairs = hesspipe.eigenpairs(objective, num_largest=2)
    norms = hesspipe.estimate_norms(objective, num_products=6)
    return {
        "eigenvalues": pairs.eigenvalues,
        "eigenvectors": objective.gather(pairs.eigenvectors),
        "nodes": hesspipe.density(objective, num_probes=2, num_steps=2).nodes,
        "norms": [norms.trace.value, norms.frobenius_norm.value],
    }

"""Losses that hold modules and tensors that are divided themselves, for tests/sharded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from problems import labels, network, normal
from process_groups import raised
from sharded_cases import PARTS, products, sharded
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

import hesspipe

INPUTS, TARGETS = normal(9, 4), labels(9, 3)
Loss = Callable[[Tensor, Tensor], Tensor]


def teacher() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


class Distillation(nn.Module):
    """The distance from a teacher, beside the labels."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = teacher()

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        distance = (outputs - self.teacher(outputs)).square().sum(1).mean()
        return distance + nn.functional.cross_entropy(outputs, targets)


class Prototypes(nn.Module):
    """Learned prototypes of classes, with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(normal(3, 3, seed=4))
        self.temperature = nn.Parameter(torch.tensor([0.7], dtype=torch.float64))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = outputs @ self.prototypes.T / self.temperature
        return nn.functional.cross_entropy(logits, targets)


def _spread(module: nn.Module, size: int, placement: Placement) -> None:
    mesh = init_device_mesh("cpu", (size,))
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            whole = distribute_tensor(value.detach(), mesh, [placement])
            part.register_parameter(name, nn.Parameter(whole))


def _by_children(module: nn.Module, size: int) -> None:
    mesh = init_device_mesh("cpu", (size,))
    for part in list(module.modules())[::-1]:
        if list(part.parameters(recurse=False)):
            fully_shard(part, mesh=mesh)


def _module(kind: type[nn.Module], divide: Callable[[nn.Module, int], None]) -> Any:
    def make(size: int | None) -> Loss:
        loss = kind()
        if size:
            divide(loss, size)
        return loss

    return make


def _closure(size: int | None) -> Loss:
    """A teacher in a closure, and one that is sharded as a whole."""
    first, second = teacher(), teacher()
    if size:
        _by_children(first, size)
        fully_shard(second, mesh=init_device_mesh("cpu", (size,)))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        found = first(outputs) * second(torch.sin(outputs))
        return (outputs - found).square().sum(1).mean() + 0 * targets.sum()

    return loss


def _weights(size: int | None) -> Loss:
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    if size:
        weights = distribute_tensor(weights, init_device_mesh("cpu", (size,)), [Shard(0)])
    return nn.CrossEntropyLoss(weight=weights)


def _as_a_whole(module: nn.Module, size: int) -> None:
    fully_shard(module, mesh=init_device_mesh("cpu", (size,)))


# By the number of processes; None leaves everything whole.
LOSSES: dict[str, Callable[[int | None], Loss]] = {
    "a teacher of fully_shard": _module(Distillation, _as_a_whole),
    "a teacher divided inside": _module(Distillation, _by_children),
    "divided prototypes": _module(Prototypes, lambda m, n: _spread(m, n, Shard(0))),
    "copied prototypes": _module(Prototypes, lambda m, n: _spread(m, n, Replicate())),
    "teachers in a closure": _closure,
    "divided class weights": _weights,
}


def every_loss(rank: int, size: int) -> dict[str, Any]:
    """Products for each loss, and what is refused."""
    found: dict[str, Any] = {}
    part = PARTS[size][rank]
    for name, make in LOSSES.items():
        loss = make(size)
        objective = hesspipe.ShardedObjective(
            sharded(network([4, 5, 3], "tanh"), size),
            loss,
            (INPUTS[part], TARGETS[part]),
            denominator=None if name == "divided class weights" else lambda o, t: float(len(t)),
        )
        found[name] = products(objective, ["hessian", "ggn"])
        # The caller's is divided still.
        if isinstance(loss, nn.Module):
            assert all(hasattr(p, "full_tensor") for p in loss.parameters())
    return found | {"refused": _refusals(rank, size)}


class Detached(nn.Linear):
    """A function of equal values in all processes, but with other derivatives in one."""

    def __init__(self, order: int, is_other: bool) -> None:
        super().__init__(4, 3, dtype=torch.float64)
        self._order, self._is_other = order, is_other

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        if not self._is_other:
            return outputs
        change = outputs - outputs.detach()
        return outputs + change**self._order


def _refusals(rank: int, size: int) -> dict[str, Any]:
    part = PARTS[size][rank]

    def build(change: Callable[[nn.Module], Any], **settings: Any) -> Any:
        torch.manual_seed(0)
        model = sharded(network([4, 5, 3], "tanh"), size)
        change(model)
        data = INPUTS[part], TARGETS[part]
        return hesspipe.ShardedObjective(model, nn.CrossEntropyLoss(), data, **settings)

    def other(order: int) -> Any:
        torch.manual_seed(0)
        model = sharded(Detached(order, is_other=rank == 1), size)
        return hesspipe.ShardedObjective(
            model, nn.CrossEntropyLoss(), (INPUTS[part], TARGETS[part])
        )

    def spoil(model: nn.Module) -> None:
        if rank == 1:
            model[1].weight.to_local().data.fill_(torch.nan)

    def replicate(model: nn.Module) -> None:
        mesh = init_device_mesh("cpu", (size,))
        value = normal(5, 4)
        placed = distribute_tensor(value, mesh, [Replicate() if rank == 1 else Shard(0)],
                                   src_data_rank=None)  # fmt: skip
        model[1].register_parameter("weight", nn.Parameter(placed))

    cases: dict[str, Callable[[], Any]] = {
        "first derivative": lambda: other(1),
        "second derivative": lambda: other(2),
        "nan in one rank": lambda: build(spoil, parameters=["3.*"]),
        "placements": lambda: build(replicate),
        "frozen in one rank": lambda: build(lambda m: m[1].weight.requires_grad_(rank != 1)),
        "buffer without data": lambda: build(
            lambda m: m.register_buffer("mask", torch.ones(2, device="meta"))
        ),
    }
    return {name: raised(case) for name, case in cases.items()}

"""Losses that differentiate divided models with normalization, for tests/sharded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normalized import INPUTS, LAYERS, Field, Returning, backward, distance, network, penalty
from problems import normal
from sharded_cases import products, sharded
from torch import Tensor, nn
from torch.nn import functional

import hesspipe

TARGETS = normal(5, 3, seed=2)
PARTS = [slice(0, 2), slice(2, 5)]


def penalized(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return penalty(backward, model, batch[0])


def fitted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.mse_loss(Field(model)(batch[0]), batch[1])


def returned(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return distance(Returning(model)(batch[0]), batch[1])


# By what differentiates the network.
LOSSES: dict[str, Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]] = {
    "loss of the model": penalized,
    "model": fitted,
    "loss of a graph": returned,
    "loss of a graph, whole batches": returned,
}


def _objective(way: str, inner: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    if way == "loss of the model":
        return hesspipe.ShardedObjective.from_batches(
            sharded(inner, 2), penalized, [batch], num_samples=lambda batch: len(batch[0])
        )
    if way == "model":
        return hesspipe.ShardedObjective(sharded(Field(inner), 2), nn.MSELoss(), batch)
    model = sharded(Returning(inner), 2)
    if way == "loss of a graph":
        return hesspipe.ShardedObjective(
            model, distance, batch, denominator=lambda _, targets: float(len(targets))
        )
    return hesspipe.ShardedObjective.from_batches(
        model,
        lambda outputs, batch: distance(outputs, batch[1]),
        [batch],
        outputs=lambda model, batch: model(batch[0]),
        num_samples=lambda batch: len(batch[0]),
    )


def every_norm(rank: int) -> dict[tuple[str, str], Tensor]:
    batch = INPUTS[PARTS[rank]], TARGETS[PARTS[rank]]
    return {
        (way, name): products(
            _objective(way, network(name, is_written_out=False), batch), ["hessian"]
        )["hessian"]
        for way in LOSSES
        for name in LAYERS
    }

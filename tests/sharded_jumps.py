"""Losses that jump at divided parameters, for tests/sharded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jumping import CONTINUOUS, INPUTS, JUMPS, TARGETS, ZEROS, Function, Gated, jumping
from problems import labels
from process_groups import raised
from sharded_cases import products, sharded
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import hesspipe
from hesspipe.objective.rounding import measured_rounding
from hesspipe.ranks.ranks import Ranks

SIZES = [5, 7]  # samples of each rank
# Classes that are ignored, all of those of rank 0.
LABELS = torch.cat([torch.full((5,), -100), labels(7, 2)])


def _crossing(gate: Tensor, inputs: Tensor) -> Tensor:
    """Jump for a sample with the input -1."""
    return (gate[0] + gate[1] * inputs[:, :1] >= 0).to(inputs) * inputs[:, :2]


def _crossed() -> Tensor:
    inputs = INPUTS.clone()
    inputs[10, 0] = -1.0  # where the gate is 0.5 + 0.5 x = 0
    return inputs


def _undefined_beside(gate: Tensor, inputs: Tensor) -> Tensor:
    """A function that fails beside the parameters on the data of one rank."""
    if len(inputs) == 7 and bool(gate.ne(0).any()):
        raise KeyError("beside")
    return (inputs @ gate).unsqueeze(1)


def reflected() -> nn.Module:
    """A layer of orthogonal weights behind zeros, so that only the gradient jumps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    nn.init.zeros_(model[1].weight)
    return nn.Sequential(
        parametrizations.orthogonal(model[0], orthogonal_map="householder"), model[1]
    )


def rounding_of_sent() -> Tensor:
    """Measure the rounding errors of numbers that are sent only."""
    ranks, numbers = Ranks(torch.distributed.group.WORLD), INPUTS.flatten()

    def send() -> Tensor:
        joined = ranks.join(numbers, "numbers")
        ranks.broadcast(joined, "numbers")
        return joined

    return measured_rounding(send, send(), torch.abs, "numbers")


def every_jump(rank: int) -> dict[str, Any]:
    part = INPUTS.split(SIZES)[rank], TARGETS.split(SIZES)[rank]

    def build(model: nn.Module, data: Any = part, loss: Any = None, **settings: Any) -> Any:
        whole = sharded(model, 2)
        return hesspipe.ShardedObjective(whole, loss or nn.MSELoss(), data, **settings)

    def gated(function: Function, gate: float = 0.5) -> Gated:
        return Gated(torch.full((3,), gate), function)

    crossed = _crossed()
    cut = (
        [(crossed[:5], TARGETS[:5])],
        [(crossed[n], TARGETS[n]) for n in (range(5, 9), range(9, 12))],
    )
    special: dict[str, Callable[[], Any]] = {
        "batch 0 of rank 1": lambda: build(
            gated(_crossing), (crossed.split(SIZES)[rank], TARGETS.split(SIZES)[rank])
        ),
        "batch 1 of rank 1": lambda: build(gated(_crossing), cut[rank]),
        "batch 0 of rank 0": lambda: build(gated(_crossing), cut[1 - rank][-1:]),
        "ignored labels": lambda: build(
            jumping("floor"), (part[0], LABELS.split(SIZES)[rank]), nn.CrossEntropyLoss()
        ),
        "no data": lambda: build(jumping("floor"), [] if rank == 0 else part),
        "reflections": lambda: hesspipe.ShardedObjective(reflected(), nn.MSELoss(), part),
        "the same data": lambda: build(
            jumping("threshold"), (INPUTS, TARGETS), data_on_ranks="same"
        ),
        "batches of any type": lambda: hesspipe.ShardedObjective.from_batches(
            sharded(jumping("router of zeros"), 2),
            lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
            [part],
            num_samples=lambda batch: len(batch[0]),
        ),
    }
    left_out = build(jumping("floor"), parameters=["layer.*"])
    return {
        "refused": {name: raised(lambda: build(jumping(name))) for name in JUMPS},  # noqa: B023
        "refused in float32": {
            name: raised(lambda: build(jumping(name), dtype=torch.float32))  # noqa: B023
            for name in JUMPS
        },
        "near": {name: products(build(jumping(name, 1e-3)), ["hessian"]) for name in JUMPS},
        "continuous": {
            (name, dtype): raised(lambda: build(gated(function, 0.0), dtype=dtype))  # noqa: B023
            for name, function in CONTINUOUS.items()
            for dtype in (torch.float64, torch.float32)
        },
        "special": {name: raised(case) for name, case in special.items()},
        "rounding of sent": rounding_of_sent(),
        "left out": left_out.names,
        "undefined beside": products(build(Gated(ZEROS, _undefined_beside)), ["hessian"]),
    }

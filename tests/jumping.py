"""Models that jump at their parameters, or do not, for tests/objective and tests/sharded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from problems import normal
from torch import Tensor, nn
from torch.nn import functional

INPUTS = normal(12, 3)
TARGETS = normal(12, 2, seed=5)
Function = Callable[[Tensor, Tensor], Tensor]


class Gated(nn.Module):
    """A Linear layer whose outputs are changed by a function of a parameter and the inputs."""

    def __init__(self, gate: Tensor, function: Function) -> None:
        super().__init__()
        self.gate = nn.Parameter(gate.clone())
        self.layer = nn.Linear(3, 2)
        with torch.no_grad():
            self.layer.weight.copy_(normal(2, 3, seed=7))
            self.layer.bias.copy_(normal(2, seed=8))
        self.function = function
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.layer(inputs)) + self.function(self.gate.to(inputs), inputs)


def routed(gate: Tensor, inputs: Tensor) -> Tensor:
    """Mix the two best of four experts."""
    experts = torch.stack([normal(3, 2, seed=seed).to(inputs) for seed in range(10, 14)])
    shares, chosen = (inputs @ gate).softmax(1).topk(2, 1)
    outputs = torch.einsum("ni,eio->neo", inputs, experts)
    picked = outputs.gather(1, chosen.unsqueeze(2).expand(-1, -1, 2))
    return (shares.unsqueeze(2) * picked).sum(1)


def selected(gate: Tensor, inputs: Tensor) -> Tensor:
    """Take the input with the highest score."""
    return inputs.gather(1, (inputs * gate).argmax(1, keepdim=True)) * torch.ones(2).to(inputs)


def reordered(gate: Tensor, inputs: Tensor) -> Tensor:
    return inputs[:, gate.argsort(descending=True)][:, :2]


def looked_up(gate: Tensor, inputs: Tensor) -> Tensor:
    table = normal(4, 2, seed=9).to(inputs)
    return table[torch.bucketize(gate.detach(), torch.arange(3.0).to(inputs), right=True)].sum(0)


def thresholded(gate: Tensor, inputs: Tensor) -> Tensor:
    """Leave out small weights."""
    return inputs[:, :2] * torch.where(gate.abs() >= 0.5, gate, torch.zeros_like(gate)).sum()


ZEROS = torch.zeros(3, dtype=torch.float64)
MIXED = torch.tensor([0.5, -1.3, 0.2], dtype=torch.float64)
# The gate at the jump, the change of it that leads off, and the function that jumps.
JUMPS: dict[str, tuple[Tensor, Tensor, Function]] = {
    "router of zeros": (torch.zeros(3, 4).double(), normal(3, 4, seed=3), routed),
    "argmax": (ZEROS, torch.tensor([1.0, 2.0, -1.0]), selected),
    "order": (torch.tensor([0.4, 0.4, -1.0]), torch.tensor([1.0, -1.0, 0.0]), reordered),
    "threshold": (MIXED, torch.ones(3), thresholded),
    "other side of the threshold": (MIXED, -torch.ones(3), thresholded),
    "gate": (ZEROS, torch.ones(3), lambda g, x: (x @ g > 0).to(x).unsqueeze(1)),
    "floor": (MIXED.round(), torch.ones(3), lambda g, x: g.floor().sum() * x[:, :2]),
    "ceil": (MIXED.round(), torch.ones(3), lambda g, x: g.ceil().sum() * x[:, :2]),
    "trunc": (MIXED * 0 + 2, -torch.ones(3), lambda g, x: g.trunc().sum() * x[:, :2]),
    "round": (MIXED * 0 + 0.5, torch.ones(3), lambda g, x: g.round().sum() * x[:, :2]),
    "remainder": (MIXED * 0 + 1, torch.ones(3), lambda g, x: (g % 1).sum() * x[:, :2]),
    "sign": (ZEROS, torch.ones(3), lambda g, x: g.sign().sum() * x[:, :2]),
    "heaviside": (ZEROS, torch.ones(3), lambda g, x: (g >= 0).to(x).sum() * x[:, :2]),
    "equal": (ZEROS, torch.ones(3), lambda g, x: (g == 0).to(x).sum() * x[:, :2]),
    "index": (MIXED * 0 + 1, torch.ones(3), looked_up),
    "small": (ZEROS, torch.ones(3), lambda g, x: 1e-3 * (g > 0).to(x).sum() * x[:, :2]),
}


def jumping(name: str, distance: float = 0.0) -> Gated:
    gate, change, function = JUMPS[name]
    return Gated(gate.double() + distance * change.double(), function)


FINE = 1e-9 * normal(12, 3, seed=4)
CONTINUOUS: dict[str, Function] = {
    "sorted": lambda g, x: (x @ g).unsqueeze(1) + g.sort().values[:2],
    "largest two": lambda g, x: g.topk(2).values * x[:, :2],
    "topk of products": lambda g, x: (x * g).topk(2, 1).values,
    "max": lambda g, x: (x * g).amax(1, keepdim=True),
    "max pooling": lambda g, x: functional.max_pool1d(x * g, 2, 1),
    "relu": lambda g, x: (x @ g).relu().unsqueeze(1),
    "hard sigmoid": lambda g, x: functional.hardsigmoid(x @ g - 3).unsqueeze(1),
    "clamp": lambda g, x: (x * g).clamp(0, 1)[:, :2],
    "where": lambda g, x: torch.where(g > 0, g, 0.5 * g).sum() * x[:, :2],
    "difference to the floor": lambda g, x: (torch.sin(g * torch.pi)).square().sum() * x[:, :2],
    "steep": lambda g, x: torch.tanh(1e6 * (x @ g)).unsqueeze(1),
    "large": lambda g, x: 1e6 * (x @ g + 1).unsqueeze(1),
    "saturated": lambda g, x: (1e3 * x + g).softmax(1)[:, :2],
    "tiny variance": lambda g, x: functional.layer_norm(1 + FINE.to(x) + g, (3,), eps=0.0)[:, :2],
    "cancelled": lambda g, x: ((1e6 + x * g) - 1e6)[:, :2],
    "logarithm of a small probability": lambda g, x: (x + 40 * g.exp()).log_softmax(1)[:, :2],
}  # fmt: skip

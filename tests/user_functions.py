"""Networks, losses and data as a user writes them, named as "user_functions:<function>"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

REGRESSION: dict[str, Any] = {
    "kind": "user", "function": "user_functions:build", "arguments": {"width": 4},
    "loss": "torch.nn:MSELoss", "loss_arguments": {},
}  # fmt: skip
LANGUAGE = REGRESSION | {
    "function": "user_functions:Tied", "loss": "torch.nn:CrossEntropyLoss",
}  # fmt: skip


class Tied(nn.Module):
    """The same weights twice, and integers as inputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, with the classes in the second dimension."""
        outputs: Tensor = self.head(torch.tanh(self.embedding(tokens)))
        return outputs.transpose(1, 2)


class Normalized(nn.Module):
    """Persistent buffers of two dtypes, one that is not persistent and random, and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.register_buffer("projection", torch.randn(3, 3), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        outputs: Tensor = self.norm(self.linear(inputs @ self.projection.to(inputs.dtype)))
        return self.scale * outputs


def build(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))


def absolute() -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: (outputs - targets).abs().pow(3).mean()


def text(width: int) -> str:
    return "no network"


def number() -> int:
    return 3


def points(number: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(number, 3)
    return inputs, inputs.sum(1, keepdim=True)


def tokens() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    passages = torch.arange(12).view(4, 3) % 5
    return passages, passages.roll(1), passages[:2], passages[:2]


def one() -> tuple[Tensor]:
    return (torch.ones(3),)


def uneven() -> tuple[Tensor, Tensor]:
    return torch.ones(3, 1), torch.ones(4, 1)


def lists() -> tuple[list[float], list[float]]:
    return [1.0], [2.0]


def infinite() -> tuple[Tensor, Tensor]:
    return torch.full((2, 1), float("inf")), torch.ones(2, 1)


def empty() -> tuple[Tensor, Tensor]:
    return torch.ones(0, 1), torch.ones(0, 1)


def complex_numbers() -> tuple[Tensor, Tensor]:
    return torch.ones(3, 2, dtype=torch.complex64), torch.ones(3, 1)


def sparse() -> tuple[Tensor, Tensor]:
    return torch.eye(3, 2).to_sparse(), torch.ones(3, 1)


def one_target() -> tuple[Tensor, Tensor]:
    return torch.ones(3, 2), torch.tensor(1)

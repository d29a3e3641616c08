"""Small networks, data and tolerances that several test modules share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hesspipe.models import initialize_normal, mlp
from hesspipe.objective import Objective

EPS = torch.finfo(torch.float64).eps


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers of a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(num_samples: int, num_classes: int, seed: int = 1) -> Tensor:
    """Random class labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_classes, (num_samples,), generator=generator)


def network(widths: list[int], activation: str = "relu", std: float = 0.6) -> nn.Sequential:
    """A fully connected network at a random point in general position."""
    model = mlp(
        num_inputs=widths[0],
        hidden_widths=widths[1:-1],
        num_outputs=widths[-1],
        activation=activation,
    ).double()
    initialize_normal(model, std, torch.Generator().manual_seed(2))
    return model


@pytest.fixture
def make_objective() -> Callable[..., Objective]:
    """Build a classification objective on a small network."""

    def make(
        widths: list[int] | None = None,
        activation: str = "relu",
        num_samples: int = 12,
        loss_fn: nn.Module | None = None,
    ) -> Objective:
        widths = widths or [4, 5, 3, 3]
        data = normal(num_samples, widths[0]), labels(num_samples, widths[-1])
        return Objective(network(widths, activation), loss_fn or nn.CrossEntropyLoss(), data)

    return make


def assert_close(found: Tensor, expected: Tensor, factor: float = 50.0) -> None:
    """Equal up to factor * eps * ||expected||, entry by entry."""
    tolerance = factor * EPS * float(expected.norm())
    worst = float((found - expected).abs().max())
    assert worst <= tolerance, f"differs by {worst:.2e}, allowed {tolerance:.2e}"

"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from problems import labels, network, normal
from torch import nn

from hesspipe.objective.objective import Objective

# Projects whose modules their own workflow imports, and a program.
collect_ignore = ["projects", "faults"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that nothing waits for one of them at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("workflow", "zoo"))


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

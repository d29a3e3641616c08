"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from problems import labels, network, normal
from torch import nn

from hesspipe.objective.objective import Objective

# Projects whose modules their own workflow imports, and a program.
collect_ignore = ["projects", "faults"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process of several, where its fixtures are made once.

    Those of the workflow are the slowest: they begin first, so that no process waits for them at
    the end.
    """
    items.sort(key=lambda item: item.path.parent.name != "workflow")
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


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

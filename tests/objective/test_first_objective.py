"""The first objective of a process: what it must not load, and the numbers that stay the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hesspipe.curvature.spectra import spectrum
from hesspipe.objective import operation_kinds
from hesspipe.objective.objective import Objective

FIRST_SPECTRUM = """
import sys, torch, hesspipe
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
data = torch.randn(20, 4), torch.randint(0, 2, (20,))
objective = hesspipe.Objective(model, torch.nn.CrossEntropyLoss(), data)
print(len(hesspipe.spectrum(objective).eigenvalues))
heavy = {"torch._dynamo", "pandas", "pyarrow", "pydantic", "matplotlib"}
print(sorted(heavy.intersection(sys.modules)))
"""


def test_first_spectrum_loads_neither_the_compiler_nor_packages_of_the_pipeline() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_SPECTRUM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["23", "[]"]


def exponential_family(outputs: Tensor, targets: Tensor) -> Tensor:
    """Add up by several functions."""
    return (outputs.logsumexp(1) - (outputs * targets).sum(1)).sum()


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "cross entropy": (nn.CrossEntropyLoss(), True),
    "sum": (nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1), True),
    "mean square": (nn.MSELoss(), False),
    "logsumexp": (exponential_family, False),
    "logits": (lambda outputs, targets: nn.BCEWithLogitsLoss()(outputs, targets.sigmoid()), False),
}


@pytest.mark.parametrize("name", LOSSES)
def test_rounding_of_sums_is_that_of_their_parts(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    loss, has_labels = LOSSES[name]
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 4, generator=random)
    targets = torch.randn(20, 3, generator=random)
    data = inputs, targets.argmax(1) if has_labels else targets
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.LayerNorm(3))

    def bounds() -> list[float]:
        operation_kinds.has_parts.cache_clear()
        objective = Objective(model, loss, data)
        return [spectrum(objective, matrix).error_bound for matrix in ("hessian", "ggn")]

    whole = bounds()
    monkeypatch.setattr(operation_kinds, "_WHOLE", frozenset())
    assert bounds() == whole
    assert min(whole) > 0
    operation_kinds.has_parts.cache_clear()

"""Models that change from call to call, by little or in few samples, are refused."""

from __future__ import annotations

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.determinism import attempt, in_full_precision
from hesspipe.objective.objective import Objective

INPUTS, LABELS = normal(9, 4), labels(9, 3)


class Changing(nn.Module):
    """Adds to the outputs for one sample a fraction that changes from call to call."""

    def __init__(self, size: float, sample: int) -> None:
        super().__init__()
        self.layer, self.size, self.sample, self.calls = nn.Linear(4, 3), size, sample, 0

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        self.calls += 1
        change = torch.zeros_like(outputs)
        change[self.sample % len(inputs)] = self.size * (self.calls % 3)
        return outputs + change


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("sizes", [[9], [1, 8], [8, 1], [3, 3, 3]])
def test_model_that_changes_from_call_to_call_is_refused(size: float, sizes: list[int]) -> None:
    batches = list(zip(INPUTS.split(sizes), LABELS.split(sizes), strict=True))
    with pytest.raises(ValueError, match=r"must be deterministic, got .*differs between two eval"):
        Objective(Changing(size, 8), nn.CrossEntropyLoss(), batches)


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1e-2, 0.1, 1.0])
def test_loss_that_changes_from_call_to_call_is_refused(size: float) -> None:
    calls = iter(range(1000))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets) + size * (next(calls) % 3)

    with pytest.raises(ValueError, match="must be deterministic, got the loss that differs"):
        Objective(nn.Linear(4, 3), loss, (INPUTS, LABELS))


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("sizes", [[2, 7], [7, 2], [1, 8]])
def test_model_that_couples_samples_by_little_is_refused(size: float, sizes: list[int]) -> None:
    class Coupled(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(inputs)
            return outputs + size * outputs.mean(0)

    batches = list(zip(INPUTS.split(sizes), LABELS.split(sizes), strict=True))
    with pytest.raises(NotASumOverSamplesError, match="depend on the other samples"):
        Objective(Coupled(4, 3), nn.CrossEntropyLoss(), batches)


def test_lower_precision_in_a_later_batch_is_named() -> None:
    class Rounded(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(inputs)
            return outputs.float().double() if len(inputs) == 5 else outputs

    batches = list(zip(INPUTS.split([4, 5]), LABELS.split([4, 5]), strict=True))
    with pytest.raises(ValueError, match=r"must compute in torch.float64, got .*float"):
        Objective(Rounded(4, 3), nn.CrossEntropyLoss(), batches)


def test_attempt_returns_none_for_whatever_is_raised() -> None:
    def fail() -> None:
        raise KeyError("undefined")

    assert attempt(fail) is None
    assert attempt(lambda: 3) == 3
    assert in_full_precision(lambda: attempt(fail), torch.float64) is None

"""An evaluation leaves the network as it was, and says what it cannot evaluate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hesspipe.networks import evaluation

INPUTS = torch.randn(25, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(25) % 2


@pytest.mark.parametrize("function", ["loss_and_accuracy", "loss_accuracy_and_slope"])
@pytest.mark.parametrize("batch_size", [10, 1000])
def test_evaluation_does_not_change_running_means(
    function: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", batch_size)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = getattr(evaluation, function)(model, INPUTS, LABELS)[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    expected = nn.functional.cross_entropy(model(INPUTS), LABELS).item()
    assert loss == pytest.approx(expected, rel=1e-6)


def number(outputs: Tensor, targets: Tensor) -> float:
    return 3.0


@pytest.mark.parametrize(
    ("inputs", "loss_fn", "message"),
    [
        (INPUTS.numpy(), nn.CrossEntropyLoss(), "must be Tensors, got ndarray"),
        (INPUTS, number, "must return a scalar Tensor, got float"),
    ],
    ids=["array", "number"],
)
def test_evaluation_refuses_what_is_no_tensor(
    inputs: Any, loss_fn: Callable[..., Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        evaluation.loss_and_accuracy(nn.Linear(3, 2), inputs, LABELS, loss_fn)

"""Loss, accuracy and gradient norm over a set do not depend on the batches."""

from __future__ import annotations

import pytest
import torch
from problems import EPS, labels, network, normal
from torch.nn import functional

from hesspipe.networks import evaluation as scores
from hesspipe.networks.evaluation import loss_accuracy_and_slope, loss_and_accuracy


@pytest.mark.parametrize("batch_size", [1, 7, 30, 31])
def test_evaluation_is_that_of_one_batch_whatever_the_batches(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 30 samples: ragged batches of 7, and one batch.
    model, inputs, targets = network([4, 6, 3]), normal(30, 4), labels(30, 3)
    outputs = model(inputs)
    loss = functional.cross_entropy(outputs, targets)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    num_right = sum(
        int(max(range(3), key=row.__getitem__) == target)
        for row, target in zip(outputs.tolist(), targets.tolist(), strict=True)
    )
    monkeypatch.setattr(scores, "_BATCH_SIZE", batch_size)
    for found in (
        loss_and_accuracy(model, inputs, targets),
        loss_accuracy_and_slope(model, inputs, targets),
    ):
        assert found[0] == pytest.approx(loss.item(), rel=30 * EPS)
        assert found[1] == num_right / 30
    assert found[2] == pytest.approx(norm, rel=100 * EPS)
    assert all(parameter.grad is None for parameter in model.parameters())

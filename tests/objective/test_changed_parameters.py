"""Models and losses that change what they are given are refused, even unseen by autograd.

Parameters that change when the model is evaluated would not be the model's.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import labels, network, normal
from torch import Tensor, nn

from hesspipe import Objective

INPUTS, TARGETS = normal(12, 4), labels(12, 3)


def clamped(weight: Tensor) -> None:
    weight.data.clamp_(-0.1, 0.1)


def normalized(weight: Tensor) -> None:
    with torch.no_grad():
        weight.div_(weight.norm(dim=1, keepdim=True))


def cut(weight: Tensor) -> None:
    weight.data.renorm_(2, 0, 0.1)


def rounded(weight: Tensor) -> None:
    with torch.no_grad():
        weight.copy_((weight * 16).round() / 16)


def pruned(weight: Tensor) -> None:
    weight.detach()[weight.detach().abs() < 0.2] = 0.0


# Torch itself refuses some of them, while it records the graph.
REFUSED = r"must not change .* its parameter layers\.3\.weight|do not change parameters"
CHANGES = [clamped, normalized, cut, rounded, pruned]


class Changing(nn.Module):
    """A network that changes a weight in place before it uses it."""

    def __init__(self, change: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.change, self.layers = change, network([4, 6, 3], "tanh")

    def forward(self, inputs: Tensor) -> Tensor:
        self.change(self.layers[3].weight)
        outputs: Tensor = self.layers(inputs)
        return outputs


@pytest.mark.parametrize("size", [12, 5])
@pytest.mark.parametrize("change", CHANGES)
def test_model_that_changes_a_parameter_is_refused(
    change: Callable[[Tensor], None], size: int
) -> None:
    data = list(zip(INPUTS.split(size), TARGETS.split(size), strict=True))
    with pytest.raises(ValueError, match=REFUSED):
        Objective(Changing(change), nn.CrossEntropyLoss(), data)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_that_changes_a_parameter_is_refused(dtype: torch.dtype) -> None:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        for parameter in model.parameters():
            clamped(parameter)
        return model(batch).square().mean()

    with pytest.raises(ValueError, match=r"must not change .* its parameter"):
        Objective.from_batches(network([4, 3], "tanh"), loss, [INPUTS], dtype=dtype)


def test_model_that_would_change_a_parameter_elsewhere_is_not_refused() -> None:
    model = Changing(lambda weight: weight.data.clamp_(-9, 9))
    assert Objective(model, nn.CrossEntropyLoss(), (INPUTS, TARGETS)).num_parameters == 51


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs, _: outputs.div_(2),
        lambda outputs, _: outputs.masked_fill_(outputs > 9, -1e9),
        lambda _, targets: targets.clamp_(max=1),
        lambda _, targets: targets.masked_fill_(targets == 2, -100),
    ],
    ids=["scaled outputs", "masked outputs", "clamped targets", "masked targets"],
)
def test_loss_that_works_in_place_on_its_arguments_is_told_so(
    change: Callable[[Tensor, Tensor], Tensor],
) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        change(outputs, targets)
        return nn.functional.cross_entropy(outputs, targets)

    with pytest.raises(ValueError, match="do not work in place on what the loss is given"):
        Objective(network([4, 6, 3], "tanh"), loss, (INPUTS, TARGETS.clone()))

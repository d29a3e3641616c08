"""Rounding errors of a loss that has been minimized are told from wrong derivatives of it."""

from __future__ import annotations

import pytest
import torch
from custom_functions import ConstantSlope
from problems import labels, network, normal
from torch import Tensor, nn

from hesspipe import Objective
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective import nearby

INPUTS = normal(60, 4)
SCALES = [0.0, 20.0, 200.0, 2000.0]


class Confident(nn.Module):
    """A network whose logits for one class are larger by a number that differs between samples."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layers, self.scale = network([4, 6, 3], "tanh"), scale

    def forward(self, inputs: Tensor) -> Tensor:
        sizes = self.scale * inputs[:, :1].abs()
        outputs: Tensor = self.layers(inputs)
        return outputs + sizes * torch.tensor([0.0, 1.0, 0.0]).to(inputs)


def opened(model: nn.Module, loss: nn.Module, targets: Tensor) -> nearby.Open:
    """Build an objective, and return what the comparison of outputs left open."""
    kept: list[nearby.Open] = []

    class Kept(nearby.Open):
        def __init__(self) -> None:
            super().__init__()
            kept.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearby, "Open", Kept)
        Objective(model, loss, (INPUTS, targets))
    return kept[0]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (nn.CrossEntropyLoss(), torch.ones(60, dtype=torch.long)),
        (nn.CrossEntropyLoss(label_smoothing=0.1), labels(60, 3)),
        (nn.MultiLabelSoftMarginLoss(), torch.tensor([[0.0, 1.0, 0.0]]).repeat(60, 1)),
        (nn.BCEWithLogitsLoss(), torch.tensor([[0.0, 1.0, 0.0]]).repeat(60, 1)),
    ],
    ids=["cross-entropy", "smoothed", "margins", "binary"],
)
def test_slopes_that_are_rounded_to_multiples_of_eps_are_not_left_open(
    scale: float, loss: nn.Module, targets: Tensor
) -> None:
    """A slope p - 1 with p close to 1 stays what it is where p changes by less than eps."""
    assert not opened(Confident(scale), loss, targets).slopes


class PartlyWrong(nn.Module):
    """A loss with a wrong derivative of one order, of any size, for some of the samples."""

    def __init__(self, order: int, size: float) -> None:
        super().__init__()
        self.order, self.size = order, size

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        chosen = outputs[::7]
        if self.order == 1:
            wrong = (chosen - chosen.detach()).sum()
        elif self.order == 2:
            wrong = (chosen - chosen.detach()).square().sum()
        else:
            wrong = ConstantSlope.apply(chosen).sum()
        return nn.functional.cross_entropy(outputs, targets) + self.size * wrong


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    ("scale", "size"), [(0.0, 1e-2), (20.0, 1e-3), (2000.0, 1e-3), (2000.0, 1e-6)]
)
def test_wrong_derivatives_of_a_confident_loss_are_refused(
    order: int, scale: float, size: float
) -> None:
    with pytest.raises(NotTwiceDifferentiableError, match=r"derivative"):
        Objective(
            Confident(scale),
            PartlyWrong(order, size),
            (INPUTS, torch.ones(60, dtype=torch.long)),
        )

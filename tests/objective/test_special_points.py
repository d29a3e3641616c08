"""Second derivatives that torch computes wrongly at one point are refused; kinks are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.objective import Objective


class Scaled(nn.Module):
    """Outputs w x of weights that are zero unless said otherwise."""

    def __init__(self, weight: float = 0.0, num_outputs: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(3, num_outputs, bias=False)
        nn.init.constant_(self.layer.weight, weight)
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs


INPUTS = normal(40, 3)
# A single sample whose residual is zero.
TARGETS = normal(40, 2, seed=5)
TARGETS[31] = 0

SPECIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": lambda r: r.abs().pow(2),
    "abs times abs": lambda r: r.abs() * r.abs(),
    "sign": lambda r: (r * r.sign()).square(),
    "norm": lambda r: r.norm(dim=1).pow(2),
    "vector norm": lambda r: torch.linalg.vector_norm(r, dim=1).square(),
    "where": lambda r: torch.where(r == 0, torch.zeros_like(r), r.square()),
    "maximum": lambda r: torch.maximum(r, -r).square(),
    "distance": lambda r: functional.pairwise_distance(r, torch.zeros_like(r), eps=0.0).square(),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_that_is_special_for_one_sample_is_refused(name: str, dtype: torch.dtype) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return SPECIAL[name](outputs - targets).sum() / len(outputs)

    with pytest.raises(ValueError, match=r"sample 31 of batch 0|must be finite"):
        hesspipe.hessian_matrix(Objective(Scaled(), loss, (INPUTS, TARGETS), dtype=dtype))


def test_sample_that_is_special_is_named_in_any_batch() -> None:
    loss = lambda outputs, targets: (outputs - targets).abs().pow(2).sum()  # noqa: E731
    with pytest.raises(NotTwiceDifferentiableError, match=r"sample 31 of batch 0.*x.square\(\)"):
        Objective(Scaled(), loss, (INPUTS, TARGETS))
    batches = list(zip(INPUTS.split(20), TARGETS.split(20), strict=True))
    with pytest.raises(NotTwiceDifferentiableError, match="sample 11 of batch 1"):
        Objective(Scaled(), loss, batches, denominator=lambda *_: 1.0)


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-2, 0.1, 10.0])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_part_of_a_loss_that_is_special_is_refused(size: float, count: int) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        residuals = outputs - targets
        return (residuals.square() + size * residuals.abs().pow(2)).sum()

    data = INPUTS[31 : 31 + count], TARGETS[31 : 31 + count]
    with pytest.raises(NotTwiceDifferentiableError, match="sample 0 of batch 0"):
        Objective(Scaled(), loss, data)


@pytest.mark.parametrize(
    ("function", "target"),
    [
        (lambda h: h.abs().square(), 1.0),
        (lambda h: h.abs() * h.sign() * h, 1.0),
        (lambda h: h.abs(), 0.0),  # without a slope, the loss is smooth there
    ],
)
def test_network_that_is_special_at_zero_weights_is_refused(function: Any, target: float) -> None:
    class Inside(Scaled):
        def __init__(self) -> None:
            super().__init__(0.0, 4)
            self.last = nn.Linear(4, 2, bias=False).double()
            nn.init.constant_(self.last.weight, 0.3)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.last(function(self.layer(inputs)))
            return outputs

    targets = torch.full((40, 2), target)
    with pytest.raises(NotTwiceDifferentiableError, match="differs at the parameters from those"):
        Objective(Inside(), nn.MSELoss(), (INPUTS, targets))


KINKS: dict[str, tuple[Any, float]] = {
    "huber at its kink": (nn.HuberLoss(), 1.0),
    "squared hinge": (lambda o, t: functional.relu(o - t).square().mean(), 0.0),
    "squares with a sign": (lambda o, t: ((o - t) * (o - t).abs()).mean(), 0.0),
    "cubes of absolute values": (lambda o, t: (o - t).abs().pow(3).mean(), 0.0),
    "fourth power": (lambda o, t: (o - t).pow(4).mean(), 0.0),
    "absolute values": (nn.L1Loss(), 0.0),
    "smooth root": (lambda o, t: ((o - t).square() + 1e-12).sqrt().mean(), 0.0),
    "clamped": (lambda o, t: (o - t).clamp(-1, 1).square().mean(), 1.0),
    "cosine": (lambda o, t: (1 - functional.cosine_similarity(o, t + 1)).mean(), 0.0),
    "log cosh": (lambda o, t: (o - t).cosh().log().mean(), 0.0),
}


@pytest.mark.parametrize("name", KINKS)
def test_losses_at_a_kink_or_a_smooth_special_value_are_accepted(name: str) -> None:
    loss, target = KINKS[name]
    weight = 0.0 if name != "cosine" else 0.5
    targets = torch.full((40, 2), target, dtype=torch.float64)
    assert Objective(Scaled(weight), loss, (INPUTS, targets)).is_separable


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.Hardtanh])
@pytest.mark.parametrize("seed", range(4))
def test_units_exactly_on_a_kink_are_accepted(activation: Any, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(3, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 2)
    )
    nn.init.zeros_(model[0].bias)
    nn.init.zeros_(model[2].bias)
    if seed % 2:
        nn.init.zeros_(model[0].weight)
    inputs = INPUTS.clone()
    inputs[5 : 40 - 10 * seed] = 0
    assert Objective(model, nn.MSELoss(), (inputs, TARGETS)).is_separable

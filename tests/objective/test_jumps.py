"""Losses that jump at the parameters are refused; those that jump elsewhere, or bend, are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jumping import CONTINUOUS, INPUTS, JUMPS, TARGETS, ZEROS, Gated, jumping
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import hesspipe
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.objective import Objective


def hessian_by_torch(model: nn.Module, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Differentiate twice by all parameters, in float64."""
    parameters = dict(model.named_parameters())
    sizes = [part.numel() for part in parameters.values()]

    def value(theta: Tensor) -> Tensor:
        parts = theta.split(sizes)
        state = {
            key: part.view_as(old)
            for (key, old), part in zip(parameters.items(), parts, strict=True)
        }
        return loss(functional_call(model, state, (INPUTS,)))

    theta = torch.cat([part.detach().reshape(-1) for part in parameters.values()])
    return torch.autograd.functional.hessian(value, theta)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", JUMPS)
def test_jump_at_the_parameters_is_refused(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(
        NotTwiceDifferentiableError, match=r"got a jump by .* along gate, on batch 0.*at random"
    ):
        Objective(jumping(name), nn.MSELoss(), (INPUTS, TARGETS), dtype=dtype)


@pytest.mark.parametrize("distance", [1e-3, 1e-6])
@pytest.mark.parametrize("name", JUMPS)
def test_jump_near_the_parameters_is_accepted(name: str, distance: float) -> None:
    model = jumping(name, distance)
    objective = Objective(model, nn.MSELoss(), (INPUTS, TARGETS))
    expected = hessian_by_torch(model, lambda outputs: functional.mse_loss(outputs, TARGETS))
    found = hesspipe.hessian_matrix(objective)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("name", JUMPS)
def test_jump_near_the_parameters_is_accepted_in_float32(name: str) -> None:
    model = jumping(name, 3e-3)
    objective = Objective(model, nn.MSELoss(), (INPUTS, TARGETS), dtype=torch.float32)
    assert objective.num_parameters == sum(part.numel() for part in model.parameters())


def whole(model: nn.Module, batch: Any) -> Tensor:
    return functional.mse_loss(model(batch[0]), batch[1])


BATCHES = list(zip(INPUTS.split(6), TARGETS.split(6), strict=True))
WAYS: dict[str, Callable[[nn.Module], Objective]] = {
    "several batches": lambda model: Objective(model, nn.MSELoss(), BATCHES),
    "stream": lambda model: Objective(model, nn.MSELoss(), BATCHES, stream=True),
    "sum": lambda model: Objective(model, nn.MSELoss(reduction="sum"), BATCHES),
    "weight decay": lambda model: Objective(
        model, nn.MSELoss(), (INPUTS, TARGETS), weight_decay=0.1
    ),
    "loss of a model and a batch": lambda model: Objective.from_batches(
        model, whole, BATCHES, num_samples=lambda batch: len(batch[0])
    ),
    "outputs of a batch": lambda model: Objective.from_batches(
        model,
        lambda outputs, batch: functional.mse_loss(outputs, batch[1]),
        BATCHES[:1],
        outputs=lambda model, batch: model(batch[0]),
        stream=True,
    ),
    "coupled samples": lambda model: Objective(
        model, lambda outputs, targets: (outputs - targets).mean(0).square().sum(),
        (INPUTS, TARGETS), denominator=lambda *_: 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["router of zeros", "threshold", "floor"])
def test_jump_is_refused_whatever_the_data_come_in(name: str, way: str) -> None:
    with pytest.raises(NotTwiceDifferentiableError, match="got a jump by"):
        WAYS[way](jumping(name))
    assert WAYS[way](jumping(name, 1e-3)).num_data > 0


def test_jump_of_one_sample_in_a_later_batch_is_refused() -> None:
    inputs = INPUTS.clone()
    inputs[8, 0] = -1.0  # where the gate is 0.5 + 0.5 x = 0
    model = Gated(
        torch.full((3,), 0.5), lambda g, x: (g[0] + g[1] * x[:, :1] >= 0).to(x) * x[:, :2]
    )
    batches = list(zip(inputs.split(6), TARGETS.split(6), strict=True))
    with pytest.raises(NotTwiceDifferentiableError, match="along gate, on batch 1"):
        Objective(model, nn.MSELoss(), batches)


def test_jump_of_the_loss_is_refused() -> None:
    model = Gated(ZEROS, lambda g, x: (x @ g).unsqueeze(1))
    nn.init.zeros_(model.layer.weight)
    nn.init.zeros_(model.layer.bias)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs - targets).square() * (1 + (outputs > 0).to(outputs))).mean()

    with pytest.raises(
        NotTwiceDifferentiableError, match=r"along gate, layer\.weight, layer\.bias"
    ):
        Objective(model, loss, (INPUTS, TARGETS))


def test_parameter_that_jumps_may_be_left_out() -> None:
    model = jumping("floor")
    objective = Objective(model, nn.MSELoss(), (INPUTS, TARGETS), parameters=["layer.*"])
    assert objective.names == ["layer.weight", "layer.bias"]


def test_jump_of_what_the_loss_does_not_use_is_accepted() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Gated(ZEROS, lambda g, x: (x @ g).unsqueeze(1))

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return self.inner(inputs), self.inner.gate.sign().expand(len(inputs), 3)

    objective = Objective(Two(), lambda outputs, y: (outputs[0] - y).square().mean(),
                          (INPUTS, TARGETS))  # fmt: skip
    assert objective.num_parameters == 11


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate", [0.0, 1.0])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_functions_are_not_called_jumps(
    name: str, gate: float, dtype: torch.dtype
) -> None:
    model = Gated(torch.full((3,), gate), CONTINUOUS[name])
    reason = ""
    try:
        Objective(model, nn.MSELoss(), (INPUTS, TARGETS), dtype=dtype)
    except ValueError as error:  # such as derivatives that are wrong at the point
        reason = str(error)
    assert "continuous" not in reason

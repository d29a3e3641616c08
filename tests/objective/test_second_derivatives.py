"""A second derivative that is wrong for a single sample is found, however few are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from custom_functions import ConstantSlope
from problems import labels, network, normal
from torch import Tensor, nn

from hesspipe import Objective
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective import work

INPUTS, TARGETS = normal(40, 4), labels(40, 3)


class DetachedSlope(torch.autograd.Function):
    """tanh whose backward method leaves out that it depends on the values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.result = values.tanh()
        return ctx.result.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * (1 - ctx.result.detach().square())


# What is zero, with zero first derivatives, or has the right ones, and a wrong second one.
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "function": ConstantSlope.apply,
    "function of its own result": DetachedSlope.apply,
    "square of nothing": lambda hidden: hidden + (hidden - hidden.detach()).square(),
    "product of nothing": lambda hidden: (
        hidden + (hidden - hidden.detach()) * (hidden.sin() - hidden.sin().detach())
    ),
    "exponential of nothing": lambda hidden: (
        hidden + (hidden - hidden.detach()).exp() - 1 - (hidden - hidden.detach())
    ),
}


class Wrong(nn.Module):
    """A network with a wrong second derivative for one sample, known by its first number."""

    def __init__(self, function: Callable[[Tensor], Tensor], place: int, how: str) -> None:
        super().__init__()
        self.first, self.last = network([4, 5], "tanh"), network([5, 3], "tanh")
        self.function, self.value, self.how = function, float(INPUTS[place, 0]), how

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.first(inputs)
        is_wrong = inputs[:, :1] == self.value
        if self.how == "where":
            hidden = torch.where(is_wrong, self.function(hidden), hidden)
        elif is_wrong.any():
            at = is_wrong.flatten().nonzero().flatten()
            hidden = hidden.index_copy(0, at, self.function(hidden[at]))
        outputs: Tensor = self.last(hidden)
        return outputs


@pytest.mark.parametrize("how", ["where", "branch"])
@pytest.mark.parametrize(("place", "size"), [(0, 40), (23, 10), (39, 1)])
@pytest.mark.parametrize("name", WRONG)
def test_second_derivative_that_is_wrong_for_one_sample_is_found_whatever_the_budget(
    name: str, place: int, size: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_OPERATIONS", 0.0)
    data = list(zip(INPUTS.split(size), TARGETS.split(size), strict=True))
    with pytest.raises(NotTwiceDifferentiableError, match="second derivative must"):
        Objective(Wrong(WRONG[name], place, how), nn.CrossEntropyLoss(), data)


def test_second_derivative_that_is_wrong_for_one_sample_is_found_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "_OPERATIONS", 0.0)
    model = Wrong(WRONG["function"], 31, "where").float()
    model.value = float(INPUTS[31, 0].float())
    with pytest.raises(NotTwiceDifferentiableError, match="Function ConstantSlope"):
        Objective(model, nn.CrossEntropyLoss(), (INPUTS, TARGETS), dtype=torch.float32)


@pytest.mark.parametrize("place", [2, 31])
def test_second_derivative_that_is_wrong_in_one_batch_of_any_kind_is_found(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_OPERATIONS", 0.0)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    batches = [{"x": x, "y": y} for x, y in zip(INPUTS.split(5), TARGETS.split(5), strict=True)]
    model = Wrong(WRONG["square of nothing"], place, "where")
    with pytest.raises(NotTwiceDifferentiableError, match="second derivative must"):
        Objective.from_batches(model, loss, batches, num_samples=lambda batch: len(batch["x"]))


class Stored(nn.Module):
    """A network that stores what the loss reads, with a wrong second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        self.penalty = torch.zeros(())

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        self.penalty = ConstantSlope.apply(self.layer.weight).sum()
        return outputs


def test_second_derivative_beside_the_outputs_is_compared() -> None:
    model = Stored()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets) + model.penalty

    with pytest.raises(NotTwiceDifferentiableError, match="second derivative must"):
        Objective(model, loss, (INPUTS, TARGETS))


class Keeping(nn.Module):
    """A network that keeps a function of its weights from its first call."""

    def __init__(self, *, is_detached: bool) -> None:
        super().__init__()
        self.layer, self.is_detached = nn.Linear(4, 3).double(), is_detached
        self.size: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if self.size is None:
            size = self.layer.weight.square().sum()
            self.size = size.detach() if self.is_detached else size
        outputs: Tensor = self.layer(inputs) * self.size
        return outputs


@pytest.mark.parametrize("is_detached", [True, False])
@pytest.mark.parametrize("size", [40, 20])
def test_model_that_keeps_a_function_of_its_parameters_is_refused(
    size: int, is_detached: bool
) -> None:
    """Its second derivatives would be those of another function."""
    data = list(zip(INPUTS.split(size), TARGETS.split(size), strict=True))
    with pytest.raises(ValueError, match=r"must be deterministic|over several batches"):
        Objective(Keeping(is_detached=is_detached), nn.CrossEntropyLoss(), data)

"""Constants that a model rounds, and outputs that its loss does not use: both change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.nn import functional

from hesspipe import GGNOperator, HessianOperator
from hesspipe.objective.objective import Objective

X, CLASSES = normal(6, 4), labels(6, 3)


class Rotated(nn.Module):
    """Multiplies by a constant that is computed in lower precision, as angles of positions are."""

    def __init__(self, constant: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.constant = nn.Linear(4, 5), nn.Linear(5, 3), constant
        self.register_buffer("scale", normal(5, seed=3))
        self.frozen = nn.Parameter(normal(5, seed=4), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs).tanh()
        return self.last(hidden * self.constant(self, hidden).to(hidden.dtype))


@torch.no_grad()
def angles(model: nn.Module, hidden: Tensor) -> Tensor:
    return (model.scale.float() * 3).cos()


ROUNDED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a buffer": lambda model, hidden: model.scale.float(),
    "a function without gradients": angles,
    "a frozen parameter": lambda model, hidden: model.frozen.bfloat16(),
    "new numbers": lambda model, hidden: torch.arange(5).to(hidden).half().cos(),
}
VARYING: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a parameter": lambda model, hidden: model.first.bias.float(),
    "hidden units": lambda model, hidden: hidden.bfloat16(),
    "hidden units without a gradient": lambda model, hidden: hidden.detach().float(),
    "a norm": lambda model, hidden: hidden.norm().float() + torch.zeros(5),
    "a buffer, and hidden units": lambda model, hidden: model.scale.half() * hidden.half(),
}


def product_of_plain_torch(model: nn.Module, vector: Tensor) -> Tensor:
    parameters = [value for value in model.double().parameters() if value.requires_grad]
    outputs = model(X.double())
    logits = outputs if isinstance(outputs, Tensor) else outputs["logits"]
    loss = functional.cross_entropy(logits, CLASSES)
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    inner = torch.cat([slope.flatten() for slope in slopes]) @ vector
    return torch.cat([part.flatten() for part in torch.autograd.grad(inner, parameters)])


@pytest.mark.parametrize("constant", ROUNDED.values(), ids=ROUNDED)
def test_constants_in_lower_precision_are_constants(constant: Any) -> None:
    model = Rotated(constant)
    objective = Objective(model, nn.CrossEntropyLoss(), (X, CLASSES))
    vector = normal(objective.num_parameters, seed=5)
    expected = product_of_plain_torch(model, vector)
    assert (HessianOperator(objective) @ vector - expected).norm() < 1e-13 * expected.norm()


@pytest.mark.parametrize("value", VARYING.values(), ids=VARYING)
def test_what_varies_in_lower_precision_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"must compute in torch\.float64, got"):
        Objective(Rotated(value), nn.CrossEntropyLoss(), (X, CLASSES))


class Remembering(nn.Module):
    """Returns logits, and states without their gradients, as XLNet does."""

    def __init__(self, keep: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first, self.last, self.keep = nn.Linear(4, 5), nn.Linear(5, 3), keep

    def forward(self, inputs: Tensor) -> dict[str, Any]:
        hidden = self.first(inputs).tanh()
        return {"states": self.keep(hidden.detach()), "logits": self.last(hidden)}


STATES: dict[str, Callable[[Tensor], Any]] = {
    "one for each sample": lambda hidden: hidden,
    "a tuple": lambda hidden: (hidden, hidden.square()),
    "of another first dimension": lambda hidden: hidden.T,
    "a number": lambda hidden: hidden.sum(),
}


@pytest.mark.parametrize("keep", STATES.values(), ids=STATES)
def test_outputs_that_the_loss_does_not_use_may_be_detached(keep: Any) -> None:
    model = Remembering(keep)

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs["logits"], targets)

    objective = Objective(model, loss, (X, CLASSES))
    vector = normal(objective.num_parameters, seed=5)
    expected = product_of_plain_torch(model, vector)
    assert (HessianOperator(objective) @ vector - expected).norm() < 1e-13 * expected.norm()
    assert bool((GGNOperator(objective) @ vector).isfinite().all())


@pytest.mark.parametrize("keep", STATES.values(), ids=STATES)
def test_outputs_that_the_loss_uses_must_have_derivatives(keep: Any) -> None:
    def loss(outputs: Any, targets: Tensor) -> Tensor:
        states = outputs["states"] if isinstance(outputs["states"], tuple) else [outputs["states"]]
        penalty = sum(state.square().sum() for state in states)
        return functional.cross_entropy(outputs["logits"], targets) + penalty

    with pytest.raises(ValueError, match="gradient must be the derivative of the loss"):
        Objective(Remembering(keep), loss, (X, CLASSES))

"""Nested tensors and traced branches are refused in one line, or have the right derivatives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn

import hesspipe

LAYOUTS = [torch.strided, torch.jagged]
PADDED = r"torch\.nested\.to_padded_tensor\(values, 0\.0\)"
# torch says so of nested tensors with strides.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")


class Then(nn.Module):
    """A layer and a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3).double(), function

    def forward(self, inputs: Tensor) -> Any:
        return self.function(self.layer(inputs))


def nested(rows: list[Tensor], layout: torch.layout) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=layout)


def branch(hidden: Tensor) -> Tensor:
    found: Tensor = torch.cond(hidden.sum() > 0, torch.tanh, torch.sin, (hidden,))
    return found


def whole_loss(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


DATA = normal(6, 4), labels(6, 3)
BUILD: dict[str, Callable[[nn.Module], Any]] = {
    "outputs": lambda model: hesspipe.Objective(model, nn.CrossEntropyLoss(), DATA),
    "batches": lambda model: hesspipe.Objective.from_batches(model, whole_loss, [DATA]),
}


def refusal(build: str, function: Callable[[Tensor], Any]) -> str:
    with pytest.raises(ValueError, match="must") as caught:
        BUILD[build](Then(function))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("build", BUILD)
def test_branch_that_torch_traces_is_refused(build: str) -> None:
    assert re.fullmatch(
        r"model and loss_fn must not call torch\.cond, got TypeError: .*; write torch\.where\("
        r"condition, first, second\), or an if statement",
        refusal(build, branch),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("wrap", "name"), [(lambda part: part, "outputs"), (lambda part: {"a": part}, "outputs['a']")]
)
def test_nested_outputs_are_refused(
    layout: torch.layout, wrap: Callable[[Tensor], Any], name: str
) -> None:
    message = refusal("outputs", lambda hidden: wrap(nested([*hidden], layout)))
    assert message.startswith(f"model {name} must be dense tensors, got one that is nested; ")
    assert re.search(PADDED, message)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_that_does_not_take_nested_outputs_is_told_what_does(layout: torch.layout) -> None:
    assert re.search(PADDED, refusal("batches", lambda hidden: nested([*hidden], layout)))


@pytest.mark.parametrize("stream", [False, True])
def test_batches_of_nested_tensors_have_the_derivatives_of_their_rows(stream: bool) -> None:
    parts, classes = [normal(2, 4), normal(3, 4, seed=1)], labels(2, 3)
    model = Then(lambda hidden: hidden)
    padding = torch.zeros(2, 3, 1, dtype=torch.float64)
    padding[0, 2] = -1.0

    def padded_loss(model: Then, batch: Any) -> Tensor:
        hidden = model.layer(torch.nested.to_padded_tensor(batch[0], 0.0))
        return nn.functional.cross_entropy((hidden.tanh() * (1 + padding)).sum(1), batch[1])

    def loss_of_rows(model: Then, batch: Any) -> Tensor:
        outputs = [model.layer(part).tanh().sum(0) for part in batch[0]]
        return nn.functional.cross_entropy(torch.stack(outputs), batch[1])

    def hessian(loss: Any, inputs: Any) -> Tensor:
        objective = hesspipe.Objective.from_batches(model, loss, [(inputs, classes)], stream=stream)
        return hesspipe.hessian_matrix(objective)

    found = hessian(padded_loss, nested(parts, torch.jagged))
    torch.testing.assert_close(found, hessian(loss_of_rows, parts), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"of layout torch\.strided in batch 0; pass .*jagged\)$"):
        hessian(padded_loss, nested(parts, torch.strided))

"""Mistakes with a model, a loss or data: one line that says what to write instead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.objective.objective import Objective

X, CLASSES = normal(6, 4), labels(6, 3)
OF_TORCH = nn.CrossEntropyLoss()
TAKE = r"loss_fn\(outputs\[0\], targets\)$"


class Returning(nn.Module):
    """A network whose outputs are put into something by a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3), function

    def forward(self, inputs: Tensor) -> Any:
        return self.function(self.layer(inputs))


OUTPUTS = {
    "a tuple": (lambda outputs: (outputs, outputs), TAKE),
    "a list": (lambda outputs: [outputs], TAKE),
    "a dictionary": (lambda outputs: {"out": outputs}, TAKE),
    "an object": (lambda outputs: SimpleNamespace(logits=outputs), TAKE),
    "nothing": (lambda outputs: None, "forward must return its outputs$"),
}
FUNCTIONS = {
    "a loss of torch": OF_TORCH,
    "a function of torch": functional.cross_entropy,
    "a mean square": lambda outputs, targets: functional.mse_loss(outputs, X[:, :3]),
    "arithmetic": lambda outputs, targets: (outputs - targets).square().mean(),
}


@pytest.mark.parametrize("loss_fn", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(("function", "advice"), OUTPUTS.values(), ids=OUTPUTS)
def test_objective_says_to_take_the_tensor_from_outputs(
    function: Any, advice: str, loss_fn: Any
) -> None:
    with pytest.raises(ValueError, match=advice):
        Objective(Returning(function), loss_fn, (X, CLASSES))


LOSSES = {
    "a class": (nn.CrossEntropyLoss, CLASSES, r"the class CrossEntropyLoss; build it first"),
    "another class": (nn.MSELoss, CLASSES, r"the class MSELoss; build it first: MSELoss\(\)$"),
    "a number": (lambda o, t: OF_TORCH(o, t).item(), CLASSES, r"without \.item\(\) or float"),
    "a tuple": (lambda o, t: (OF_TORCH(o, t), o), CLASSES, "got tuple; return the tensor alone"),
    "a row per sample": (nn.CrossEntropyLoss(reduction="none"), CLASSES, "use reduction='mean'"),
    "accuracy": (lambda o, t: (o.argmax(1) == t).double().mean(), CLASSES, "as accuracy does"),
    "labels of shape (N, 1)": (OF_TORCH, CLASSES[:, None], r"targets\.squeeze\(1\)"),
    "labels all ignored": (OF_TORCH, torch.full((6,), -100), "nan, if all are ignored"),
    "targets in place": (
        lambda o, t: (o - t.sub_(0.1)).square().mean(), torch.ones(6, 3), "write targets = targets",
    ),
    "outputs for probabilities": (nn.BCELoss(), torch.ones(6, 3), r"use nn\.BCEWithLogitsLoss"),
}  # fmt: skip


@pytest.mark.parametrize(("loss_fn", "targets", "advice"), LOSSES.values(), ids=LOSSES)
def test_objective_says_what_a_loss_must_be(loss_fn: Any, targets: Tensor, advice: str) -> None:
    model = nn.Linear(4, 3)
    nn.init.constant_(model.bias, 2.0)
    with pytest.raises(ValueError, match=advice):
        Objective(model, loss_fn, (X, targets))


ARGUMENTS = {
    "a text as number": ({"weight_decay": "1e-4"}, TypeError, "weight_decay must be a real number"),
    "tensors as names": ({"parameters": [torch.ones(1)]}, TypeError, "names, such as '0.*'"),
    "no names": ({"parameters": []}, ValueError, r"only frozen ones; requires_grad_\(True\)"),
}


@pytest.mark.parametrize(("options", "error", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_objective_refuses_arguments_by_their_names(
    options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Objective(nn.Linear(4, 3), OF_TORCH, (X, CLASSES), **options)


def test_objective_from_function_refuses_a_list_as_theta() -> None:
    theta: Any = [1.0, 2.0]
    with pytest.raises(TypeError, match="theta must be a tensor, got list"):
        Objective.from_function(torch.sum, theta)


def test_density_names_the_steps_that_a_small_matrix_allows() -> None:
    objective = Objective(nn.Linear(4, 3), OF_TORCH, (X, CLASSES))
    with pytest.raises(ValueError, match="got 80; write num_steps=15 for so small a matrix"):
        hesspipe.density(objective)

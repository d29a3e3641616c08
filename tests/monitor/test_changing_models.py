"""Monitors of models that change while they are trained: right, or one message."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monitor_training import LOSS, data, exact_hessian, mlp, objective_of
from torch import Tensor, nn
from torch.nn.utils import prune

from hesspipe import Monitor


def train(model: nn.Module, optimizer: Any, monitor: Monitor, number: int = 1) -> None:
    inputs, targets = data()
    for _ in range(number):
        optimizer.zero_grad()
        LOSS(model(inputs), targets).backward()
        optimizer.step()
        monitor.step()


@pytest.mark.parametrize("optimizer", ["sgd", ["list"], 0.1, iter(())])
def test_monitor_refuses_what_is_not_one_optimizer(optimizer: Any) -> None:
    model = mlp()
    if optimizer == ["list"]:
        optimizer = [torch.optim.SGD(model.parameters(), lr=0.1)]
    with pytest.raises(TypeError, match=r"optimizer must be one Optimizer .* of several, pass"):
        Monitor(objective_of(model), model, optimizer)


def test_monitor_takes_the_optimizer_of_a_schedule() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    monitor = Monitor(objective_of(model), model, schedule, every=1)
    for _ in range(3):
        train(model, optimizer, monitor)
        schedule.step()
    assert monitor.table["step_size"].unique().tolist() == [0.4, 0.2, 0.1]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_preconditioned_sharpness_leaves_out_what_was_frozen_meanwhile(kind: Any) -> None:
    model = mlp()
    optimizer = kind(model.parameters(), lr=0.1)
    monitor = Monitor(
        objective_of(model), model, optimizer, every=1, preconditioned=True, tolerance=1e-7
    )
    train(model, optimizer, monitor)
    frozen = [*model.parameters()][:2]
    for part in frozen:
        part.requires_grad_(False)
        part.grad = None
    train(model, optimizer, monitor)
    hessian = exact_hessian(model, *data())
    diagonal = []
    for part in model.parameters():
        squares = optimizer.state[part].get("exp_avg_sq", torch.ones_like(part))
        scale = (squares / (1 - 0.999**2)).sqrt() + 1e-8 if kind is torch.optim.Adam else squares
        still = any(part is each for each in frozen)
        diagonal.append((torch.zeros_like(part) if still else 1 / scale).flatten())
    root = torch.cat(diagonal).sqrt()
    expected = float(torch.linalg.eigvalsh(root[:, None] * hessian * root)[-1])
    row = monitor.table.iloc[-1]
    assert row["preconditioned_sharpness"] == pytest.approx(expected, rel=1e-6)
    assert row["eigenvalue"] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)


def test_monitor_warns_once_where_frozen_parameters_are_trained_again() -> None:
    model = mlp()
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(objective_of(model), model, optimizer, every=1, on_error="raise")
    train(model, optimizer, monitor, 2)
    first.requires_grad_(True)
    with pytest.warns(RuntimeWarning, match=r"holds 0\.weight constant") as caught:
        train(model, optimizer, monitor, 3)
    assert len(caught) == 1


def resize(model: nn.Sequential) -> None:
    model[-1] = nn.Linear(model[-1].in_features, 7)


def drop(model: nn.Sequential) -> None:
    model[-1] = nn.Identity()


def cut(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[0], "weight", amount=0.3)


@pytest.mark.parametrize("change", [resize, drop, cut])
def test_monitor_names_the_parameter_that_a_model_has_lost(change: Any) -> None:
    model = mlp()
    monitor = Monitor(objective_of(model), model, every=1)
    monitor.step()
    change(model)
    with pytest.warns(RuntimeWarning, match=r"step 2 failed: model must have the parameters"):
        monitor.step()
    assert monitor.table["eigenvalue"].isna().tolist() == [False, False, True, True]


class Tempered(nn.Module):
    """Divides its outputs by an attribute, and adds those of an adapter once there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.temperature, self.scales = mlp(), 1.0, [1.0]
        self.shift, self.calls, self.adapter = torch.zeros(3), 0, None

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls, self.last = self.calls + 1, inputs
        found = self.net(inputs) * self.scales[0] / self.temperature + self.shift.to(inputs)
        return found if self.adapter is None else found + self.adapter(inputs)


def anneal(model: Tempered) -> None:
    model.temperature = 0.5


def scale(model: Tempered) -> None:
    model.scales[0] = 2.0


def shift(model: Tempered) -> None:
    model.shift[0] += 1


def activate(model: Tempered) -> None:
    model.net[1] = nn.ReLU()


def adapt(model: Tempered) -> None:
    model.adapter = nn.Linear(4, 3)


def hook(model: Tempered) -> None:
    model.net[0].register_forward_hook(lambda module, inputs, outputs: outputs * 2)


def replace_forward_pre(model: Tempered) -> None:
    model.net.register_forward_pre_hook(lambda module, inputs: (inputs[0] - 1,))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (anneal, r"temperature of the model \(1\.0 before, 0\.5 now\)"),
        (scale, "scales of the model"),
        (shift, "shift of the model"),
        (activate, r"the class of net\.1 \(Tanh before, ReLU now\)"),
        (adapt, "the class of adapter"),
        (hook, r"hooks of net\.0"),
        (replace_forward_pre, "hooks of net"),
    ],
)
def test_monitor_warns_once_where_the_model_computes_something_else(change: Any, name: str) -> None:
    model = Tempered()
    optimizer = torch.optim.SGD(model.net.parameters(), lr=0.1)
    monitor = Monitor(objective_of(model), model, optimizer, every=1, on_error="raise")
    train(model, optimizer, monitor, 2)
    change(model)
    with pytest.warns(RuntimeWarning, match=rf"has another loss now.*{name}") as caught:
        train(model, optimizer, monitor, 2)
    assert len(caught) == 1


class Shared(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.second(self.first(inputs).tanh()).tanh())


def test_monitor_warns_where_a_shared_parameter_has_been_divided() -> None:
    model = Shared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(objective_of(model), model, optimizer, every=1, on_error="raise")
    train(model, optimizer, monitor)
    model.second.weight = nn.Parameter(model.second.weight.detach().clone())
    optimizer.add_param_group({"params": [model.second.weight]})
    with pytest.warns(RuntimeWarning, match=r"the tensor second\.weight \('first\.weight' before"):
        train(model, optimizer, monitor, 2)


def test_monitor_is_silent_about_changes_without_an_effect() -> None:
    model = Tempered()
    optimizer = torch.optim.SGD(model.net.parameters(), lr=0.1)
    monitor = Monitor(objective_of(model), model, optimizer, every=1, on_error="raise")
    model.note = "a remark"
    model.forward = model.forward  # as accelerate wraps it
    train(model, optimizer, monitor, 2)  # and warnings are errors
    assert model.calls > 0

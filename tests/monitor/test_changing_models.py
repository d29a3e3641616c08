"""Monitors of models that change while they are trained: right, or one message."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monitor_training import LOSS, data, exact_hessian, mlp, objective_of
from torch import nn
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

"""Trainings as people write them are the same to the last bit with a monitor, and are described."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from monitor_training import LOSS, data, exact_hessian, mlp, noisy, objective_of
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils
from torch_defaults import default_device, default_dtype

from hesspipe import Monitor

STEPS, EVERY = 6, 3
Step = Callable[[Tensor, Tensor], None]
# A training: makes a model, an optimizer, and a function that makes one update.
Training = Callable[[nn.Module], tuple[torch.optim.Optimizer, Step]]


def plain(make: Callable[[nn.Module], torch.optim.Optimizer]) -> Training:
    def training(model: nn.Module) -> tuple[torch.optim.Optimizer, Step]:
        optimizer = make(model)

        def step(inputs: Tensor, targets: Tensor) -> None:
            optimizer.zero_grad()
            LOSS(model(inputs), targets).backward()
            optimizer.step()

        return optimizer, step

    return training


def accumulated(model: nn.Module) -> tuple[torch.optim.Optimizer, Step]:
    """Gradients of two halves, kept from the step before as zeros."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad(set_to_none=False)
        for part in (slice(0, 4), slice(4, 8)):
            (LOSS(model(inputs[part]), targets[part]) / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return optimizer, step


def scheduled(model: nn.Module) -> tuple[torch.optim.Optimizer, Step]:
    """A warmup from a step size of zero."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    schedule = lr_scheduler.LambdaLR(optimizer, lambda step: step / 4)

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        LOSS(model(inputs), targets).backward()
        optimizer.step()
        schedule.step()

    return optimizer, step


def by_closure(model: nn.Module) -> tuple[torch.optim.Optimizer, Step]:
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def step(inputs: Tensor, targets: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = LOSS(model(inputs), targets)
            loss.backward()
            return loss

        optimizer.step(closure)

    return optimizer, step


def in_mixed_precision(model: nn.Module) -> tuple[torch.optim.Optimizer, Step]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = LOSS(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return optimizer, step


def frozen_midway(model: nn.Module) -> tuple[torch.optim.Optimizer, Step]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    done: list[int] = []

    def step(inputs: Tensor, targets: Tensor) -> None:
        if len(done) == 2:
            model[0].requires_grad_(False)  # type: ignore[index]
        optimizer.zero_grad()
        LOSS(model(inputs), targets).backward()
        optimizer.step()
        done.append(1)

    return optimizer, step


def groups(model: nn.Module) -> torch.optim.Optimizer:
    weights = [part for part in model.parameters() if part.ndim > 1]
    biases = [part for part in model.parameters() if part.ndim == 1]
    return torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": biases, "lr": 1e-3}], lr=0.01
    )


optim = torch.optim
TRAININGS: dict[str, Training] = {
    "sgd": plain(lambda model: optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)),
    "nesterov": plain(
        lambda model: optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    ),
    "groups": plain(groups),
    "amsgrad": plain(lambda model: optim.Adam(model.parameters(), lr=0.01, amsgrad=True)),
    "fused": plain(lambda model: optim.AdamW(model.parameters(), lr=0.01, fused=True)),
    "foreach": plain(lambda model: optim.Adam(model.parameters(), lr=0.01, foreach=True)),
    "tensor": plain(lambda model: optim.Adam(model.parameters(), lr=torch.tensor(0.01))),
    "rmsprop": plain(lambda model: optim.RMSprop(model.parameters(), lr=0.01, momentum=0.5)),
    "zero": plain(lambda model: optim.SGD(model.parameters(), lr=0.0)),
    "adagrad": plain(lambda model: optim.Adagrad(model.parameters(), lr=0.01)),
    "accumulated": accumulated,
    "scheduled": scheduled,
    "closure": by_closure,
    "mixed": in_mixed_precision,
    "frozen midway": frozen_midway,
}
# Constants of the stability limit, over the largest step size at the last record.
LIMITS = {
    "sgd": 2 / 0.1, "nesterov": 2 * 1.9 / 2.8 / 0.1, "groups": 38 / 0.01, "amsgrad": 38 / 0.01,
    "fused": 38 / 0.01, "foreach": 38 / 0.01, "tensor": 38 / 0.01, "rmsprop": 3 / 0.01,
    "accumulated": 3.8 / 0.1, "scheduled": 2 / 0.3, "mixed": 38 / 0.01, "frozen midway": 38 / 0.02,
}  # fmt: skip


def run(model: nn.Module, step: Step, monitor: Monitor | None) -> None:
    inputs, targets = data()
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002 (the state that a training may use)
    for _ in range(STEPS):
        chosen = torch.randperm(len(inputs))[:8]
        step(inputs[chosen], targets[chosen])
        if monitor is not None:
            monitor.step()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """All that a training leaves: state, gradients, modes, flags and random numbers."""
    found: list[Any] = [*model.state_dict().values()]
    found += [part.grad for part in model.parameters()]
    found += [part.requires_grad for part in model.parameters()]
    found += [part.training for part in model.modules()]
    found += [value for state in optimizer.state.values() for value in state.values()]
    return [*found, torch.get_rng_state(), random.random(), np.random.rand()]  # noqa: NPY002


def require_same(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        for each, its in zip(one, other, strict=True):
            require_same(each, its)
    else:
        assert one == other


@pytest.mark.parametrize("name", TRAININGS)
def test_training_is_the_same_with_a_monitor_whatever_its_kind(name: str) -> None:
    ends = []
    for has_monitor in (False, True):
        model = noisy()
        optimizer, step = TRAININGS[name](model)
        monitor = None
        if has_monitor:
            objective = objective_of(model, dtype=torch.float32)
            monitor = Monitor(objective, model, optimizer, every=EVERY, num_smallest=0,
                              preconditioned=True, critical=True, trace_products=6)  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(model, step, monitor)
        ends.append(everything(model, optimizer))
    require_same(*ends)
    assert monitor is not None
    table = monitor.table
    assert table["step"].tolist() == [3, 6]
    assert table["eigenvalue"].notna().all()
    last = table["stability_limit"].iloc[-1]
    assert last == pytest.approx(LIMITS.get(name, float("nan")), nan_ok=True)


@pytest.mark.parametrize("name", ["sgd", "groups", "closure", "mixed", "scheduled"])
def test_records_of_trainings_of_all_kinds_are_those_of_dense_matrices(name: str) -> None:
    model = mlp()
    optimizer, step = TRAININGS[name](model)
    monitor = Monitor(objective_of(model), model, optimizer, every=STEPS, tolerance=1e-7,
                      max_products=99)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(model, step, monitor)
    expected = torch.linalg.eigvalsh(exact_hessian(model, *data()))[[0, -1]]
    assert monitor.table["eigenvalue"].to_numpy() == pytest.approx(expected.numpy(), rel=1e-6)
    assert monitor.table["status"].tolist() == ["certified"] * 2


def test_monitor_follows_the_average_of_a_model() -> None:
    model = mlp()
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    _, step = TRAININGS["sgd"](model)
    objective = objective_of(model)
    monitor = Monitor(objective, average, every=STEPS, tolerance=1e-7, max_products=99)
    inputs, targets = data()
    for _ in range(STEPS):
        step(inputs[:8], targets[:8])
        average.update_parameters(model)
        monitor.step()
    expected = torch.linalg.eigvalsh(exact_hessian(average.module, *data()))[[0, -1]]
    assert monitor.table["eigenvalue"].to_numpy() == pytest.approx(expected.numpy(), rel=1e-6)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "another default device": lambda: default_device("meta"),
    "another default dtype": lambda: default_dtype(torch.bfloat16),
    "deterministic algorithms": deterministic,
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "detection of anomalies": lambda: torch.autograd.set_detect_anomaly(True),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_records_do_not_depend_on_the_settings_around_them(name: str) -> None:
    tables = []
    for surrounding in (nullcontext, SURROUNDINGS[name]):
        model = noisy()
        optimizer, step = TRAININGS["amsgrad"](model)
        monitor = Monitor(objective_of(model), model, optimizer, every=STEPS, preconditioned=True,
                          critical=True, trace_products=6)  # fmt: skip
        for _ in range(STEPS):
            step(*data())
            with surrounding():
                monitor.step()
        tables.append(monitor.table)
    assert tables[0]["eigenvalue"].notna().all()
    assert tables[0].equals(tables[1])


def test_record_that_fails_does_not_count_as_the_one_that_verifies() -> None:
    model = mlp()
    objective = objective_of(model)
    monitor = Monitor(objective, model, every=1, verify_every=3)
    kept = {name: part.clone() for name, part in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.warns(RuntimeWarning, match="the record of the monitor at step 1 failed"):
        monitor.step()
    model.load_state_dict(kept)
    monitor.step()
    assert monitor.table.query("step == 1")["status"].isna().all()
    assert monitor.table.query("step == 2")["is_verified"].all()

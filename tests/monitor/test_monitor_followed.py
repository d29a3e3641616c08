"""The monitor against dense matrices where following is difficult, its budget and its state."""

from __future__ import annotations

import io
import time
import warnings
from typing import Any

import pytest
import torch
from monitor_training import LOSS, data, exact_hessian, mlp, noisy, objective_of, train
from torch import nn

import hesspipe
from hesspipe import Monitor, Objective


def deep(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)
    )


@pytest.mark.parametrize("make", [mlp, noisy, deep])
def test_records_are_those_of_eigenpairs_at_every_step(make: Any) -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    objective = objective_of(model)
    monitor = Monitor(objective, model, optimizer, every=2, num_largest=2, max_products=200)
    expected: list[float] = []

    def look(step: int) -> None:
        if step == 7:  # a sudden change
            with torch.no_grad():
                for part in model.parameters():
                    part.copy_(part.flip(0) * 1.7)
        if step % 2 == 0:
            values = torch.linalg.eigvalsh(exact_hessian(model, *data()))
            expected.extend(values[[0, -2, -1]].tolist())

    train(model, optimizer, 16, monitor, look)
    table = monitor.table
    assert table["is_converged"].all()
    found = table["eigenvalue"].to_numpy()
    assert found == pytest.approx(expected, rel=1e-3)
    last = table.tail(3)["eigenvalue"].to_numpy()
    pairs = hesspipe.eigenpairs(
        monitor._state.objective(), num_smallest=1, num_largest=2, tolerance=1e-6
    )
    assert last == pytest.approx(pairs.eigenvalues.numpy(), rel=1e-3)
    assert (table["error_estimate"] <= table["residual_norm"]).all()


def test_samples_records_the_objective_of_the_first_samples() -> None:
    model = mlp()
    inputs, targets = data()
    batches = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    for number in (3, 7, 24):
        monitor = Monitor(
            Objective(model, LOSS, batches), model, samples=number, every=1, tolerance=1e-8,
            max_products=90,
        )  # fmt: skip
        monitor.step()
        exact = torch.linalg.eigvalsh(exact_hessian(model, inputs[:number], targets[:number]))
        found = monitor.table["eigenvalue"].to_numpy()
        assert found == pytest.approx(exact[[0, -1]].numpy(), rel=1e-6)
        assert monitor.result.provenance["num_samples"] == number
    with pytest.raises(ValueError, match="samples must be at most N = 24, got 25"):
        Monitor(objective_of(model), model, samples=25)
    whole = Objective.from_batches(
        model, lambda net, batch: LOSS(net(batch[0]), batch[1]), batches, num_samples=len
    )
    with pytest.raises(ValueError, match=r"samples must be None .* build an Objective"):
        Monitor(whole, model, samples=2)


class Clock:
    """A clock that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_budget_bounds_the_time_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    monitor = Monitor(objective_of(model), model, optimizer, every=5, budget=0.25, tolerance=1e-9)
    product = hesspipe.HessianOperator.__matmul__

    def slow(self: Any, vector: Any) -> Any:
        clock.now += 0.2
        return product(self, vector)

    monkeypatch.setattr(hesspipe.HessianOperator, "__matmul__", slow)

    def wait(_: int) -> None:
        clock.now += 1.0

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, optimizer, 60, monitor, wait)
    table = monitor.table
    assert 0 < table["time_share"].max() <= 0.25
    assert monitor._budget.records <= 0.25 * monitor._budget.training
    assert not table["is_converged"].all()
    messages = {str(each.message).split(" takes")[0] for each in caught}
    assert len(messages) <= 1
    assert table["residual_norm"].notna().all()


def test_budget_leaves_records_out_until_time_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    model = mlp()
    monitor = Monitor(objective_of(model), model, every=1, budget=0.1, verify_every=50)
    product = hesspipe.HessianOperator.__matmul__

    def slow(self: Any, vector: Any) -> Any:
        clock.now += 1.0
        return product(self, vector)

    monkeypatch.setattr(hesspipe.HessianOperator, "__matmul__", slow)
    monitor.record(0)  # not limited
    assert monitor.table["num_products"].iloc[0] > 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(200):
            clock.now += 1.0
            monitor.step()
    (message,) = {str(each.message) for each in caught}
    assert "takes at least" in message
    assert "budget=0.1 leaves" in message
    steps = monitor.table["step"].unique()
    assert 2 < len(steps) < 12
    assert monitor._budget.records <= 0.1 * monitor._budget.training


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_budget_must_be_positive(budget: float) -> None:
    with pytest.raises(ValueError, match="budget must be"):
        Monitor(objective_of(mlp()), mlp(), budget=budget)


def trained(state: Any, num_steps: int, kept: Any = None) -> tuple[Monitor, list[torch.Tensor]]:
    """Train some steps, from a checkpoint if there is one."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    monitor = Monitor(objective_of(model), model, optimizer, every=2, critical=True)
    torch.manual_seed(3)
    if kept is not None:
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        torch.set_rng_state(kept["random"])
        monitor.load_state_dict(kept["monitor"])
    train(model, optimizer, num_steps, monitor)
    if state is not None:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "random": torch.get_rng_state(), "monitor": monitor.state_dict()},
                   state)  # fmt: skip
    return monitor, [part.detach().clone() for part in model.parameters()]


def test_restart_from_a_state_continues_as_if_there_was_none() -> None:
    state = io.BytesIO()
    whole, ends = trained(None, 10)
    trained(state, 5)
    state.seek(0)
    kept = torch.load(state, weights_only=True)
    again, others = trained(None, 5, kept)
    assert all(torch.equal(*pair) for pair in zip(ends, others, strict=True))
    columns = ["step", "eigenvalue", "residual_norm", "num_products", "loss"]
    assert again.table[columns].equals(whole.table[columns])
    with pytest.raises(ValueError, match="of a monitor of 15 parameters"):
        Monitor(objective_of(nn.Linear(4, 3)), nn.Linear(4, 3)).load_state_dict(kept["monitor"])
    with pytest.raises(ValueError, match=r"what Monitor\.state_dict"):
        again.load_state_dict({})

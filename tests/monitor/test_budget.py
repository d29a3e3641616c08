"""The budget of a monitor: never exceeded, spent on whole searches, and on each kind of them."""

from __future__ import annotations

import time
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hesspipe
from hesspipe import Monitor, Objective
from hesspipe.monitor.budget import Budget

pytestmark = pytest.mark.filterwarnings("ignore:the record at step")

KINDS = ["both, verified", "largest, verified", "largest, estimated"]


class Drifting(nn.Module):
    """Half the sum of c_i theta_i^2, where c_i changes a little with each step."""

    curvatures: Tensor

    def __init__(self, size: int = 40) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        values = torch.randn(size, dtype=torch.float64, generator=generator) / 6
        values[-4:] = torch.tensor([3.0, 5.0, -2.5, -4.0])
        self.theta = nn.Parameter(torch.ones(size, dtype=torch.float64))
        self.register_buffer("curvatures", values)

    def forward(self, batch: Tensor) -> Tensor:
        return (self.curvatures * self.theta**2).sum() / 2 * batch.sum()


class Clock:
    """A clock that the training and the products turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_per_product: float) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        product = hesspipe.HessianOperator.__matmul__

        def slow(operator: Any, vector: Any) -> Any:
            self.now += seconds_per_product
            return product(operator, vector)

        monkeypatch.setattr(hesspipe.HessianOperator, "__matmul__", slow)


def trained(
    clock: Clock,
    num_steps: int,
    *,
    is_recorded_first: bool = True,
    **options: Any,
) -> tuple[Monitor, list[float]]:
    """Train with a second for each step; also the seconds beyond the budget after each."""
    model = Drifting()
    data = [torch.ones(2, dtype=torch.float64) / 2]
    objective = Objective.from_batches(
        model, lambda net, batch: net(batch), data, num_samples=lambda _: 1
    )
    monitor = Monitor(objective, model, **options)
    excess = []
    if is_recorded_first:
        monitor.record(0)
    for _ in range(num_steps):
        clock.now += 1.0
        model.curvatures *= 1.001
        monitor.step()
        budget = monitor._budget
        excess.append(budget.records - options.get("budget", 0.0) * budget.training)
    return monitor, excess


@pytest.mark.parametrize("is_recorded_first", [True, False])
@pytest.mark.parametrize(
    ("seconds", "ends", "verify_every"),
    [(0.02, (1, 1), 4), (0.1, (1, 1), 1), (0.1, (0, 1), 4), (0.1, (1, 0), 1), (2.0, (2, 2), 1)],
)
def test_budget_is_kept_at_every_step_and_values_are_right_or_open(
    monkeypatch: pytest.MonkeyPatch, seconds: float, ends: tuple[int, int], verify_every: int,
    is_recorded_first: bool,
) -> None:  # fmt: skip
    """The first product of all tells what a product takes."""
    clock = Clock(monkeypatch, seconds)
    monitor, excess = trained(
        clock, 80, is_recorded_first=is_recorded_first, every=2, budget=0.1,
        num_smallest=ends[0], num_largest=ends[1], verify_every=verify_every,
    )  # fmt: skip
    assert max(excess) <= (1e-9 if is_recorded_first else seconds)
    table = monitor.table
    exact = {"largest": [3.0, 5.0], "smallest": [-4.0, -2.5]}
    for (step, end), rows in table.groupby(["step", "end"]):
        number = len(rows)
        values = exact[str(end)][-number:] if end == "largest" else exact[str(end)][:number]
        grown = 1.001 ** int(str(step))
        for row, value in zip(rows.itertuples(), values, strict=True):
            if row.status in ("certified", "estimated"):
                assert row.eigenvalue == pytest.approx(value * grown, rel=1e-3)
            assert row.is_converged == (row.status == "certified")


def test_budget_that_suffices_records_everything_at_each_multiple(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monitor, _ = trained(Clock(monkeypatch, 1e-4), 40, every=5, budget=0.1)
    table = monitor.table
    assert table["step"].unique().tolist() == list(range(0, 41, 5))
    assert table["is_converged"].all()
    assert (table.groupby("step")["end"].count() == 2).all()


def test_tight_budget_has_records_of_both_ends_and_certified_and_estimated_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monitor, _ = trained(Clock(monkeypatch, 0.15), 600, every=10, budget=0.05, max_products=16)
    table = monitor.table.query("step > 0")
    largest = table.query("end == 'largest'")
    counts = largest["status"].value_counts()
    assert counts.get("open", 0) == 0
    assert min(counts["estimated"], counts["certified"]) > 0
    assert len(table.query("end == 'smallest'")) > 0
    assert len(largest) > 25


def test_search_that_was_cut_short_waits_for_twice_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monitor, _ = trained(
        Clock(monkeypatch, 1.0), 300, is_recorded_first=False, every=5, budget=0.2, num_smallest=0
    )
    table = monitor.table
    first, second = table["step"].unique()[:2]
    products = table.groupby("step")["num_products"].first()
    assert table["status"].iloc[0] == "open"
    assert second - first >= 2 * products[first] / 0.2 - 5
    assert table["status"].iloc[-1] != "open"


@pytest.mark.parametrize(("seconds", "is_said"), [(0.01, False), (0.5, True)])
def test_monitor_says_once_that_its_records_take_much_of_the_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, is_said: bool
) -> None:
    clock = Clock(monkeypatch, seconds)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(clock, 40, every=2, is_recorded_first=False)
    messages = [str(each.message) for each in caught]
    assert len(messages) == is_said
    assert all("budget=0.05 limits them to 5 %" in message for message in messages)


def test_plan_of_a_budget_goes_on_from_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.1)
    whole, _ = trained(clock, 60, every=3, budget=0.1)
    budget = Budget(0.1)
    budget.restore(whole._budget.state())
    expected = dict.fromkeys(KINDS, 5)
    for attribute in ("training", "records", "seconds_per_product", "saved"):
        assert getattr(budget, attribute) == getattr(whole._budget, attribute)
    assert budget.affordable(KINDS, expected) == whole._budget.affordable(KINDS, expected)


@pytest.mark.parametrize(
    ("saved", "chosen"),
    [(0.0, None), (4.0, None), (12.0, KINDS[2]), (30.0, KINDS[1]), (60.0, KINDS[0])],
)
def test_affordable_is_the_most_complete_kind_that_its_part_pays(
    saved: float, chosen: str | None
) -> None:
    """Of the budget 10 % are for each of the complete kinds, and what is left with a cheap one."""
    budget = Budget(0.5)
    budget.seconds_per_product = 1.0
    budget.training = 2 * saved
    expected = dict(zip(KINDS, (40, 12, 5), strict=True))
    assert budget.affordable(KINDS, expected) == chosen

"""Limits and metrics of optimizers, against the optimizers themselves on quadratics."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adam, AdamW, RMSprop

from hesspipe.monitor.step_sizes import step_sizes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.8, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
        {"dampening": 0.5},
    ],
)
def test_stability_limit_divides_what_descent_stands_from_what_it_does_not(options):
    def end(factor):
        weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = SGD([weight], lr=0.1, **options)
        curvature = factor * step_sizes(optimizer, [weight], weight.detach()).stability_limit
        for _ in range(1000):
            weight.grad = curvature * weight.detach()
            optimizer.step()
        return float(weight.detach().abs())

    assert end(0.99) < 1
    assert end(1.01) > 1


@pytest.mark.parametrize("beta", [0.9, 0.5, 0.0])
def test_stability_limit_of_adam_is_that_of_its_recursion(beta):
    """With m <- beta m + (1 - beta) h x, x <- x - s m: the spectral radius is 1 there."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = Adam([weight], lr=0.1, betas=(beta, 0.999))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    limit = step_sizes(optimizer, [weight], weight.detach()).stability_limit
    for factor, is_stable in ((0.999, True), (1.001, False)):
        h = factor * limit
        matrix = torch.tensor(
            [[beta, (1 - beta) * h], [-0.1 * beta, 1 - 0.1 * (1 - beta) * h]], dtype=torch.float64
        )
        assert (torch.linalg.eigvals(matrix).abs().max() <= 1) == is_stable


def test_stability_limit_of_adam_is_38_over_the_step_size():
    weight = nn.Parameter(torch.ones(1))
    optimizer = Adam([weight], lr=1e-3)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert step_sizes(optimizer, [weight], weight.detach()).stability_limit == pytest.approx(38e3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Adam, {"betas": (0.0, 0.99)}),
        (Adam, {"betas": (0.0, 0.99), "amsgrad": True, "eps": 0.1}),
        (AdamW, {"betas": (0.0, 0.9), "weight_decay": 0.0}),
        (RMSprop, {"alpha": 0.9, "eps": 1e-3}),
        (RMSprop, {"alpha": 0.9, "centered": True}),
    ],
)
def test_diagonal_is_the_metric_in_which_the_optimizer_steps(kind, options):
    """Without momentum, a step is s D^2 gradient."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = kind([weight], lr=0.1, **options)
    for step in range(3):
        weight.grad = torch.tensor([0.3, -1.0, 0.02], dtype=torch.float64) / (step + 1)
        before = weight.detach().clone()
        optimizer.step()
    expected = ((before - weight.detach()) / (0.1 * weight.grad)).sqrt()
    found = step_sizes(optimizer, [weight], weight.detach())
    assert torch.allclose(found.diagonal, expected, rtol=1e-9)


def test_diagonal_has_the_ratios_of_the_step_sizes():
    parts = [nn.Parameter(torch.ones(size, dtype=torch.float64)) for size in (2, 1, 1)]
    optimizer = SGD([{"params": [parts[0]], "lr": 0.1}, {"params": [parts[1]], "lr": 0.4}])
    found = step_sizes(optimizer, parts, torch.ones(4, dtype=torch.float64))
    assert found.step_size == 0.4
    assert found.stability_limit == 5.0
    expected = [0.5, 0.5, 1.0, 0.0]  # the last parameter is not the optimizer's
    assert torch.allclose(found.diagonal, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda weight: Adadelta([weight]), "Adadelta is not known"),
        (lambda weight: SGD([nn.Parameter(torch.ones(1))], lr=1), "none of the parameters"),
        (lambda weight: SGD([weight], lr=0.1, maximize=True), "maximizes"),
    ],
)
def test_step_sizes_say_why_there_is_no_limit(make, words):
    weight = nn.Parameter(torch.ones(3))
    found = step_sizes(make(weight), [weight], weight.detach())
    assert found.stability_limit is None
    assert words in found.reason


def test_step_sizes_of_groups_with_other_momenta_have_no_common_limit():
    first, second = (nn.Parameter(torch.ones(1)) for _ in range(2))
    groups = [{"params": [first], "momentum": 0.9}, {"params": [second], "momentum": 0.1}]
    found = step_sizes(SGD(groups, lr=0.1), [first, second], torch.ones(2))
    assert found.stability_limit is None
    assert "different momenta" in found.reason


def test_step_sizes_of_zero_have_no_limit():
    weight = nn.Parameter(torch.ones(1))
    found = step_sizes(SGD([weight], lr=0.0), [weight], weight.detach())
    assert (found.step_size, found.stability_limit, found.diagonal) == (0.0, None, None)


def test_step_sizes_know_no_metric_before_the_first_step_of_adam():
    weight = nn.Parameter(torch.ones(1))
    found = step_sizes(Adam([weight], lr=0.1), [weight], weight.detach())
    assert not found.is_metric_known
    assert found.step_size == 0.1


class Lookahead(torch.optim.Optimizer):
    """Goes half the way of every second step."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups


class Warmup:
    """A schedule that is no optimizer and takes its steps."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize(
    "wrap",
    [Lookahead, Warmup, lambda inner: Lookahead(accelerated(inner))],
)
def test_step_sizes_know_no_limit_of_wrappers_that_may_take_other_steps(wrap, kind):
    weight = nn.Parameter(torch.ones(3))
    found = step_sizes(wrap(kind([weight], lr=0.1)), [weight], weight.detach())
    assert (found.step_size, found.stability_limit, found.is_metric_known) == (0.1, None, False)
    assert re.search(r"limit of (Lookahead|Warmup) is not known", found.reason)


def test_step_sizes_of_schedules_and_trainers_are_those_of_their_optimizer():
    weight = nn.Parameter(torch.ones(3))
    for wrap in (scheduled, accelerated):
        found = step_sizes(wrap(SGD([weight], lr=0.1)), [weight], weight.detach())
        assert (found.step_size, found.stability_limit) == (0.1, 20.0)


def accelerated(optimizer):
    """Wrap as accelerate does, without the package."""
    kind = type("AcceleratedOptimizer", (Lookahead,), {"__module__": "accelerate.optimizer"})
    return kind(optimizer)


def scheduled(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

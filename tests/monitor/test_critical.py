"""The critical step of functions whose critical step is known."""

from __future__ import annotations

import math

import pytest

from hesspipe.monitor.critical import critical_step


@pytest.mark.parametrize("root", [1e-4, 0.03, 0.9999, 1.0, 1.5, 7.0, 3e4])
@pytest.mark.parametrize(
    "shape",
    [
        lambda s: s**2 - s,
        lambda s: s**4 - s,
        lambda s: math.expm1(3 * s) - s * math.expm1(3),
        lambda s: -math.sin(math.pi * s) if s < 2 else 1.0,
        lambda s: s**2 - s if s < 1.2 else math.inf,
    ],
)
def test_critical_step_is_where_the_loss_is_that_of_the_start(root, shape):
    found = critical_step(lambda step: 5.0 + shape(min(step / root, 100.0)))
    assert found == pytest.approx(root, rel=2e-3)


def test_critical_step_takes_few_evaluations():
    count = []
    critical_step(lambda s: count.append(s) or s**2 - 6 * s)
    assert len(count) <= 7


@pytest.mark.parametrize("loss", [lambda s: s, lambda s: s**2, lambda s: -s, lambda s: 0.0 * s])
def test_critical_step_is_none_where_there_is_no_root(loss):
    assert critical_step(loss) is None

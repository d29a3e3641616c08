"""Losses and their slopes, compared at outputs that are moved by a step and by a tenth of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import normal
from torch import Tensor

from hesspipe.objective.finite_differences import STEPS, outcomes_of_loss

STEP = STEPS[torch.float64][0]
CENTER = normal(5, 2)
CHANGE = normal(5, 2, seed=3)


def outcomes_along(
    loss: Callable[[Tensor], Tensor], center: Tensor = CENTER, step: float = STEP
) -> dict[str, bool]:
    """Whether the loss, and any row of its slopes, is found to be wrong."""
    moved = center - step * CHANGE, center + step * CHANGE
    found = outcomes_of_loss(loss, center, moved, step, with_slopes=True)
    return {kind: bool(one.is_wrong.any()) for kind, one in found.items()}


class _Jump(torch.autograd.Function):
    """Numbers that are larger ahead of the center than behind it, by rounding; the slope is 1."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ahead: Tensor, size: float) -> Tensor:
        return values + size * ahead

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return slopes[0], None, None


class _Linear(torch.autograd.Function):
    """A sum whose slopes jump, and whose second derivative is that of another function."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, size: float) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.size = size
        return rows.sum()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        ahead = _sides(rows).expand_as(rows)
        return slopes[0] * _Jump.apply(torch.ones_like(rows), ahead, ctx.size), None  # type: ignore[no-untyped-call]


def _sides(rows: Tensor) -> Tensor:
    """-1 behind the center, 1 ahead of it and 0 there."""
    return torch.sign(((rows.detach() - CENTER) * CHANGE).sum())


def value_jumps(rows: Tensor, size: float) -> Tensor:
    value: Tensor = _Jump.apply(rows.square().sum(), _sides(rows), size)  # type: ignore[no-untyped-call]
    return value


def slopes_jump(rows: Tensor, size: float) -> Tensor:
    value: Tensor = _Linear.apply(rows, size)  # type: ignore[no-untyped-call]
    return value


@pytest.mark.parametrize("share", [1e-2, 0.3, 10.0])
@pytest.mark.parametrize("loss", [value_jumps, slopes_jump])
def test_outcomes_of_loss_are_right_where_the_error_grows_as_the_step_decreases(
    loss: Callable[[Tensor, float], Tensor], share: float
) -> None:
    """Rounding changes the numbers by the same whatever the step, and the quotients by more."""
    assert not any(outcomes_along(lambda rows: loss(rows, share * STEP)).values())


class _Scaled(torch.autograd.Function):
    """The cube, whose first or second derivative is too large by a factor."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, first: float, second: float) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.factors = first, second
        return rows.pow(3).sum()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        first, second = ctx.factors
        square = rows * rows
        slope = square.detach() + second * (square - square.detach())
        return slopes[0] * 3 * first * slope, None, None


@pytest.mark.parametrize("factor", [0.0, 0.99, 1.01, 3.0])
@pytest.mark.parametrize("kind", ["loss", "slopes"])
def test_outcomes_of_loss_are_wrong_where_the_error_is_the_same_for_both_steps(
    kind: str, factor: float
) -> None:
    first, second = (factor, 1.0) if kind == "loss" else (1.0, factor)
    found = outcomes_along(lambda rows: _Scaled.apply(rows, first, second))  # type: ignore[no-untyped-call]
    assert found == {"loss": kind == "loss", "slopes": kind == "slopes"}


@pytest.mark.parametrize("step", [1e-3, STEP])
def test_outcomes_of_loss_evaluate_at_the_step_and_at_a_tenth_of_it(step: float) -> None:
    distances = []

    def loss(rows: Tensor) -> Tensor:
        distances.append(float((rows.detach() - CENTER).norm() / CHANGE.norm()) / step)
        return _Scaled.apply(rows, 2.0, 1.0)  # type: ignore[no-untyped-call, no-any-return]

    outcomes_along(loss, step=step)
    assert sorted(distances) == pytest.approx([0, 0, 0.1, 0.1, 1, 1], abs=1e-6)


def test_outcomes_of_loss_that_are_right_need_no_second_step() -> None:
    distances = []

    def loss(rows: Tensor) -> Tensor:
        distances.append(float((rows.detach() - CENTER).norm() / CHANGE.norm()) / STEP)
        return rows.square().sum()

    assert not any(outcomes_along(loss).values())
    assert sorted(distances) == pytest.approx([0, 1, 1], abs=1e-6)

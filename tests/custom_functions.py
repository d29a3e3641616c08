"""Functions with a backward method of their own: a right one, and one that is silently wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Square(torch.autograd.Function):
    """Correct: its backward method is differentiable."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.square()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * slope


class ConstantSlope(Square):
    """Silently wrong: the derivative is a constant for the second derivative."""

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].detach() * slope

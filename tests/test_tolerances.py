"""Agreement up to rounding, and the difference that is no longer rounding."""

from __future__ import annotations

import pytest
import torch
from problems import normal

from hesspipe.tolerances import agrees, rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_accepts_another_order_of_summation_and_nothing_larger(dtype: torch.dtype) -> None:
    numbers = normal(100_000).to(dtype)
    found, expected, scale = numbers.sum(), numbers.flip(0).cumsum(0)[-1], numbers.norm()
    assert agrees(found, expected, scale)
    assert not agrees(found + 1e4 * torch.finfo(dtype).eps * scale, expected, scale)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_agreement_does_not_depend_on_the_scale(scale: float) -> None:
    vector, step = scale * normal(50), scale * normal(50, seed=1)
    norm = float(vector.norm())
    eps = torch.finfo(torch.float64).eps
    assert agrees(vector + 100 * eps * step, vector, norm)
    assert not agrees(vector + 1e4 * eps * step, vector, norm)


def test_nan_agrees_with_nothing() -> None:
    nan = torch.tensor([torch.nan])
    assert not agrees(nan, nan, 1.0)


def test_rounding_is_a_thousand_eps_of_the_scale() -> None:
    assert rounding(2.0, torch.float32) == 2e3 * torch.finfo(torch.float32).eps

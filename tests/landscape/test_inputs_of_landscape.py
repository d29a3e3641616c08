"""What lines, planes, alignment and barriers refuse instead of computing something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hesspipe.data.dataset import Dataset
from hesspipe.landscape.alignment import match_units, permute_units
from hesspipe.landscape.barriers import find_barrier
from hesspipe.landscape.paths import (
    evaluate_line,
    line_coefficients,
    plane_grid,
    plane_through,
)


def line(first: int | tuple[int, ...], second: int | tuple[int, ...]) -> Any:
    model = nn.Sequential(nn.Linear(2, 2)).double()
    inputs, labels = torch.ones(3, 2, dtype=torch.float64), torch.tensor([0, 1, 1])
    data = Dataset(inputs, labels, inputs[:0], labels[:0], None)
    loss_fn = nn.CrossEntropyLoss()
    return evaluate_line(
        model, data, torch.ones(first), torch.ones(second), [0.0, 1.0], loss_fn=loss_fn
    )


def network(between: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    first, last = nn.Linear(3, 4, dtype=dtype), nn.Linear(4, 2, dtype=dtype)
    return nn.Sequential(first, between, last)


def wrapped() -> nn.Sequential:
    return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 2))


ZERO, ONE, NAN = torch.zeros(5), torch.ones(5), torch.full((5,), torch.nan)
THIRD = torch.arange(5.0)

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a line to one number": (lambda: line(6, 1), "second must be a vector of 6 numbers"),
    "a line from one number": (lambda: line(1, 6), "second must be a vector of 1 numbers"),
    "a line of other points": (lambda: line(7, 7), "each of the network's 6 parameters, got 7"),
    "a line of rows": (lambda: line((1, 6), (1, 6)), "first must be a vector"),
    "a plane through one number": (lambda: plane_through(ZERO, ONE[:1], THIRD), "second must be"),
    "a plane through nan": (lambda: plane_through(ZERO, ONE, NAN), "third must be finite"),
    "no interval": (lambda: line_coefficients(0, 1), "num_between must be"),
    "less than the line": (lambda: line_coefficients(3, -1), "num_beyond at least 0"),
    "a grid of one point": (lambda: plane_grid([(0, 0), (1, 1)], 1, 0.1), "num_points must be"),
    "a negative margin": (lambda: plane_grid([(0, 0), (1, 1)], 3, -0.6), "margin at least 0"),
    "a grid of nothing": (lambda: plane_grid([], 3, 0.1), "points must be pairs"),
    "complex losses": (lambda: find_barrier([0, 0.5, 1], [1, 2j, 3]), "must be real"),
    "an overflow": (lambda: find_barrier([0, 0.5, 1], [-1e308, 1e308, 1.7e308]), "overflow"),
    "other functions": (
        lambda: match_units(network(nn.ReLU()), network(nn.Tanh())), "must have the same modules",
    ),
    "complex weights": (
        lambda: match_units(*[network(nn.Tanh(), torch.complex128)] * 2), "must be real",
    ),
    "a lazy layer": (lambda: match_units(wrapped(), wrapped()), "must be initialized"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_landscape_refuses_what_it_would_take_for_something_else(name: str) -> None:
    run, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize("between", [nn.Mish(), nn.Hardtanh(), nn.Softsign(), nn.CELU()])
def test_permute_units_keeps_the_function_with_other_activations(between: nn.Module) -> None:
    model = network(between)
    permuted = permute_units(model, [[1, 2, 3, 0]])
    inputs = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(permuted(inputs), model(inputs), rtol=1e-13, atol=1e-13)
    assert match_units(permuted, model)[0].tolist() == [1, 2, 3, 0]


def test_match_units_allows_dropout_in_one_network() -> None:
    model = network(nn.Tanh())
    other = nn.Sequential(*model[:2], nn.Dropout(0.5), model[2])
    assert match_units(model, other)[0].tolist() == [0, 1, 2, 3]

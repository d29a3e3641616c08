"""Arguments of the landscape's functions that cannot be meant, and those that only look so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hesspipe.landscape.alignment import align_units, match_units, permute_units
from hesspipe.landscape.barriers import find_barrier

LOSSES = [1.0, 4.0, 2.0]


def network(scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    for parameter in model.double().parameters():
        parameter.data *= scale
    return model


@pytest.mark.parametrize(
    "losses",
    [
        torch.tensor(LOSSES, requires_grad=True),
        [torch.tensor(value, requires_grad=True) for value in LOSSES],
        [torch.tensor(LOSSES[0]), *LOSSES[1:]],
        np.array(LOSSES, dtype=np.float32),
        tuple(np.float64(value) for value in LOSSES),
        [1, 4, 2],
        torch.tensor([1, 4, 2]),
        torch.tensor(LOSSES, dtype=torch.bfloat16),
    ],
)
def test_find_barrier_takes_numbers_of_any_kind(losses: Any) -> None:
    assert find_barrier([0.0, 0.5, 1.0], losses).height == 2.5


@pytest.mark.parametrize(
    "losses",
    [
        ["1", "4", "2"], [b"1", b"4", b"2"], [None, 1.0, 2.0], [[1.0], [1.0, 2.0], [3.0]], None,
        3.0, "142", {"a": 1}, [1j, 2.0, 3.0], [[1.0, 2.0, 3.0]], torch.tensor(1.0), [object()] * 3,
        np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), [1.0, float("nan"), 2.0], [1.0, 2.0],
        [torch.ones(2), torch.ones(3), torch.ones(1)],
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_place", [False, True])
def test_find_barrier_refuses_what_are_no_numbers(losses: Any, is_place: bool) -> None:
    arguments = (losses, LOSSES) if is_place else ([0.0, 0.5, 1.0], losses)
    with pytest.raises((TypeError, ValueError), match=r"coefficients|losses"):
        find_barrier(*arguments)


@pytest.mark.parametrize(
    "orders",
    [None, 3, [None, None], [[0, 1]], [range(5), None], [[0, 1, 2, 3, [4]], range(4)], "ab",
     [range(5), [0.0, 1.0, 2.0, 3.0]], [range(5), [0, 1, 2, 2]], {0: range(5), 1: range(4)}],
)  # fmt: skip
def test_permute_units_refuses_what_are_no_orders(orders: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="order"):
        permute_units(network(), orders)


@pytest.mark.parametrize(
    "inputs",
    [torch.ones(4, 2), torch.ones(4), torch.tensor(1.0), torch.ones(0, 3), torch.ones(2, 3) * 1j,
     torch.ones(2, 1, 7), torch.full((2, 3), float("nan")), [[1.0, 2.0, 3.0]], torch.ones(2, 3, 0)],
)  # fmt: skip
def test_permute_units_refuses_inputs_that_the_network_does_not_take(inputs: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"inputs|outputs"):
        permute_units(network(), [range(5), range(4)], inputs)


@pytest.mark.parametrize("place", [None, 0, 1, 4])
def test_alignment_refuses_an_instance_with_another_forward(place: int | None) -> None:
    model = network()
    module = model if place is None else model[place]
    module.forward = lambda inputs: inputs  # type: ignore[method-assign, assignment]
    for call in (
        lambda: permute_units(model, [range(5), range(4)]),
        lambda: match_units(network(), model),
        lambda: align_units(model, network()),
    ):
        with pytest.raises(ValueError, match="must have the forward methods of its classes"):
            call()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e150, 1e200, 1e300])
def test_match_units_finds_the_order_at_any_scale(scale: float) -> None:
    orders = [np.array([3, 1, 0, 4, 2]), np.array([2, 0, 3, 1])]
    model = network()
    permuted = permute_units(model, orders)
    for one in (model, permuted):
        for parameter in one.parameters():
            parameter.data *= scale
    found = match_units(permuted, model)
    assert [order.tolist() for order in found] == [order.tolist() for order in orders]


def test_permute_units_refuses_outputs_that_overflow() -> None:
    with pytest.raises(ValueError, match="outputs must be finite"):
        permute_units(network(1e200), [range(5), range(4)])

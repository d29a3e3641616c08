"""Selections that are tied behind a gate of zeros are refused; kinks at zero are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import hesspipe
from hesspipe.errors import NotTwiceDifferentiableError

INPUTS, CLASSES = normal(20, 4), labels(20, 3)
Select = Callable[[Tensor, Tensor, Tensor], Tensor]


def looked_up(scores: Tensor, inputs: Tensor, experts: Tensor) -> Tensor:
    return torch.einsum("ni,nio->no", inputs, experts[scores.argmax(1)])


def mixed(scores: Tensor, inputs: Tensor, experts: Tensor) -> Tensor:
    shares, chosen = scores.softmax(1).topk(2, 1)
    every = torch.einsum("ni,eio->neo", inputs, experts)
    picked = every.gather(1, chosen.unsqueeze(2).expand(-1, -1, every.shape[2]))
    return (shares.unsqueeze(2) * picked).sum(1)


def dispatched(scores: Tensor, inputs: Tensor, experts: Tensor) -> Tensor:
    outputs = inputs.new_zeros(len(inputs), experts.shape[2])
    for number, expert in enumerate(experts):
        rows = (scores.argmax(1) == number).nonzero().flatten()
        if len(rows):
            outputs = outputs.index_add(0, rows, inputs[rows] @ expert)
    return outputs


def masked(scores: Tensor, inputs: Tensor, experts: Tensor) -> Tensor:
    is_first = (scores[:, :1] > scores[:, 1:2]).to(inputs)
    return is_first * (inputs @ experts[0]) + (1 - is_first) * (inputs @ experts[1])


def by_where(scores: Tensor, inputs: Tensor, experts: Tensor) -> Tensor:
    return torch.where(scores[:, :1] > 0, inputs @ experts[0], inputs @ experts[1])


def ordered(scores: Tensor, inputs: Tensor, experts: Tensor) -> Tensor:
    return inputs @ experts[scores.sum(0).argsort()][0]


SELECTIONS: dict[str, Select] = {
    "index": looked_up, "topk": mixed, "loop": dispatched, "mask": masked, "where": by_where,
    "argsort": ordered,
}  # fmt: skip


class Gated(nn.Module):
    """A router and experts behind a gate, beside a layer."""

    def __init__(self, select: Select, router: Tensor, gate: Tensor) -> None:
        super().__init__()
        self.router, self.gate = nn.Parameter(router.clone()), nn.Parameter(gate.clone())
        self.experts, self.layer = nn.Parameter(normal(5, 4, 3, seed=1)), nn.Linear(4, 3)
        with torch.no_grad():
            self.layer.weight.copy_(normal(3, 4, seed=2))
            self.layer.bias.copy_(normal(3, seed=6))
        self.select = select

    def forward(self, inputs: Tensor) -> Tensor:
        chosen = self.select(inputs @ self.router, inputs, self.experts)
        return torch.tanh(self.layer(inputs)) + self.gate * chosen


ROUTER = {"zeros": torch.zeros(4, 5).double(), "random": normal(4, 5, seed=3)}
GATE = {"zeros": torch.zeros(3).double(), "a zero": torch.zeros(()).double()}


def build(model: nn.Module, inputs: Tensor = INPUTS) -> hesspipe.Objective:
    return hesspipe.Objective(model.double(), nn.CrossEntropyLoss(), (inputs, CLASSES))


@pytest.mark.parametrize("gate", GATE)
@pytest.mark.parametrize("name", SELECTIONS)
def test_tie_behind_a_gate_of_zeros_is_refused(name: str, gate: str) -> None:
    with pytest.raises(
        NotTwiceDifferentiableError, match=r"got values of \w+ that jump there, on batch 0;.*random"
    ) as caught:
        build(Gated(SELECTIONS[name], ROUTER["zeros"], GATE[gate]))
    assert "\n" not in str(caught.value)


def require_hessian_of_torch(model: nn.Module, inputs: Tensor = INPUTS) -> None:
    objective = build(model, inputs)
    parts = dict(model.named_parameters())

    def loss(theta: Tensor) -> Tensor:
        pieces = theta.split([part.numel() for part in parts.values()])
        state = {
            name: piece.view_as(part)
            for (name, part), piece in zip(parts.items(), pieces, strict=True)
        }
        return functional.cross_entropy(functional_call(model, state, (inputs,)), CLASSES)

    theta = torch.cat([part.detach().flatten() for part in parts.values()])
    expected = torch.autograd.functional.hessian(loss, theta)
    found = hesspipe.hessian_matrix(objective)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("gate", GATE)
@pytest.mark.parametrize("name", SELECTIONS)
def test_gate_of_zeros_before_a_random_router_is_accepted(name: str, gate: str) -> None:
    require_hessian_of_torch(Gated(SELECTIONS[name], ROUTER["random"], GATE[gate]))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky": lambda hidden: torch.where(hidden > 0, hidden, 0.1 * hidden),
    "by a mask": lambda hidden: hidden * (hidden > 0),
    "by a mask of numbers": lambda hidden: hidden * (hidden > 0).to(hidden),
    "abs": torch.abs,
    "maximum": lambda hidden: torch.maximum(hidden, 0.5 * hidden),
    "pooling": lambda hidden: functional.max_pool1d(hidden.unsqueeze(1), 2).squeeze(1).repeat(1, 2),
    "sorted": lambda hidden: hidden.sort(1).values,
    "shrinkage": lambda hidden: hidden + hidden.sign() * torch.relu(hidden.abs() - 0.5),
}


class Kinked(nn.Module):
    """Units that are exactly zero for samples of zeros, as there is no bias."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.first.weight.copy_(normal(6, 4, seed=4))
            self.first.bias.zero_()
            self.last.weight.copy_(normal(3, 6, seed=5))
            self.last.bias.copy_(normal(3, seed=6))
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.activation(self.first(inputs)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_kink_at_the_parameters_is_accepted(name: str) -> None:
    inputs = INPUTS.clone()
    inputs[::2] = 0.0
    require_hessian_of_torch(Kinked(ACTIVATIONS[name]), inputs)

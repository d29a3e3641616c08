"""Networks that select, look up or differentiate inside, with torch only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from zoo.case import Case, Row, classifier, integers, numbers

X, Y = numbers(6, 4), integers(3, 6)
SENDERS, RECEIVERS = (
    torch.tensor([0, 1, 2, 3, 4, 5, 0, 2, 4]),
    torch.tensor([1, 2, 3, 4, 5, 0, 3, 5, 1]),
)


class Head(nn.Module):
    """A layer, an operation on what it returns, and another layer."""

    def __init__(self, operation: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.operation = nn.Linear(4, 9), nn.Linear(width, 3), operation

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.operation(self.first(inputs)))


def _case(operation: Callable[[Tensor], Tensor], width: int = 9) -> Callable[[], Case]:
    return lambda: classifier(Head(operation, width), X, Y)


def _largest_messages(hidden: Tensor) -> Tensor:
    places = RECEIVERS[:, None].expand(-1, 9)
    nothing = torch.zeros_like(hidden)
    return nothing.scatter_reduce(0, places, hidden[SENDERS], "amax", include_self=False)


def _interpolated(hidden: Tensor) -> Tensor:
    places = (hidden.tanh() + 1) * 8
    below = places.floor()
    table, share = torch.arange(18).to(hidden).sin(), places - below
    return table[below.long()] * (1 - share) + table[(below + 1).long()] * share


def _deformed(hidden: Tensor) -> Tensor:
    grid = hidden.view(-1, 1, 9, 1).expand(-1, -1, -1, 2).tanh() * 0.8
    return functional.grid_sample(hidden.view(-1, 1, 3, 3), grid, align_corners=False).flatten(1)


class Slopes(nn.Module):
    """Its outputs are derivatives of an energy in a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.energy = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        energy = self.energy(hidden.tanh()).sum()
        return torch.autograd.grad(energy, hidden, create_graph=True)[0]


ROWS = [
    Row("running sums of hazards (logcumsumexp)", _case(lambda hidden: hidden.logcumsumexp(1))),
    Row("largest message of neighbors (scatter_reduce)", _case(_largest_messages)),
    Row("table between whole numbers", _case(_interpolated)),
    Row("places of samples that are learned (grid_sample)", _case(_deformed)),
    Row(
        "scaled by the largest (norm of order inf)",
        _case(lambda hidden: hidden / hidden.norm(torch.inf)),
    ),
    Row("derivatives in a hidden layer, without enable_grad", lambda: classifier(Slopes(), X, Y)),
]

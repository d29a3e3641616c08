"""Random numbers of Python and NumPy that seldom change a result are refused, others are not."""

# ruff: noqa: NPY002 (the generator that such models use)

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from problems import normal
from torch import Tensor, nn

from hesspipe.objective.objective import Objective
from hesspipe.objective.rare_draws import at_extremes

X, Y = normal(6, 4), normal(6, 3, seed=1)


class Deciding(nn.Module):
    """A network that skips a layer where a function says so."""

    def __init__(self, decide: Callable[[], bool]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.decide = decide

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        hidden = hidden if self.decide() else hidden + torch.tanh(self.inner(hidden))
        return self.last(hidden)


# Each is true with the given probability.
RARE: dict[str, Callable[[float], bool]] = {
    "random": lambda p: random.random() < p,
    "random, above": lambda p: random.random() > 1 - p,
    "uniform": lambda p: random.uniform(-1, 1) < 2 * p - 1,
    "randrange": lambda p: random.randrange(round(1 / p)) == 0,
    "choices": lambda p: random.choices([True, False], [p, 1 - p])[0],
    "numpy": lambda p: np.random.rand() < p,
    "numpy, above": lambda p: np.random.random_sample() > 1 - p,
    "numpy uniform": lambda p: np.random.uniform(0, 1) < p,
    "numpy binomial": lambda p: np.random.binomial(1, p) == 1,
    "numpy choice": lambda p: bool(np.random.choice([True, False], p=[p, 1 - p])),
    "tenth of ten": lambda p: [random.random() < p for _ in range(10)][-1],
}


@pytest.mark.parametrize("probability", [2e-2, 1e-6])
@pytest.mark.parametrize("name", RARE)
def test_results_that_seldom_change_are_refused(name: str, probability: float) -> None:
    model = Deciding(lambda: RARE[name](probability))
    with pytest.raises(ValueError, match=r"must be deterministic, got .*call model\.eval\(\)"):
        Objective(model, nn.MSELoss(), (X, Y))


@pytest.mark.parametrize("name", RARE)
def test_loss_that_seldom_changes_is_refused(name: str) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean() * (2 if RARE[name](1e-6) else 1)

    with pytest.raises(ValueError, match="must be deterministic, got the loss that random"):
        Objective(nn.Linear(4, 3), loss, (X, Y))


def seeded() -> bool:
    random.seed(3)
    return random.random() < 0.5


def loaded() -> bool:
    """Iterate a DataLoader, which draws a base seed."""
    return len(list(torch.utils.data.DataLoader([1, 2, 3]))) == 2


def shuffled() -> bool:
    return sorted(np.random.permutation(5)) != list(range(5))


HARMLESS: dict[str, Callable[[], bool]] = {
    "layerdrop of 0": lambda: random.random() < 0,
    "drawn and not used": lambda: np.random.rand() > 2,
    "drawn until it differs": lambda: random.normalvariate(0, 1) == np.random.randn(),
    "drawn below a number": lambda: random.randrange(5) < 0 or random.randrange(3) < 0,
    "seeded": seeded,
    "loader": loaded,
    "order": shuffled,
    "own generator": lambda: np.random.default_rng(3).random() < 0.02,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_numbers_that_change_nothing_may_be_drawn(name: str) -> None:
    random.seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist()
    objective = Objective(Deciding(HARMLESS[name]), nn.MSELoss(), (X, Y))
    assert objective.num_parameters == 73
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_extremes_are_the_smallest_and_the_largest_numbers_there_are() -> None:
    found = list(at_extremes(lambda: (random.random(), np.random.rand(), random.getrandbits(32))))
    assert found == [(0.0, 0.0, 0), (1 - 2**-53, 1 - 2**-53, 2**32 - 1)]

"""What couples samples is found in any batch; what only looks like it is accepted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from dense_reference import reference_matrices
from problems import assert_close, labels, network, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.objective import Objective

# Broadcasting is what some of these tests are about, and torch warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:Using a target size", "ignore:size_average")


class Between(nn.Module):
    """A network with a function of all its hidden units (n, 5) between two layers."""

    def __init__(self, function: Callable[[Tensor], Tensor], num_outputs: int = 3) -> None:
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, num_outputs)
        with torch.no_grad():
            for seed, parameter in enumerate(self.parameters()):
                parameter.copy_(0.5 * normal(*parameter.shape, seed=seed))
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.function(self.first(inputs).tanh()))
        return outputs


class FirstSeen(Between):
    """Normalized by what was seen in the first call."""

    mean: Tensor | None = None

    def __init__(self) -> None:
        super().__init__(self.centered)

    def centered(self, hidden: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = hidden.mean(0).detach()
        return hidden - self.mean


def places(hidden: Tensor) -> Tensor:
    return hidden * torch.arange(1.0, len(hidden) + 1, dtype=hidden.dtype).unsqueeze(1)


COUPLING = {
    "running sum": lambda h: 0.3 * h.cumsum(0),
    "centered": lambda h: h - h.mean(0),
    "centered if several": lambda h: h - h.mean(0) if len(h) > 1 else h,
    "first sample": lambda h: h + h[:1],
    "last sample": lambda h: h + h[-1:],
    "neighbor": lambda h: h + h.roll(1, 0),
    "place": places,
    "number of samples": lambda h: h / len(h),
    "attention": lambda h: (h @ h.T).softmax(1) @ h,
    "sorted": lambda h: h.sort(0).values,
    "scaled": lambda h: h / h.abs().max(),
}
INPUTS, LABELS, NUMBERS = normal(14, 4), labels(14, 3), normal(14, 3, seed=5)
SPLITS = [[2, 12], [12, 2], [1] * 14]


def split(targets: Any, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(INPUTS.split(sizes), targets.split(sizes), strict=True))


@pytest.mark.parametrize("name", COUPLING)
@pytest.mark.parametrize("sizes", SPLITS, ids=["2, 12", "12, 2", "ones"])
def test_objective_refuses_a_model_that_couples_samples_in_any_batch(
    name: str, sizes: list[int]
) -> None:
    with pytest.raises(NotASumOverSamplesError, match="must treat samples independently"):
        Objective(Between(COUPLING[name]), nn.CrossEntropyLoss(), split(LABELS, sizes))


@pytest.mark.parametrize("sizes", SPLITS, ids=["2, 12", "12, 2", "ones"])
def test_objective_refuses_a_model_that_keeps_what_it_saw_first(sizes: list[int]) -> None:
    with pytest.raises(NotASumOverSamplesError, match="must treat samples independently"):
        Objective(FirstSeen(), nn.CrossEntropyLoss(), split(LABELS, sizes))


@pytest.mark.parametrize("name", ["running sum", "centered", "attention", "sorted"])
def test_matrices_of_one_coupled_batch_are_correct(name: str) -> None:
    model = Between(COUPLING[name])
    objective = Objective(model, nn.CrossEntropyLoss(), (INPUTS, LABELS))
    assert objective.coupling is not None
    assert not objective.is_separable
    expected = reference_matrices(
        model,
        lambda model: model(INPUTS),
        lambda outputs: functional.cross_entropy(outputs, LABELS),
    )
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=200)


class Graph(nn.Module):
    """A matrix of the size of the data, which cannot be evaluated on a part."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("neighbors", torch.eye(14).roll(1, 0))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.neighbors @ self.layer(inputs)  # type: ignore[no-any-return, operator]


def test_model_that_needs_the_whole_batch_couples_samples() -> None:
    objective = Objective(Graph(), nn.CrossEntropyLoss(), (INPUTS, LABELS))
    assert "cannot be evaluated on 7 of the 14 samples" in str(objective.coupling)
    with pytest.raises(NotASumOverSamplesError, match=r"RuntimeError.*one batch"):
        Objective(Graph(), nn.CrossEntropyLoss(), [(INPUTS, LABELS)] * 2)


def test_sequences_in_the_first_dimension_are_coupled() -> None:
    class Sequences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            states: Tensor = self.cell(inputs)[0]
            return states

    inputs, targets = normal(6, 5, 3), normal(6, 5, 2)  # (T, N, d)
    assert Objective(Sequences(), nn.MSELoss(), (inputs, targets)).coupling is not None


@pytest.mark.parametrize(
    ("function", "has_rows"),
    [(lambda h: h.squeeze(), False), (lambda h: h.view(len(h), 5, 1, 1).flatten(1), True)],
)
def test_rows_that_are_lost_for_one_sample_are_no_coupling(
    function: Callable[[Tensor], Tensor], has_rows: bool
) -> None:
    class Last(Between):
        def forward(self, inputs: Tensor) -> Tensor:
            return function(self.first(inputs))

    objective = Objective(Last(torch.tanh), nn.MSELoss(), split(normal(14, 5), [6, 8]))
    assert objective.coupling is None
    assert objective.has_output_rows == has_rows


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    unit = functional.normalize(outputs, dim=1)
    return functional.cross_entropy(unit @ unit.flip(1).T, torch.arange(len(unit)))


def correlation(outputs: Tensor, targets: Tensor) -> Tensor:
    one, other = outputs - outputs.mean(0), targets - targets.mean(0)
    return 1 - (one * other).sum() / (one.norm() * other.norm())


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean()


COUPLED_LOSSES = {
    "contrastive": contrastive,
    "correlation": correlation,
    "root of the mean": lambda o, t: functional.mse_loss(o, t).sqrt(),
    "logarithm of the mean": lambda o, t: functional.mse_loss(o, t).log(),
    "variance": lambda o, t: squares(o, t) + o.var(0).sum(),
    "variance if many": lambda o, t: squares(o, t) + (o.var(0).sum() if len(o) > 8 else 0),
    "neighbors": lambda o, t: squares(o, t) + (o[1:] - o[:-1]).square().mean(),
    "triplets": lambda o, t: functional.triplet_margin_loss(o, o.roll(1, 0), o.roll(2, 0)),
    "pairs": lambda o, t: functional.softplus((o[:, None] - o).square().sum(2)).mean(),
    "tiny": lambda o, t: 1e-12 * correlation(o, t),
}


@pytest.mark.parametrize("name", COUPLED_LOSSES)
def test_objective_refuses_a_coupled_loss_over_batches_though_it_has_a_denominator(
    name: str,
) -> None:
    loss, denominator = COUPLED_LOSSES[name], lambda outputs, _: float(len(outputs))
    model = network([4, 5, 3], "tanh")
    with pytest.raises(NotASumOverSamplesError, match="is not that of its parts"):
        Objective(model, loss, split(NUMBERS, [4, 10]), denominator=denominator)
    whole = Objective(model, loss, (INPUTS, NUMBERS))
    assert "neither as a sum nor as a mean" in str(whole.coupling)
    expected = reference_matrices(
        model, lambda model: model(INPUTS), lambda outputs: loss(outputs, NUMBERS)
    )
    assert_close(hesspipe.hessian_matrix(whole), expected["hessian"], factor=1000)


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("sizes", [[4, 10], [1, 13], [13, 1], [1] * 14])
def test_loss_that_couples_samples_by_little_is_refused(size: float, sizes: list[int]) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs, targets) + size * outputs.mean(0).square().sum()

    model = network([4, 5, 3], "tanh")
    with pytest.raises(NotASumOverSamplesError, match="is not that of its parts"):
        Objective(model, loss, split(NUMBERS, sizes), denominator=lambda o, _: float(len(o)))


WEIGHTS = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
weighted = partial(functional.cross_entropy, weight=WEIGHTS)
DENOMINATORS: dict[str, tuple[Any, Any, bool]] = {
    "mean": (lambda o, t: functional.cross_entropy(o, t), lambda o, t: len(o), True),
    "proportional": (lambda o, t: functional.cross_entropy(o, t), lambda o, t: 7 * len(o), True),
    "sum": (lambda o, t: functional.cross_entropy(o, t, reduction="sum"), lambda *_: 1, True),
    "weights": (lambda o, t: weighted(o, t), lambda o, t: WEIGHTS[t].sum(), True),
    "mean for a sum": (
        lambda o, t: functional.cross_entropy(o, t, reduction="sum"), lambda o, t: len(o), False
    ),
    "sum for a mean": (lambda o, t: functional.cross_entropy(o, t), lambda *_: 1, False),
    "no weights": (lambda o, t: weighted(o, t), lambda o, t: len(o), False),
    "squares": (lambda o, t: functional.cross_entropy(o, t), lambda o, t: len(o) ** 2, False),
    "ten percent": (lambda o, t: weighted(o, t), lambda o, t: (WEIGHTS[t] + 0.1).sum(), False),
}  # fmt: skip


@pytest.mark.parametrize("name", DENOMINATORS)
def test_objective_over_batches_has_the_loss_of_one_batch_or_refuses_the_denominator(
    name: str,
) -> None:
    loss, denominator, is_right = DENOMINATORS[name]
    model, batches = network([4, 5, 3], "tanh"), split(LABELS, [4, 10])
    if not is_right:
        with pytest.raises(NotASumOverSamplesError, match="denominator"):
            Objective(model, loss, batches, denominator=denominator)
        return
    objective = Objective(model, loss, batches, denominator=denominator)
    assert objective.is_separable
    assert_close(objective.loss(objective.theta), loss(model(INPUTS), LABELS).detach())


@pytest.mark.parametrize("function", [functional.cross_entropy, functional.mse_loss])
def test_deprecated_size_average_is_a_sum_over_batches_or_refused(function: Any) -> None:
    loss = partial(function, size_average=False)
    targets = LABELS if function is functional.cross_entropy else NUMBERS
    model = network([4, 5, 3], "tanh")
    try:
        objective = Objective(model, loss, split(targets, [4, 10]))
    except NotASumOverSamplesError:
        return
    assert_close(objective.loss(objective.theta), loss(model(INPUTS), targets).detach())


def mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


ELEMENTWISE: dict[str, Any] = {
    "squares": nn.MSELoss(),
    "huber": nn.HuberLoss(),
    "function": mean_square,
    "sum": lambda o, t: (o - t).square().sum(),
    "root": lambda o, t: mean_square(o, t).sqrt(),
    "log cosh": lambda o, t: (o - t).cosh().log().mean(),
    "logistic": lambda o, t: (functional.softplus(o) - o * t).mean(),
}
SHAPES = {
    "(N, 1), (N,)": (lambda h: h[:, :1], (14,)),
    "(N,), (N, 1)": (lambda h: h[:, 0], (14, 1)),
    "(N, 1), (1, N)": (lambda h: h[:, :1], (1, 14)),
    "(N, N), (N,)": (lambda h: h[:, :1] * torch.arange(14.0).cos(), (14,)),
    "(N,), (N, N)": (lambda h: h[:, 0], (14, 14)),
}


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("loss", ELEMENTWISE)
def test_objective_refuses_targets_that_are_broadcast_over_samples(shapes: str, loss: str) -> None:
    select, shape = SHAPES[shapes]
    model = Between(lambda hidden: hidden)
    model.last = nn.Identity()  # type: ignore[assignment]
    model.function = select
    with pytest.raises(ValueError, match=r"targets .* the shape of the outputs.*view_as\(outputs"):
        Objective(model, ELEMENTWISE[loss], (INPUTS, normal(*shape, seed=7)))


ACCEPTED: dict[str, tuple[int, Any, Tensor]] = {
    "selected": (1, lambda o, t: mean_square(o.squeeze(1), t), NUMBERS[:, 0]),
    "one for all outputs": (3, mean_square, NUMBERS[:, :1]),
    "one for all samples": (3, mean_square, NUMBERS[0]),
    "row for all samples": (3, mean_square, NUMBERS[:1]),
    "one output": (1, mean_square, NUMBERS),
    "as many classes as samples": (14, nn.CrossEntropyLoss(), labels(14, 14)),
    "one class": (1, nn.CrossEntropyLoss(), torch.zeros(14, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_objective_accepts_targets_of_another_shape_that_do_not_mix_samples(name: str) -> None:
    num_outputs, loss, targets = ACCEPTED[name]
    model = Between(torch.tanh, num_outputs)
    objective = Objective(model, loss, (INPUTS, targets))
    assert objective.is_separable
    assert_close(objective.loss(objective.theta), loss(model(INPUTS), targets).detach())


def test_loss_that_changes_later_is_noticed() -> None:
    objective = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), (INPUTS, LABELS))
    (batch,) = objective.batches
    value = objective.batch_loss(objective.theta, batch)
    objective.require_unchanged(batch, value)
    for change in (1e-9, 1e-4, 0.1, 1.0):
        with pytest.raises(ValueError, match="must not change after the Objective is built"):
            objective.require_unchanged(batch, value * (1 + change))

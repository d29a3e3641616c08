"""Samples of several batches in one evaluation: the same loss in fewer evaluations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import assert_close, labels, network, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.joined_pieces import joined
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import Piece
from hesspipe.objective.pytrees import Fields
from hesspipe.objective.work import Work

SHARES = (0.5, 0.25, 2.0)


def model(theta: Tensor, inputs: Any) -> Any:
    """Two outputs, of inputs of one or several tensors."""
    values = next(iter(inputs.values.values())) if isinstance(inputs, Fields) else inputs
    hidden = (values @ theta.view(3, 2)).tanh()
    return {"mean": hidden[:, :1], "rest": (hidden.square(), None)}


def piece(number: int, size: int, values: Any = None) -> Piece:
    targets = normal(size, 1, seed=number)

    def loss(outputs: Any) -> Tensor:
        error = (outputs["mean"] - targets).square().mean()
        return SHARES[number % 3] * (error + outputs["rest"][0].sum())

    inputs = normal(size, 3, seed=50 + number) if values is None else values
    return Piece(model, loss, inputs, True, number)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    most=st.integers(1, 40),
    is_field=st.booleans(),
)
def test_joined_pieces_have_the_sum_of_the_losses(
    sizes: list[int], most: int, is_field: bool
) -> None:
    pieces = [piece(number, size) for number, size in enumerate(sizes)]
    if is_field:
        pieces = [
            piece(number, len(one.inputs), Fields({"x": one.inputs, "mask": None}))
            for number, one in enumerate(pieces)
        ]
    theta = normal(6, seed=9).requires_grad_()
    found = joined(pieces, most)
    assert sum(len(one.inputs) for one in found) == sum(sizes)
    assert all(len(one.inputs) <= max(most, *sizes) for one in found)
    if sum(sizes) <= most:
        assert len(found) == 1
    total, expected = (
        torch.stack([one.value(theta) for one in of]).sum() for of in (found, pieces)
    )
    assert_close(total.detach(), expected.detach())
    slopes = [torch.autograd.grad(value, theta)[0] for value in (total, expected)]
    assert_close(*slopes)
    for one in found:  # as the checks evaluate them: the loss as a function of rows
        rows, loss_of = one.evaluate(theta.detach())
        assert_close(loss_of(rows), one.value(theta.detach()))


UNLIKE = {
    "length": (normal(4, 3), normal(4, 5)),
    "dtype": (normal(4, 3), normal(4, 3).float()),
    "names": (Fields({"x": normal(4, 3)}), Fields({"y": normal(4, 3)})),
    "number": (Fields({"x": normal(4, 3), "n": 1}), Fields({"x": normal(4, 3), "n": 2})),
    "containers": (Fields((normal(4, 3),)), Fields([normal(4, 3)])),
    "objects": (Fields({"x": normal(4, 3), "o": object()}),) * 2,
    "layout": (normal(4, 3).to_sparse(),) * 2,
}


@pytest.mark.parametrize("name", UNLIKE)
def test_inputs_that_are_not_alike_are_not_joined(name: str) -> None:
    pieces = [piece(number, 4, values) for number, values in enumerate(UNLIKE[name])]
    assert all(one is other for one, other in zip(joined(pieces, 100), pieces, strict=True))


def test_outputs_without_rows_are_not_joined() -> None:
    pieces = [Piece(model, lambda outputs: outputs["mean"].sum(), normal(4, 3), False, 0)] * 2
    assert len(joined(pieces, 100)) == 2


@pytest.mark.parametrize(
    ("graph_bytes", "expected"), [(0.0, 50), (1.0, 1024), (2.0**22 / 100, 100), (2.0**30, 50)]
)
def test_few_samples_are_evaluated_at_once_where_their_graph_is_large(
    graph_bytes: float, expected: int
) -> None:
    assert Work(1.0, 10, graph_bytes).num_at_once(50) == expected


class Limited(nn.Linear):
    """Refuses more samples than a buffer has rows, and counts its evaluations."""

    num_calls = 0
    most = 10

    def forward(self, inputs: Tensor) -> Tensor:
        Limited.num_calls += 1
        if len(inputs) > Limited.most:
            raise IndexError("too many samples")
        return super().forward(inputs).tanh()


@pytest.mark.parametrize("most", [10, 1000])
def test_many_small_batches_take_few_evaluations(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model cannot be evaluated on more samples, they are evaluated apart."""
    inputs, targets = normal(200, 4), labels(200, 3)
    data = list(zip(inputs.split(10), targets.split(10), strict=True))
    monkeypatch.setattr(Limited, "most", most)
    monkeypatch.setattr(Limited, "num_calls", 0)
    layer = Limited(4, 3).double()
    objective = Objective(layer, nn.CrossEntropyLoss(), data)
    counted = Limited.num_calls
    plain = Objective(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.CrossEntropyLoss(), data)
    found = hesspipe.hessian_matrix(objective)
    expected = hesspipe.hessian_matrix(plain.at(objective.theta))
    assert_close(found, expected)
    assert counted <= (9 if most == 1000 else 11) * len(data) + 10


def special(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().pow(2).mean()


@pytest.mark.parametrize("number", [0, 7, 19])
def test_batch_that_is_special_is_found_among_many(number: int) -> None:
    inputs, targets = normal(100, 4), normal(100, 3)
    model = network([4, 3], "tanh")
    place = 5 * number + 2
    with torch.no_grad():
        targets[place] = model(inputs)[place]
    data = list(zip(inputs.split(5), targets.split(5), strict=True))
    with pytest.raises(NotTwiceDifferentiableError, match=f"sample 2 of batch {number}"):
        Objective(model, special, data, denominator=lambda outputs, _: float(len(outputs)))
    rest = data[:number] + data[number + 1 :]
    objective = Objective(model, special, rest, denominator=lambda outputs, _: float(len(outputs)))
    assert objective.num_data == 95

"""Embeddings with padding_idx: the derivatives of torch, whatever else uses their weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import assert_close, labels
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

import hesspipe
from hesspipe import Objective
from hesspipe.objective.padding import constant_rows, held_rows, lookups, lookups_apart, used_parts

WORDS, WIDTH = 5, 3
TOKENS = torch.tensor([[0, 1, 2], [3, 3, 0], [4, 0, 0], [1, 2, 4], [2, 2, 2], [0, 4, 1]])
TARGETS = labels(6, WORDS)
OPERATORS = hesspipe.HessianOperator, hesspipe.GGNOperator, hesspipe.ResidualOperator


class Scaled(nn.Embedding):
    """Multiplies what torch's class returns, as in BART."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * 1.5


class Positions(nn.Embedding):
    """Counts positions from padding_idx, as in RoBERTa and fairseq."""

    def forward(self, tokens: Tensor) -> Tensor:
        assert self.padding_idx is not None
        is_word = tokens != self.padding_idx
        return super().forward((is_word.cumsum(1) * is_word + self.padding_idx) % WORDS)


class Words(nn.Module):
    """Predicts a word from words; subclasses say what else uses the embedding's weight."""

    def __init__(self, padding_idx: int | None, kind: type[nn.Embedding] = nn.Embedding) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = kind(WORDS, WIDTH, padding_idx=padding_idx)
        nn.init.normal_(self.first.weight)  # of padding, too
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.double()

    def hidden(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.middle(self.first(tokens).sum(1)).tanh()
        return hidden

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.linear(self.hidden(tokens), self.first.weight)


class TiedHead(Words):
    """The output layer is a module with the same weight."""

    def __init__(self, padding_idx: int | None, kind: type[nn.Embedding] = nn.Embedding) -> None:
        super().__init__(padding_idx, kind)
        self.last = nn.Linear(WIDTH, WORDS, bias=False)
        self.last.weight = self.first.weight

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.last(self.hidden(tokens))
        return output


class EncoderDecoder(TiedHead):
    """A second embedding has the weight, too, with a row of padding of its own or the same."""

    def __init__(self, padding_idx: int | None, other: int | None) -> None:
        super().__init__(padding_idx, Scaled)
        self.second = nn.Embedding(WORDS, WIDTH, padding_idx=other)
        self.second.weight = self.first.weight

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.last(self.hidden(tokens) * self.second(tokens.flip(1)).mean(1))
        return output


class Untied(Words):
    """Nothing else uses the weight."""

    def __init__(self, padding_idx: int | None, kind: type[nn.Embedding] = nn.Embedding) -> None:
        super().__init__(padding_idx, kind)
        self.last = nn.Linear(WIDTH, WORDS).double()

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.last(self.hidden(tokens))
        return output


class Penalized(Untied):
    """The weight is used again for one batch only, which has word 4 first."""

    def forward(self, tokens: Tensor) -> Tensor:
        outputs = super().forward(tokens)
        return outputs * self.first.weight.square().sum() if tokens[0, 0] == 4 else outputs


class ByIndex(Words):
    """Looks rows up by indexing, which has no padding."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) + self.first.weight[tokens].sum((1, 2)).unsqueeze(1)


def computed(padding_idx: int) -> nn.Module:
    model = Untied(padding_idx)
    parametrize.register_parametrization(model.first, "weight", nn.Tanh())
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "untied": lambda: Untied(0),
    "untied, scaled": lambda: Untied(1, Scaled),
    "untied, positions": lambda: Untied(1, Positions),
    "computed weight": lambda: computed(0),
    "a function shares the weight": lambda: Words(0),
    "indexing shares the weight": lambda: ByIndex(2),
    "a head shares the weight": lambda: TiedHead(0),
    "a head shares the weight, from the end": lambda: TiedHead(-1),
    "a head shares the weight, scaled": lambda: TiedHead(2, Scaled),
    "a head shares the weight, positions": lambda: TiedHead(1, Positions),
    "two embeddings and a head": lambda: EncoderDecoder(0, 0),
    "two rows of padding": lambda: EncoderDecoder(0, 3),
    "one embedding without padding": lambda: EncoderDecoder(0, None),
}


def references(model: nn.Module) -> list[Tensor]:
    """H, G and R of the original model from double backward in plain torch."""
    parameters = list(model.parameters())

    def slopes(value: Tensor, **options: bool) -> Tensor:
        found = torch.autograd.grad(value, parameters, materialize_grads=True, **options)
        return torch.cat([slope.flatten() for slope in found])

    def hessian(value: Tensor) -> Tensor:
        return torch.stack(
            [slopes(one, retain_graph=True) for one in slopes(value, create_graph=True)]
        )

    outputs = model(TOKENS)
    jacobian = torch.stack([slopes(one, retain_graph=True) for one in outputs.flatten()])
    rows = outputs.detach().requires_grad_()
    loss = functional.cross_entropy(rows, TARGETS)
    (errors,) = torch.autograd.grad(loss, rows, create_graph=True)
    curvature = torch.stack(
        [torch.autograd.grad(e, rows, retain_graph=True)[0].flatten() for e in errors.flatten()]
    )
    whole = hessian(functional.cross_entropy(model(TOKENS), TARGETS))
    return [whole, jacobian.T @ curvature @ jacobian, hessian((errors.detach() * outputs).sum())]


def objective_of(model: nn.Module, **options: Any) -> Objective:
    return Objective(model, nn.CrossEntropyLoss(), (TOKENS, TARGETS), **options)


@pytest.mark.parametrize("name", MODELS)
def test_matrices_with_padding_are_those_of_double_backward(name: str) -> None:
    model = MODELS[name]()
    objective = objective_of(model)
    identity = torch.eye(objective.num_parameters, dtype=torch.float64)
    found = [operator(objective) @ identity for operator in OPERATORS]
    expected = references(model)
    assert_close(expected[0], expected[0].T, factor=200)
    for matrix, of_torch in zip(found, expected, strict=True):
        assert_close(matrix, of_torch, factor=200)
    dense = hesspipe.hessian_matrix(objective)
    assert_close(dense, expected[0], factor=200)
    assert not dense[~objective.is_varied].any()


@pytest.mark.parametrize("name", MODELS)
def test_is_varied_is_false_only_where_the_row_has_no_other_use(name: str) -> None:
    objective = objective_of(MODELS[name]())
    has_constants = name.startswith("untied")
    assert int((~objective.is_varied).sum()) == WIDTH * has_constants


def test_other_uses_of_the_weight_are_found_in_any_batch() -> None:
    model = Penalized(0)
    data = [(TOKENS[:2], TARGETS[:2]), (TOKENS[2:4], TARGETS[2:4])]
    assert not Objective(model, nn.CrossEntropyLoss(), data[:1]).is_varied.all()
    objective = Objective.from_batches(
        model,
        lambda net, batch: functional.cross_entropy(net(batch[0]), batch[1]),
        data,
        num_samples=lambda batch: len(batch[1]),
    )
    assert objective.is_varied.all()


@pytest.mark.parametrize("name", ["a function shares the weight", "two rows of padding"])
def test_loss_elsewhere_is_that_of_the_model_there(name: str) -> None:
    model = MODELS[name]()
    objective = objective_of(model)
    theta = objective.theta + 0.1
    nn.utils.vector_to_parameters(theta, model.parameters())
    expected = functional.cross_entropy(model(TOKENS), TARGETS).detach()
    assert_close(objective.loss(theta).reshape(1), expected.reshape(1))
    identity = torch.eye(objective.num_parameters, dtype=torch.float64)
    there = hesspipe.HessianOperator(objective.at(theta)) @ identity
    assert_close(there, references(model)[0], factor=200)


def test_padding_of_none_differentiates_the_lookup_of_padding_too() -> None:
    """The outputs are equal; the matrices differ just where padding is in the data."""
    with_padding, without = TiedHead(0), TiedHead(None)
    for tokens, is_equal in ((TOKENS, False), (TOKENS.clamp(1), True)):
        assert torch.equal(with_padding(tokens), without(tokens))
        first, second = (
            hesspipe.hessian_matrix(Objective(m, nn.CrossEntropyLoss(), (tokens, TARGETS)))
            for m in (with_padding, without)
        )
        assert torch.equal(first, second) == is_equal


def test_weight_decay_moves_a_row_of_padding_that_has_another_use() -> None:
    for model, is_tied in ((TiedHead(0), True), (Untied(0), False)):
        plain, decayed = (
            hesspipe.hessian_matrix(objective_of(model, weight_decay=decay)) for decay in (0, 0.5)
        )
        expected = torch.full((len(plain),), 0.5, dtype=torch.float64)
        expected[:WIDTH] *= is_tied
        assert_close(decayed - plain, torch.diag(expected), factor=200)


def test_lookups_keep_the_kind_and_the_settings_of_their_embeddings() -> None:
    structure = nn.ModuleList([Scaled(4, 2, padding_idx=1), nn.Embedding(4, 2, padding_idx=-1)])
    rows = constant_rows(structure, {id(v): n for n, v in structure.named_parameters()})
    assert rows == {"0.weight": 1, "1.weight": 3}
    assert [type(module).__name__ for module in structure] == ["Scaled", "Embedding"]
    assert isinstance(structure[0], Scaled)
    assert [module.padding_idx for module in lookups(structure)] == [1, 3]


def test_lookups_hold_rows_and_stand_apart_only_inside() -> None:
    structure = nn.ModuleList([nn.Embedding(4, 2, padding_idx=0)])
    constant_rows(structure, {})
    (lookup,) = lookups(structure)
    with held_rows(structure, [torch.full((2,), 7.0)]):
        assert lookup(torch.tensor([0])).tolist() == [[7.0, 7.0]]
    with lookups_apart(structure):
        assert not lookup(torch.tensor([1])).requires_grad
    assert torch.equal(lookup(torch.tensor([0, 1])), lookup.weight[:2])
    assert lookup(torch.tensor([1])).requires_grad


def test_used_parts_are_those_that_the_value_has_a_graph_to() -> None:
    theta = torch.ones(6, requires_grad=True)
    first, second, third = theta.split([1, 2, 3])
    assert used_parts((first * 0 + third.detach().sum() + second.sum()).sum()) == {0, 1}
    assert used_parts(theta.sum()) == set()
    assert used_parts(torch.ones(())) == set()

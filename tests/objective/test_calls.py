"""The model is called as its forward method can be, whatever holds the inputs."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from dense_reference import reference_matrices
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.objective.objective import Objective


class Parts(NamedTuple):
    """Two inputs with names."""

    a: Any
    b: Any


class Two(nn.Module):
    """Two inputs, of which the second scales the hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 2), nn.Linear(2, 3)
        self.double()

    def of(self, a: Tensor, b: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.first(a).tanh() * b)
        return outputs


class ByName(Two):
    """Two arguments and an option."""

    def forward(self, a: Tensor, b: Tensor, mask: Any = None) -> Tensor:
        assert mask is None or mask.dtype == torch.bool
        return self.of(a, b)


class ByAnyName(Two):
    """Any keywords."""

    def forward(self, **kwargs: Tensor) -> Tensor:
        return self.of(kwargs["a"], kwargs["b"])


class OneMapping(Two):
    """One mapping of both."""

    def forward(self, batch: Any) -> Tensor:
        return self.of(batch["a"], batch["b"])


class MappingAndOptions(Two):
    """One mapping, and options with defaults."""

    def forward(self, features: Any, scale: float = 1.0, *, mode: str = "") -> Tensor:
        return self.of(scale * features["a"], features["b"])


class Nested(Two):
    """One mapping of a mapping and a tuple."""

    def forward(self, batch: Any) -> Tensor:
        return self.of(batch["node"]["a"], batch["others"][1])


class NestedByName(Two):
    """A mapping and a tuple by name."""

    def forward(self, node: Any, others: Any) -> Tensor:
        return self.of(node["a"], others[1])


A, B, Y = normal(6, 3), normal(6, 2, seed=3), labels(6, 3)
NESTED = {"node": {"a": A}, "others": (None, B, "text", 7)}
CALLS: dict[str, tuple[type[Two], Any]] = {
    "tuple": (ByName, (A, B)),
    "list": (ByName, [A, B]),
    "named tuple": (ByName, Parts(A, B)),
    "keywords": (ByName, {"b": B, "a": A}),
    "keywords and mask": (ByName, {"mask": torch.ones(6, 1, dtype=torch.bool), "b": B, "a": A}),
    "keywords of a UserDict": (ByName, UserDict(a=A, b=B)),
    "any keywords": (ByAnyName, {"a": A, "b": B}),
    "one mapping": (OneMapping, {"a": A, "b": B}),
    "one ordered mapping": (OneMapping, OrderedDict(a=A, b=B)),
    "one read-only mapping": (OneMapping, MappingProxyType({"a": A, "b": B})),
    "one mapping with numbers as keys": (OneMapping, {"a": A, "b": B, 0: A}),
    "one default mapping": (OneMapping, defaultdict(list, a=A, b=B)),
    "one mapping in a tuple": (OneMapping, ({"a": A, "b": B},)),
    "mapping and options": (MappingAndOptions, {"a": A, "b": B}),
    "mapping and an option": (MappingAndOptions, ({"a": A, "b": B}, 1.0)),
    "nested": (Nested, NESTED),
    "nested by name": (NestedByName, NESTED),
    "arrays": (Nested, {"node": {"a": A.numpy()}, "others": [None, B.numpy()]}),
}


def rows_of(values: Any, rows: slice) -> Any:
    """Cut nested inputs independently of the code under test."""
    if isinstance(values, (Tensor, type(A.numpy()))):
        return values[rows]
    if hasattr(values, "keys"):
        return {key: rows_of(values[key], rows) for key in values}
    if isinstance(values, (tuple, list)):
        return [rows_of(value, rows) for value in values]
    return values


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("splits", [[6], [1, 3, 2]])
def test_objective_calls_the_model_with_all_inputs(call: str, splits: list[int]) -> None:
    build, inputs = CALLS[call]
    model = build()
    expected = reference_matrices(
        model, lambda model: model.of(A, B), lambda outputs: functional.cross_entropy(outputs, Y)
    )
    edges = [sum(splits[:count]) for count in range(len(splits) + 1)]
    slices = [slice(*edge) for edge in pairwise(edges)]
    data = (inputs, Y) if len(splits) == 1 else [(rows_of(inputs, s), Y[s]) for s in slices]
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    assert objective.num_data == 6
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"], factor=100)
    assert_close(hesspipe.ggn_matrix(objective), expected["ggn"], factor=100)


@pytest.mark.parametrize(
    ("build", "inputs", "message"),
    [
        (ByName, {"a": A, "c": B}, r"fit the model's forward\(a.*got the names a, c; use its name"),
        (ByName, A, r"fit the model's forward\(a.*got 1 of them"),
        (OneMapping, (A, B), "got 2 of them"),
        (
            ByName,
            {"a": {"x": A}, "b": {"y": B[:3]}},
            r"got rows \{\"a\['x'\]\": 6, \"b\['y'\]\": 3",
        ),
        (ByName, {"a": {"x": "text"}, "b": 3}, "at least one tensor"),
    ],
)
def test_objective_refuses_inputs_that_do_not_fit_forward(
    build: type[Two], inputs: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(build(), nn.CrossEntropyLoss(), (inputs, Y))


class Slopes(nn.Module):
    """Its outputs are derivatives of a function of its inputs, or of what a layer returns."""

    def __init__(self, place: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.place, self.first, self.last = place, nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.detach().requires_grad_(self.place == "inputs")
        hidden = self.first(inputs)
        point = inputs if self.place == "inputs" else hidden
        (slopes,) = torch.autograd.grad(self.last(hidden.tanh()).sum(), point, create_graph=True)
        return slopes


@pytest.mark.parametrize("place", ["inputs", "hidden"])
def test_models_that_differentiate_are_called_as_in_a_training(place: str) -> None:
    model, generator = Slopes(place).double(), torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(6, 4 if place == "inputs" else 3, generator=generator).double()
    objective = Objective(model, nn.MSELoss(), (inputs, targets))
    parameters = [*model.parameters()][:3]  # the last bias has no effect
    vector = torch.randn(objective.num_parameters, generator=generator).double()
    slopes = torch.autograd.grad(
        nn.functional.mse_loss(model(inputs), targets), parameters, create_graph=True
    )
    flat = torch.cat([slope.flatten() for slope in slopes])
    expected = torch.autograd.grad(flat @ vector[:-1], parameters)
    found = hesspipe.HessianOperator(objective) @ vector
    torch.testing.assert_close(found[:-1], torch.cat([part.flatten() for part in expected]))
    assert float(objective.loss(objective.theta).detach()) > 0

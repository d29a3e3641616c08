"""Matrices where a model or its data hold tensors that are not dense floats."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.objective.objective import Objective

N = 12
NEIGHBORS = torch.eye(N, dtype=torch.float64) + (normal(N, N, seed=3) > 0.5)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "coordinates": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
    "csc": Tensor.to_sparse_csc,
}


class Graph(nn.Module):
    """Sums what two layers give over the neighbors of each sample."""

    def __init__(self, neighbors: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        self.register_buffer("neighbors", neighbors)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.neighbors @ self.layers(inputs)


class Slope(nn.Module):
    """Derivative of the outputs along a direction, by forward mode inside the model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def forward(self, inputs: Tensor) -> Tensor:
        slope: Tensor = torch.func.jvp(self.layers, (inputs,), (torch.ones_like(inputs),))[1]
        return slope


class SlopeOfTanh(Slope):
    """The same, written out."""

    def forward(self, inputs: Tensor) -> Tensor:
        first, _, last = self.layers
        hidden = torch.tanh(first(inputs))
        change = nn.functional.linear(torch.ones_like(inputs), first.weight)
        return nn.functional.linear((1 - hidden.square()) * change, last.weight)


def assert_same_matrices(model: nn.Module, same: nn.Module, targets: Tensor, plain: Tensor) -> None:
    inputs, loss = normal(N, 4), nn.CrossEntropyLoss()
    found, expected = (
        Objective(network, loss, (inputs, given))
        for network, given in ((model, targets), (same, plain))
    )
    for matrix in (hesspipe.hessian_matrix, hesspipe.ggn_matrix, hesspipe.residual_matrix):
        assert_close(matrix(found), matrix(expected), factor=500)
    vectors = normal(found.num_parameters, 3, seed=2)
    products = hesspipe.HessianOperator(found) @ vectors
    assert_close(products, hesspipe.hessian_matrix(expected) @ vectors, factor=500)


@pytest.mark.filterwarnings("ignore:Sparse CS[RC] tensor support is in beta")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse_buffer_has_the_matrices_of_a_dense_one(layout: str) -> None:
    targets = labels(N, 3)
    sparse = Graph(LAYOUTS[layout](NEIGHBORS))
    assert_same_matrices(sparse, Graph(NEIGHBORS), targets, targets)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_in_the_model_has_the_matrices_of_its_formula() -> None:
    targets = labels(N, 3)
    assert_same_matrices(Slope(), SlopeOfTanh(), targets, targets)


def test_labels_of_uint8_have_the_matrices_of_int64() -> None:
    targets = labels(N, 3)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    assert_same_matrices(model, model, targets.to(torch.uint8), targets)

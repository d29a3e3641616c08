"""Random architectures, losses, batches and dtypes against a dense reference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from dense_reference import reference_matrices
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import labels, normal
from torch import Tensor, nn

from hesspipe.curvature import columns
from hesspipe.curvature.dense import exact_matrix
from hesspipe.objective.objective import Objective

NUM_CLASSES = 3
CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def ignoring(targets: Tensor) -> Tensor:
    targets = targets.clone()
    targets[::4] = -100
    return targets


LOSSES = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "class weights": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
    "ignored labels": nn.CrossEntropyLoss(),
    "both": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, label_smoothing=0.1),
    "squares": nn.MSELoss(),
    "logistic": nn.BCEWithLogitsLoss(pos_weight=CLASS_WEIGHTS),
    "huber": nn.HuberLoss(delta=0.7),
}


def targets_of(loss: str, num_samples: int) -> Tensor:
    if loss in ("squares", "huber"):
        return normal(num_samples, NUM_CLASSES, seed=5)
    if loss == "logistic":
        return normal(num_samples, NUM_CLASSES, seed=5).sigmoid()
    classes = labels(num_samples, NUM_CLASSES)
    return ignoring(classes) if loss in ("ignored labels", "both") else classes


class Tokens(nn.Module):
    """A transformer's layer over 3 places, with fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(2, 1, 3, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.layer(inputs.view(-1, 3, 2)).flatten(1))
        return outputs


def convolutional(activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, 2), activation(), nn.Flatten(),
        nn.Linear(4, NUM_CLASSES),
    )  # fmt: skip


def normalized(activation: Callable[[], nn.Module]) -> nn.Module:
    model = nn.Sequential(
        nn.Linear(6, 3), nn.BatchNorm1d(3), activation(), nn.Linear(3, NUM_CLASSES)
    )
    model(normal(20, 6, seed=7).float())
    return model


ARCHITECTURES: dict[str, Callable[[Callable[[], nn.Module]], nn.Module]] = {
    "mlp": lambda activation: nn.Sequential(
        nn.Linear(6, 3), activation(), nn.Linear(3, 2), activation(), nn.Linear(2, NUM_CLASSES)
    ),
    "convolutional": convolutional,
    "batch norm": normalized,
    "layer norm": lambda activation: nn.Sequential(
        nn.Linear(6, 3), nn.LayerNorm(3), activation(), nn.Linear(3, NUM_CLASSES)
    ),
    "recurrent": lambda activation: nn.Sequential(
        nn.Unflatten(1, (2, 3)), LastState(), activation(), nn.Linear(2, NUM_CLASSES)
    ),
    "tokens": lambda activation: Tokens(),
    "linear": lambda activation: nn.Linear(6, NUM_CLASSES),
}
ACTIVATIONS = {
    "tanh": nn.Tanh,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}


class LastState(nn.Module):
    """The last state of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(3, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        states: Tensor = self.cell(inputs)[0]
        return states[:, -1]


def build(architecture: str, activation: str, seed: int) -> nn.Module:
    """A network in float64 at a random point, in evaluation mode."""
    model = ARCHITECTURES[architecture](ACTIVATIONS[activation]).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
    return model


def splits_of(num_samples: int, cuts: list[int]) -> list[int]:
    edges = [0, *sorted({cut % num_samples for cut in cuts} - {0}), num_samples]
    return [stop - start for start, stop in pairwise(edges)]


def batched(inputs: Tensor, targets: Tensor, splits: list[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(splits), targets.split(splits), strict=True))


@pytest.mark.parametrize("loss", ["mean", "class weights", "ignored labels", "both"])
@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_products_do_not_depend_on_the_batches_or_their_order(loss: str, matrix: str) -> None:
    model, inputs, targets = build("mlp", "tanh", 0), normal(23, 6), targets_of(loss, 23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(3))
    vectors = normal(4, sum(parameter.numel() for parameter in model.parameters()), seed=8)
    ways = {
        "whole": (inputs, targets),
        "ragged": batched(inputs, targets, [8, 8, 7]),
        "single": batched(inputs, targets, [1] * 23),
        "shuffled": batched(inputs[order], targets[order], [10, 3, 10]),
    }
    products = {
        way: columns.multiply(Objective(model, LOSSES[loss], data), matrix, vectors)
        for way, data in ways.items()
    }
    scale = torch.finfo(torch.float64).eps * float(products["whole"].norm())
    for way, product in products.items():
        error = float((product - products["whole"]).norm())
        assert error <= 20 * scale, f"{way} differs by {error:.1e}"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    architecture=st.sampled_from(sorted(ARCHITECTURES)),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    loss=st.sampled_from(sorted(LOSSES)),
    num_samples=st.integers(2, 7),
    cuts=st.lists(st.integers(0, 6), max_size=3),
    dtype=st.sampled_from([torch.float64, torch.float64, torch.float32]),
    seed=st.integers(0, 2**16),
)
def test_any_objective_has_the_matrices_of_the_reference(
    architecture: str, activation: str, loss: str, num_samples: int, cuts: list[int],
    dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    model = build(architecture, activation, seed)
    inputs, targets = normal(num_samples, 6, seed=seed), targets_of(loss, num_samples)
    if loss in ("ignored labels", "both"):
        targets[1] = 2  # one valid label at least
    mean: Any = copy.deepcopy(LOSSES[loss]).double()
    expected = reference_matrices(
        model, lambda model: model(inputs), lambda outputs: mean(outputs, targets)
    )
    data = batched(inputs, targets, splits_of(num_samples, cuts))
    objective = Objective(model, LOSSES[loss], data, dtype=dtype)
    vectors = normal(2, objective.num_parameters, seed=seed)
    # Cancellation determines the rounding: a layer norm of nearly equal numbers amplifies it.
    scale = max(float(matrix.norm()) for matrix in expected.values()) + 1e-3
    tolerance = 1e3 * torch.finfo(dtype).eps * scale
    for name, matrix in expected.items():
        found = exact_matrix(objective, name).values.double()
        assert float((found - matrix).abs().max()) <= tolerance, name
        product = columns.multiply(objective, name, vectors.to(dtype)).double()
        assert float((product - vectors @ matrix).norm()) <= tolerance * float(vectors.norm()), name

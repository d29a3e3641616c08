"""Operators against dense matrices computed independently, for any batching, dtype and budget."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, assert_close, labels, network, normal
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature import products
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import (
    OPERATORS,
    GGNOperator,
    HessianOperator,
    ResidualOperator,
)
from hesspipe.curvature.products import BatchProduct, require_adjoint
from hesspipe.objective.objective import Objective


class LayerNormNetwork(nn.Module):
    """A network for which forward-over-reverse differentiation by torch.func is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(inputs))))


def dense(objective: Objective, matrix: str) -> Tensor:
    """H or R, column by column, as the Hessian of a scalar function of theta."""

    def function(theta: Tensor) -> Tensor:
        losses = []
        for batch in objective.batches:
            outputs = objective.outputs(theta, batch.inputs)
            if matrix == "hessian":
                part = batch.share * objective.loss_fn(outputs, batch.targets)
            else:
                fixed = outputs.detach().requires_grad_()
                loss = batch.share * objective.loss_fn(fixed, batch.targets)
                (slopes,) = torch.autograd.grad(loss, fixed)
                part = (slopes * outputs).sum()
            losses.append(part)
        return torch.stack(losses).sum()

    return torch.autograd.functional.hessian(function, objective.theta)


@pytest.fixture(params=["relu", "tanh", "layer norm"])
def objective(request: pytest.FixtureRequest) -> Objective:
    torch.manual_seed(0)
    model = (
        LayerNormNetwork() if request.param == "layer norm" else network([4, 5, 3], request.param)
    )
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]))
    pairs = zip(normal(11, 4).split([4, 6, 1]), labels(11, 3).split([4, 6, 1]), strict=True)
    return Objective(model, loss_fn, pairs)


@pytest.mark.parametrize("block_bytes", [0, 10_000, 2**30])
def test_operator_times_identity_is_the_matrix(objective: Objective, block_bytes: int) -> None:
    identity = torch.eye(objective.num_parameters, dtype=torch.float64)
    hessian, residual = dense(objective, "hessian"), dense(objective, "residual")
    expected = {"hessian": hessian, "residual": residual, "ggn": hessian - residual}
    for name, make in OPERATORS.items():
        operator = make(objective, block_bytes=block_bytes)
        for found in (operator @ identity, operator @ identity):  # built, then kept
            assert (found - expected[name]).abs().max() <= 20 * EPS * hessian.norm()
        one_by_one = torch.stack([operator @ column for column in identity], dim=1)
        assert (one_by_one - expected[name]).abs().max() <= 20 * EPS * hessian.norm()


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0])),
        nn.CrossEntropyLoss(ignore_index=1),
    ],
    ids=["mean", "sum", "weights", "ignore"],
)
@pytest.mark.parametrize("matrix", OPERATORS)
def test_product_does_not_depend_on_batches_or_order(loss_fn: nn.Module, matrix: str) -> None:
    inputs, targets, model = normal(20, 4), labels(20, 3), network([4, 6, 3], "tanh")
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    vector = normal(model_size := sum(p.numel() for p in model.parameters()), seed=4)
    assert len(vector) == model_size
    products = []
    for index, splits in (
        (torch.arange(20), [20]),
        (torch.arange(20), [7, 7, 6]),
        (order, [13, 7]),
    ):
        batches = zip(inputs[index].split(splits), targets[index].split(splits), strict=True)
        products.append(OPERATORS[matrix](Objective(model, loss_fn, batches)) @ vector)
    for product in products[1:]:
        assert_close(product, products[0], factor=20)


@pytest.mark.parametrize("matrix", OPERATORS)
def test_float32_product_is_the_float64_one_to_float32_rounding(matrix: str) -> None:
    model, data = network([4, 6, 3], "tanh"), (normal(20, 4), labels(20, 3))
    operators = [
        OPERATORS[matrix](Objective(model, nn.CrossEntropyLoss(), data, dtype=dtype))
        for dtype in (torch.float32, torch.float64)
    ]
    vector = normal(operators[0].shape[0])
    found = operators[0] @ vector.float()
    expected = operators[1] @ vector
    assert found.dtype == operators[0].dtype == torch.float32
    eps = torch.finfo(torch.float32).eps
    scale = (operators[1] @ torch.eye(len(vector), dtype=torch.float64)).norm() * vector.norm()
    assert (found.double() - expected).norm() <= 10 * eps * scale


def test_numpy_and_scipy_see_the_same_operator(make_objective: Callable[..., Objective]) -> None:
    operator = HessianOperator(make_objective())
    block = normal(operator.shape[0], 3)
    from_numpy = operator @ block.numpy()
    assert isinstance(from_numpy, np.ndarray)
    assert_close(torch.from_numpy(from_numpy), operator @ block, factor=2)
    linear = operator.to_scipy()
    assert linear.dtype == np.float64
    assert linear.shape == operator.shape
    expected = torch.linalg.eigvalsh(hesspipe.hessian_matrix(operator.objective))
    found = eigsh(linear, k=3, which="LA", return_eigenvectors=False, v0=np.ones(len(block)))
    assert np.abs(found - expected[-3:].numpy()).max() <= 1e-10 * float(expected.abs().max())
    assert_close(torch.from_numpy(linear.T @ block.numpy()), operator @ block, factor=2)


def test_frozen_parameters_have_no_rows() -> None:
    model, data = network([4, 5, 3]), (normal(9, 4), labels(9, 3))
    whole = Objective(model, nn.CrossEntropyLoss(), data)
    next(iter(model.parameters())).requires_grad_(False)
    part = Objective(model, nn.CrossEntropyLoss(), data)
    vector = normal(23)
    padded = torch.cat([torch.zeros(20, dtype=torch.float64), vector])
    for make in OPERATORS.values():
        product = make(part) @ vector
        assert_close(product, (make(whole) @ padded)[20:])
        assert product.norm() > 0 or make is ResidualOperator


def test_product_changes_nothing_of_the_caller(make_objective: Callable[..., Objective]) -> None:
    model = network([4, 5, 3])
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(9, 4), labels(9, 3)))
    vector = torch.ones(objective.num_parameters, dtype=torch.float64, requires_grad=True)
    product = HessianOperator(objective) @ vector
    assert not product.requires_grad
    assert vector.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_graphs_are_kept_within_the_budget_only(objective: Objective) -> None:
    sizes = [BatchProduct(objective, Matrix.GGN, batch).graph_bytes for batch in objective.batches]
    # At least the activations of the first layer, for each sample of the batch.
    assert sizes[1] > sizes[0] > 4 * 5 * 8
    assert sizes[1] < 100 * sizes[0]
    operator = GGNOperator(objective, block_bytes=sum(sizes) - 1)
    operator @ objective.theta
    assert operator._kept_bytes == sum(sizes[:2])
    assert sorted(operator._kept) == [0, 1]


@pytest.mark.parametrize("block_bytes", [0, 10_000, 2**30])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("num_columns", [1, 3])
def test_ggn_product_checks_the_jacobian_once_for_every_batch_and_theta(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, stream: bool, num_columns: int
) -> None:
    data = [(normal(size, 4, seed=size), labels(size, 3)) for size in (2, 5, 9)]
    objective = Objective(network([4, 6, 3], "tanh"), nn.CrossEntropyLoss(), data, stream=stream)
    outcomes = []

    def noted(*arguments: Any) -> bool:
        outcomes.append(require_adjoint(*arguments))
        return outcomes[-1]

    monkeypatch.setattr(products, "require_adjoint", noted)
    operator = GGNOperator(objective, block_bytes=block_bytes)
    vectors = normal(objective.num_parameters, num_columns)
    operator @ torch.zeros_like(vectors)
    assert outcomes
    assert not any(outcomes)  # 0 = 0 says nothing
    outcomes.clear()
    operator @ vectors
    operator @ vectors
    assert outcomes == 3 * [True]
    operator.at(objective.at(objective.theta + 0.1)) @ vectors
    assert outcomes == 6 * [True]


@pytest.mark.parametrize("block_bytes", [0, 10_000, 2**30])
def test_operator_at_another_theta_is_that_of_the_objective_there(
    objective: Objective, block_bytes: int
) -> None:
    identity = torch.eye(objective.num_parameters, dtype=torch.float64)
    moved = objective.at(objective.theta + 0.1)
    for name, make in OPERATORS.items():
        operator = make(objective, block_bytes=block_bytes)
        before = operator @ identity
        there = operator.at(moved)
        assert there._graph_bytes == operator._graph_bytes
        assert torch.equal(there @ identity, make(moved, block_bytes=block_bytes) @ identity)
        assert torch.equal(operator @ identity, before), name


@pytest.mark.parametrize("num_batches", [1, 3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_of_the_hessian_operator_is_that_of_the_objective(
    num_batches: int, weight_decay: float, reduction: str
) -> None:
    inputs, targets, model = normal(12, 4), labels(12, 3), network([4, 6, 3], "tanh")
    parts = zip(inputs.chunk(num_batches), targets.chunk(num_batches), strict=True)
    loss_fn = nn.CrossEntropyLoss(reduction=reduction)
    objective = Objective(model, loss_fn, parts, weight_decay=weight_decay)
    with torch.no_grad():
        squares = sum(float(part.square().sum()) for part in model.parameters())
        expected = float(loss_fn(model(inputs), targets)) + weight_decay / 2 * squares
    assert HessianOperator(objective).loss() == pytest.approx(expected, rel=20 * EPS)


def test_errors_name_the_argument_and_its_value(make_objective: Callable[..., Objective]) -> None:
    objective = make_objective()
    size = objective.num_parameters
    operator = HessianOperator(objective)
    with pytest.raises(ValueError, match=rf"shape \({size},\) or \({size}, K\), got \(3,\)"):
        operator @ torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must be torch.float64 on cpu.*got torch.float32"):
        operator @ torch.ones(size)
    with pytest.raises(ValueError, match="vectors must be finite"):
        operator @ torch.full((size,), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="block_bytes must be at least 0, got -1"):
        HessianOperator(objective, block_bytes=-1)


def test_product_that_is_not_finite_names_batch_and_parameter() -> None:
    inputs, model = normal(6, 4), network([4, 5, 3])
    inputs[5] = 1e160  # the loss is finite, but the square in H is not
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1e-200)
    batches = zip(inputs.split([3, 3]), normal(6, 3).split([3, 3]), strict=True)
    objective = Objective(model, nn.MSELoss(), batches)
    with pytest.raises(ValueError, match=r"hessian must be finite.*batch 1 by 1\.weight"):
        HessianOperator(objective) @ torch.ones(objective.num_parameters, dtype=torch.float64)


def test_progress_shows_vectors_and_batches(
    objective: Objective, capsys: pytest.CaptureFixture[str]
) -> None:
    HessianOperator(objective, progress=True) @ objective.theta.unsqueeze(1).expand(-1, 2)
    assert "hessian x 2: 100%" in capsys.readouterr().err

"""Exact matrices against closed forms, `torch.func.hessian`, and each other."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from curvature_reference import MATRICES, REFERENCES, reference_ggn, reference_hessian
from dense_reference import reference_matrices
from problems import EPS, assert_close, labels, network, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature import columns, linear
from hesspipe.curvature.dense import exact_matrix
from hesspipe.curvature.layers import find_layers
from hesspipe.errors import NotASumOverSamplesError, TooLargeError
from hesspipe.networks.architectures import initialize_normal
from hesspipe.objective.objective import Objective

# torch warns about torch.jit.script, which it uses itself, when it first differentiates forward.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


class Residual(nn.Module):
    """A skip connection, layers defined in another order than called, one without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)
        self.first = nn.Linear(4, 5, bias=False)
        self.middle = nn.Linear(5, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        return self.last(hidden + torch.relu(self.middle(hidden)))


class Convolutional(nn.Module):
    """Parameters outside Linear layers: only the general method applies."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 2, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.convolution(inputs.unsqueeze(1)))
        return self.head(hidden.flatten(1))


def _with_extreme_units() -> nn.Module:
    """A ReLU network with a unit that no sample reaches, and one that is always active."""
    model = network([4, 5, 3, 3])
    with torch.no_grad():
        model[1].bias[:2] = torch.tensor([-100.0, 100.0])
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: network([4, 5, 3, 3]),
    "tanh": lambda: network([4, 5, 3, 3], "tanh"),
    "dead unit": _with_extreme_units,
    "one layer": lambda: network([4, 3]),
    "skip connection": lambda: Residual().double(),
    "convolution": lambda: Convolutional().double(),
}
LOSSES: dict[str, tuple[nn.Module, Tensor]] = {
    "cross-entropy": (nn.CrossEntropyLoss(), labels(9, 3)),
    "class weights": (nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0])), labels(9, 3)),
    "squares": (nn.MSELoss(), normal(9, 3, seed=5)),
}


@functools.cache
def with_references(name: str, loss: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with its H, G and R, which do not depend on how the data are split."""
    model, (loss_fn, targets) = NETWORKS[name](), LOSSES[loss]
    objective = Objective(model, loss_fn, (normal(9, 4), targets))
    return model, {matrix: reference(objective) for matrix, reference in REFERENCES.items()}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("loss", ["cross-entropy", "class weights", "squares"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("splits", [[9], [4, 4, 1]])
def test_matrix_equals_its_reference(matrix: str, loss: str, name: str, splits: list[int]) -> None:
    loss_fn, targets = LOSSES[loss]
    batches = zip(normal(9, 4).split(splits), targets.split(splits), strict=True)
    model, references = with_references(name, loss)
    objective = Objective(model, loss_fn, batches)
    expected, scale = references[matrix], references["hessian"].norm()
    for method in ("columns",) if name == "convolution" else ("columns", "layers"):
        found = MATRICES[matrix](objective, method)
        assert (found - expected).abs().max() <= 20 * EPS * scale


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", ["relu", "dead unit", "tanh", "skip connection"])
@pytest.mark.parametrize("pair_cost", [-torch.inf, torch.inf])
@pytest.mark.parametrize("splits", [[9], [4, 4, 1]])
def test_blocks_of_a_layer_are_the_same_by_pairs_and_packed(
    matrix: str, name: str, pair_cost: float, splits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_PAIR_COST", pair_cost)
    loss_fn, targets = LOSSES["cross-entropy"]
    batches = zip(normal(9, 4).split(splits), targets.split(splits), strict=True)
    model, references = with_references(name, "cross-entropy")
    found = MATRICES[matrix](Objective(model, loss_fn, batches), "layers")
    assert (found - references[matrix]).abs().max() <= 20 * EPS * references["hessian"].norm()
    assert torch.equal(found, found.mT)


@pytest.mark.parametrize(("sizes", "by_pair"), [([40, 1], True), ([9, 30], False)])
def test_blocks_are_packed_where_units_share_the_products_of_inputs(
    sizes: list[int], by_pair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    for name in ("_blocks_by_pair", "_packed_blocks"):
        compute = getattr(linear, name)
        monkeypatch.setattr(
            linear, name, lambda *args, n=name, f=compute: used.append(n) or f(*args)
        )
    targets = normal(400, sizes[1])
    objective = Objective(network(sizes), nn.MSELoss(), (normal(400, sizes[0]), targets))
    weights = normal(5, objective.num_parameters)
    found = MATRICES["ggn"](objective, "layers")
    assert_close(weights @ found, columns.multiply(objective, "ggn", weights))
    assert used == ["_blocks_by_pair" if by_pair else "_packed_blocks"]


@pytest.mark.parametrize("method", ["columns", "layers"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_hessian_is_the_sum_of_ggn_and_residual(
    method: str, activation: str, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective([6, 8, 7, 4], activation, num_samples=30)
    hessian, ggn, residual = (MATRICES[name](objective, method) for name in MATRICES)
    assert residual.norm() > 0.01 * hessian.norm()  # the sum is a test only if both terms count
    assert_close(ggn + residual, hessian)


def test_methods_agree_at_the_size_of_the_paper(make_objective: Callable[..., Objective]) -> None:
    objective = make_objective([100, 30, 30, 10], num_samples=60)
    vectors = normal(5, objective.num_parameters, seed=7)
    for name, function in MATRICES.items():
        found = function(objective, "layers")
        assert_close(vectors @ found, columns.multiply(objective, name, vectors))


def test_hessian_of_linear_regression_is_the_second_moment_of_the_inputs() -> None:
    inputs, targets = normal(8, 3), normal(8, 2)
    objective = Objective(nn.Linear(3, 2, bias=False), nn.MSELoss(), (inputs, targets))
    # MSELoss divides by N * C elements: H = 2 / (N C) * I_C (x) X^T X
    expected = torch.kron(torch.eye(2, dtype=torch.float64), inputs.T @ inputs) * 2 / (8 * 2)
    for method in ("columns", "layers"):
        assert_close(hesspipe.hessian_matrix(objective, method), expected)
        assert hesspipe.residual_matrix(objective, method).norm() == 0


def test_hessian_of_softmax_regression_has_its_closed_form() -> None:
    inputs = normal(8, 3)
    model = nn.Linear(3, 4, bias=False).double()
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, labels(8, 4)))
    probabilities = model(inputs).softmax(1).detach()
    curvatures = (
        torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None]
    )
    expected = sum(
        torch.kron(curvature, torch.outer(sample, sample)) / 8
        for curvature, sample in zip(curvatures, inputs, strict=True)
    )
    for method in ("columns", "layers"):
        assert_close(hesspipe.ggn_matrix(objective, method), expected)
        assert_close(hesspipe.hessian_matrix(objective, method), expected)


@pytest.mark.parametrize("method", ["columns", "layers"])
def test_ggn_has_at_most_n_times_c_minus_1_nonzero_eigenvalues(
    method: str, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective([4, 5, 3, 3], "tanh", num_samples=3)
    eigenvalues = torch.linalg.eigvalsh(hesspipe.ggn_matrix(objective, method))
    floor = EPS * objective.num_parameters * eigenvalues.max()
    assert (eigenvalues > floor).sum() == 3 * (3 - 1)
    assert (eigenvalues < -floor).sum() == 0


def test_ggn_of_a_loss_that_is_not_convex_keeps_its_sign() -> None:
    def concave(outputs: Tensor, _: Tensor) -> Tensor:
        return -outputs.square().sum(1).mean()

    objective = Objective(network([4, 5, 3], "tanh"), concave, (normal(9, 4), labels(9, 3)))
    for method in ("columns", "layers"):
        found = hesspipe.ggn_matrix(objective, method)
        assert_close(found, reference_ggn(objective))
        assert found.trace() < 0


def test_residual_of_a_relu_network_has_no_block_of_a_layer_with_itself(
    make_objective: Callable[..., Objective],
) -> None:
    objective = make_objective([4, 5, 3, 3])
    residual = hesspipe.residual_matrix(objective, "columns")
    assert residual.norm() > 0
    for start, stop in ((0, 25), (25, 43), (43, 55)):
        assert residual[start:stop, start:stop].norm() == 0


def test_hessian_scales_with_the_loss(make_objective: Callable[..., Objective]) -> None:
    objective = make_objective()
    tiny = Objective(
        objective.model,
        lambda outputs, targets: 1e-9 * nn.functional.cross_entropy(outputs, targets),
        (objective.batches[0].inputs, objective.batches[0].targets),
    )
    for method in ("columns", "layers"):
        expected = 1e-9 * hesspipe.hessian_matrix(objective, method)
        assert_close(hesspipe.hessian_matrix(tiny, method), expected)


def test_permuting_hidden_units_permutes_the_hessian() -> None:
    model, data = network([4, 5, 3], "tanh"), (normal(9, 4), labels(9, 3))
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = network([4, 5, 3], "tanh")
    with torch.no_grad():
        permuted[1].weight.copy_(model[1].weight[order])
        permuted[1].bias.copy_(model[1].bias[order])
        permuted[3].weight.copy_(model[3].weight[:, order])
    places = torch.arange(25 + 18)
    places[:20] = places[:20].view(5, 4)[order].flatten()
    places[20:25] = places[20:25][order]
    places[25:40] = places[25:40].view(3, 5)[:, order].flatten()
    expected = hesspipe.hessian_matrix(Objective(model, nn.CrossEntropyLoss(), data))
    found = hesspipe.hessian_matrix(Objective(permuted, nn.CrossEntropyLoss(), data))
    assert_close(found, expected[places][:, places])


def test_unused_parameters_are_zero_rows_and_frozen_ones_have_none() -> None:
    model = network([4, 5, 3])
    model[1].bias.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(9, 4), labels(9, 3)))
    assert objective.names == ["unused", "1.weight", "3.weight", "3.bias"]
    is_zero = torch.arange(40) < 2
    for function in MATRICES.values():
        found = function(objective)
        assert found.shape == (40, 40)
        assert (found[is_zero] == 0).all()
        assert (found[:, is_zero] == 0).all()
        assert found.norm() > 0


class UsedTwice(nn.Module):
    """A Linear layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(inputs)))


class UsedElsewhere(UsedTwice):
    """A Linear layer that is called once, and whose weight is also used outside it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(torch.tanh(inputs @ self.layer.weight))


class CalledByKeyword(UsedTwice):
    """A Linear layer whose input is a keyword argument, which forward hooks do not see."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(input=inputs)


class Centered(UsedTwice):
    """Each sample's outputs depend on the whole batch."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs - inputs.mean(0))


@pytest.mark.parametrize(
    "build", [UsedTwice, UsedElsewhere, CalledByKeyword, Centered, Convolutional]
)
def test_layers_method_is_not_used_where_it_would_be_wrong(build: type[nn.Module]) -> None:
    dim = 4 if build is Convolutional else 3
    objective = Objective(build().double(), nn.CrossEntropyLoss(), (normal(9, dim), labels(9, 3)))
    assert find_layers(objective) == []
    found = exact_matrix(objective, "hessian")
    assert found.method == "columns"
    assert_close(found.values, reference_hessian(objective))
    with pytest.raises(ValueError, match="use method='columns'"):
        hesspipe.hessian_matrix(objective, "layers")


def test_layers_method_is_used_where_it_applies(make_objective: Callable[..., Objective]) -> None:
    assert exact_matrix(make_objective(), "residual").method == "layers"


NORMALIZED = {
    "LayerNorm": lambda: nn.LayerNorm(6),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "BatchNorm1d": lambda: nn.BatchNorm1d(6).eval(),
    "GELU": nn.GELU,
    "Softmax": lambda: nn.Softmax(1),
}


@pytest.mark.parametrize("name", NORMALIZED)
def test_hessian_agrees_with_finite_differences_of_the_gradient(name: str) -> None:
    # torch.func.hessian is no reference here: for LayerNorm it is not symmetric.
    model = nn.Sequential(nn.Linear(4, 6), NORMALIZED[name](), nn.Linear(6, 3)).double()
    for module in model:
        if isinstance(module, nn.Linear):
            initialize_normal(module, 0.6, torch.Generator().manual_seed(3))
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(9, 4), labels(9, 3)))

    def gradient(theta: Tensor) -> Tensor:
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(objective.loss(theta), theta)[0]

    step, found = 1e-5, hesspipe.hessian_matrix(objective)
    units = step * torch.eye(objective.num_parameters, dtype=torch.float64)
    differences = torch.stack(
        [gradient(objective.theta + unit) - gradient(objective.theta - unit) for unit in units]
    )
    # Central differences: truncation of step^2, rounding of eps / step.
    assert (found - differences / (2 * step)).abs().max() < 1e-8
    total = hesspipe.ggn_matrix(objective) + hesspipe.residual_matrix(objective)
    assert_close(total, found)


@pytest.mark.parametrize("failure", ["wrong", "missing"])
def test_pull_back_does_not_rely_on_batched_derivatives(
    failure: str, monkeypatch: pytest.MonkeyPatch, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective()
    expected = {name: function(objective, "columns") for name, function in MATRICES.items()}
    gradient = torch.autograd.grad

    def broken(*arguments: Any, is_grads_batched: bool = False, **options: Any) -> Any:
        if is_grads_batched and failure == "missing":
            raise RuntimeError("Batching rule not implemented")
        rows = gradient(*arguments, is_grads_batched=is_grads_batched, **options)
        return tuple(2 * row for row in rows) if is_grads_batched else rows

    monkeypatch.setattr(torch.autograd, "grad", broken)
    for name, function in MATRICES.items():
        assert_close(function(objective, "columns"), expected[name])


@pytest.mark.parametrize("columns_per_block", [1, 3, 1000])
def test_hessian_by_columns_does_not_depend_on_the_block(
    columns_per_block: int, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective()
    found = columns.hessian_by_columns(objective, columns_per_block)
    assert_close(found, reference_hessian(objective))


@pytest.mark.parametrize(
    ("method", "module", "budget"),
    [("columns", columns, "_JACOBIAN_BYTES"), ("layers", linear, "_SAMPLE_BYTES")],
)
def test_memory_budget_does_not_change_the_matrix(
    method: str,
    module: object,
    budget: str,
    monkeypatch: pytest.MonkeyPatch,
    make_objective: Callable[..., Objective],
) -> None:
    objective = make_objective(loss_fn=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0])))
    expected = {name: function(objective, method) for name, function in MATRICES.items()}
    monkeypatch.setattr(module, budget, 1)  # one sample at a time
    for name, function in MATRICES.items():
        assert_close(function(objective, method), expected[name], factor=100)


def test_loss_that_couples_samples_has_the_ggn_of_all_outputs() -> None:
    def spread(outputs: Tensor, _: Tensor) -> Tensor:
        return outputs.var(0).sum()

    model, inputs = network([4, 5, 3]), normal(9, 4)
    objective = Objective(model, spread, (inputs, labels(9, 3)))
    expected = reference_matrices(
        model, lambda model: model(inputs), lambda outputs: spread(outputs, inputs)
    )
    for name, function in MATRICES.items():
        assert_close(function(objective), expected[name])
        with pytest.raises(NotASumOverSamplesError, match="loss_fn must be a sum or mean over sam"):
            function(objective, "layers")


def test_confident_network_is_computed_to_its_own_rounding() -> None:
    # p is within 1e-7 of 0 or 1: the curvature p - p^2 is tiny and its rounding is eps.
    inputs = normal(30, 4)
    model = network([4, 5, 3], std=20.0)
    targets = model(inputs).argmax(1)
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    # A loss whose gradient is not its derivative; Objective would refuse it.
    neutral = copy.copy(objective)
    neutral.batches = [replace(batch, value=None) for batch in objective.batches]
    neutral.loss_fn = lambda outputs, labels: nn.functional.cross_entropy(
        outputs - outputs.detach(), labels
    )
    scale = hesspipe.hessian_matrix(neutral).norm()
    found = exact_matrix(objective, "hessian")
    assert found.values.norm() < 1e-4 * scale
    total = hesspipe.ggn_matrix(objective) + hesspipe.residual_matrix(objective)
    assert (total - found.values).norm() <= 20 * EPS * scale
    assert EPS * scale / objective.num_parameters < found.error < 100 * EPS * scale
    result = hesspipe.spectrum(objective)
    assert result.tolerance >= found.error


def test_matrix_that_is_not_finite_names_the_batch_and_the_parameter() -> None:
    def distance(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().sum(1).sqrt().sum()

    model, inputs = network([4, 5, 3], "tanh"), normal(9, 4)
    # In batch 1 the square root is taken of zero, where its derivative is infinite.
    targets = torch.cat([normal(6, 3), model(inputs[6:]).detach()])
    batches = list(zip(inputs.split(6), targets.split(6), strict=True))
    objective = Objective(model, distance, batches, denominator=lambda *_: 1.0)
    message = r"must be finite.*43 .* the first in 1.weight; the gradient of batch 1 by 1.weight"
    with pytest.raises(ValueError, match=message):
        hesspipe.hessian_matrix(objective)


def test_matrix_too_large_for_memory_is_refused_before_it_is_allocated() -> None:
    model = nn.Linear(2_000, 500)
    objective = Objective(model, nn.MSELoss(), (torch.zeros(1, 2_000), torch.zeros(1, 500)))
    message = r"P = 1,000,500 parameters \(7,458.0 GiB\).*available; use hesspipe.eigenpairs"
    with pytest.raises(TooLargeError, match=message):
        hesspipe.hessian_matrix(objective)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fisher", "auto"), "matrix must be one of .*'hessian'.*, got 'fisher'"),
        (
            ("hessian", "lanczos"),
            "method must be one of auto, layers, convolutions, columns, got 'lanczos'",
        ),
    ],
)
def test_unknown_names_are_refused(
    arguments: tuple[str, str], message: str, make_objective: Callable[..., Objective]
) -> None:
    with pytest.raises(ValueError, match=message):
        exact_matrix(make_objective(), *arguments)

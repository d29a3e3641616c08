"""Rare arguments, forecasts, fallbacks and bookkeeping of matrices and operators."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, assert_close, labels, network, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature import (
    columns,
    compression,
    convolutional,
    dense,
    factored,
    factors,
    layers,
    linear,
    products,
)
from hesspipe.curvature.class_means import squared_overlaps
from hesspipe.curvature.diagonal_blocks import DiagonalBlock
from hesspipe.curvature.loss_derivatives import (
    _check_separable,
    curvature_factors,
    output_curvatures,
)
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import objective_of
from hesspipe.errors import InconsistentMatrixError, NotASumOverSamplesError
from hesspipe.objective.objective import Objective

INPUTS, TARGETS = normal(7, 4), labels(7, 3)


@functools.cache
def objective() -> Objective:
    data = [(INPUTS[:5], TARGETS[:5]), (INPUTS[5:], TARGETS[5:])]
    return Objective(network([4, 5, 3], "tanh"), nn.CrossEntropyLoss(), data)


# --- arguments -----------------------------------------------------------------------------------


def test_unknown_methods_and_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method must be one of auto, .*, got 'best'"):
        hesspipe.spectrum(objective(), method="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="columns_per_block must be at least 1, got 0"):
        columns.hessian_by_columns(objective(), columns_per_block=0)
    with pytest.raises(ValueError, match="block_bytes must be at least 0, got -1"):
        hesspipe.HessianOperator(objective(), block_bytes=-1)


def test_operator_of_a_part_of_the_data_has_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = hesspipe.GGNOperator(objective())
    assert objective_of(operator, None) == (objective(), Matrix.GGN)
    monkeypatch.setattr(operator.objective, "ranks", object())
    with pytest.raises(ValueError, match="must have all the data in this process for a matrix"):
        objective_of(operator, None)


COMPLETE = {
    "shape": (3, 3), "dtype": torch.float64, "device": "cpu", "__matmul__": lambda _: None,
}  # fmt: skip


@pytest.mark.parametrize("missing", [*COMPLETE, "torch dtype"])
def test_block_of_what_is_no_operator_is_refused(missing: str) -> None:
    given = {name: value for name, value in COMPLETE.items() if name != missing}
    if missing == "torch dtype":
        given["dtype"] = np.dtype(float)
    is_member = torch.ones(3, dtype=torch.bool)
    with pytest.raises(TypeError, match="operator must have shape, dtype, device and @"):
        DiagonalBlock(SimpleNamespace(**given), is_member)
    assert DiagonalBlock(SimpleNamespace(**COMPLETE), is_member).shape == (3, 3)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3,), torch.float64), ((2, 3), torch.float64), ((3, 3), torch.int64)]
)
def test_block_of_what_is_not_square_or_real_is_refused(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match="operator must be square and of floating point"):
        DiagonalBlock(torch.ones(shape).to(dtype), torch.ones(3, dtype=torch.bool))


def test_seeds_of_matrix_free_methods_are_zero_by_default() -> None:
    plain = hesspipe.eigenpairs(objective(), num_largest=2)
    assert torch.equal(
        plain.eigenvectors, hesspipe.eigenpairs(objective(), num_largest=2, seed=0).eigenvectors
    )
    options: dict[str, Any] = {"num_probes": 2, "num_steps": 3}
    one, other = (hesspipe.density(objective(), **options, **seed) for seed in ({}, {"seed": 0}))
    assert torch.equal(one.nodes, other.nodes)
    estimates = [
        hesspipe.estimate_norms(objective(), num_products=8, **seed) for seed in ({}, {"seed": 0})
    ]
    assert estimates[0] == estimates[1]
    assert estimates[0] != hesspipe.estimate_norms(objective(), num_products=8, seed=1)


# --- forecasts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forecast_of_a_matrix_is_between_its_size_and_three_times_that(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(dense, "require", lambda number, *_, **__: asked.append(number))
    found = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), (INPUTS, TARGETS), dtype=dtype)
    values = dense.exact_matrix(found, Matrix.HESSIAN).values
    size = values.numel() * values.element_size()
    assert size < asked[0] <= 3 * size
    dense.exact_matrix(found, Matrix.HESSIAN, extra_bytes=1000)
    assert asked[1] == asked[0] + 1000


def test_forecast_counts_the_rows_of_what_varies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    model = network([4, 5, 3])
    next(model.parameters()).requires_grad_(False)
    found = Objective(model, nn.CrossEntropyLoss(), (INPUTS, TARGETS))
    monkeypatch.setattr(dense, "require", lambda number, *_, **__: asked.append(number))
    values = dense.hessian_matrix(found)
    assert values.shape == (23, 23)
    assert 23**2 * 8 < max(asked) <= 3 * 23**2 * 8


def test_forecast_of_factors_counts_two_square_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(factored, "require", lambda number, *_, **__: asked.append(number))
    found = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), (INPUTS, TARGETS))
    spectrum = hesspipe.spectrum(found, method="factored")
    assert spectrum.method == "factored"
    size = min(7 * 3, found.num_parameters)  # columns of A, without those of Y
    assert 2 * size**2 * 8 <= asked[0] <= 2 * (4 * found.num_parameters) ** 2 * 8


# --- passes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3, 0, 1, 2, 7, 8])
def test_chunks_are_as_large_as_allowed_and_hold_at_least_one_sample(step: int) -> None:
    found = [list(range(7))[part] for part in layers.chunks(7, step)]
    assert [number for part in found for number in part] == list(range(7))
    assert all(len(part) == max(step, 1) for part in found[:-1])
    assert 1 <= len(found[-1]) <= max(step, 1)


@pytest.mark.parametrize("place", ["columns", "convolutional", "linear"])
def test_small_data_are_computed_in_one_pass(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget of memory divides large data only."""
    made: list[list[slice]] = []
    module = {"columns": columns, "convolutional": convolutional, "linear": linear}[place]

    def recorded(num_samples: int, step: int) -> list[slice]:
        made.append(list(layers.chunks(num_samples, step)))
        return made[-1]

    monkeypatch.setattr(module, "chunks", recorded)
    method: Any = {"columns": "columns", "convolutional": "convolutions", "linear": "layers"}[place]
    found = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), (INPUTS, TARGETS))
    for matrix in (Matrix.GGN, Matrix.RESIDUAL):
        dense.exact_matrix(found, matrix, method)
    assert made
    assert all(len(parts) == 1 for parts in made)


@pytest.mark.parametrize("rows_per_pass", [1, 3, 7, 1024])
@pytest.mark.parametrize("size", [1, 7, 10])
def test_products_of_both_triangles_do_not_depend_on_blocks(
    size: int, rows_per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_ROWS_PER_PASS", rows_per_pass)
    values, vectors = normal(size, size), normal(3, size, seed=1)
    symmetric = values.tril() + values.tril(-1).mT
    found = dense._products(values, vectors)
    for product, matrix in zip(found, (values, values.mT, symmetric), strict=True):
        assert (product - vectors @ matrix.mT).abs().max() <= 50 * EPS * values.norm()


@pytest.mark.parametrize("block", [1, 3, 7, 1024])
def test_lower_triangle_is_mirrored_in_blocks_of_any_size(block: int) -> None:
    values = normal(7, 7)
    expected = values.tril() + values.tril(-1).mT
    assert torch.equal(columns.mirror_lower(values.clone(), block), expected)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 12), (12, 5), (9, 9)])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_transpose_is_copied_by_blocks(shape: tuple[int, int], block: int) -> None:
    source = normal(*shape)
    target = torch.full((20, 20), torch.nan, dtype=torch.float64)
    columns.copy_transposed(source, target[3 : 3 + shape[1], 2 : 2 + shape[0]], block)
    assert torch.equal(target[3 : 3 + shape[1], 2 : 2 + shape[0]], source.T)
    assert int(target.isfinite().sum()) == source.numel()


@pytest.mark.parametrize("num_rows", [0, 1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squares_of_any_number_of_rows_are_added(num_rows: int, dtype: torch.dtype) -> None:
    total, rows = normal(4, 4).to(dtype), normal(num_rows, 4, seed=2).to(dtype)
    for sign in (1.0, -1.0):
        found = total.clone()
        columns.add_squares(found, rows, sign)
        expected = (total + sign * rows.mT @ rows).tril()
        assert (found.tril() - expected).abs().max() <= 50 * torch.finfo(dtype).eps


@pytest.mark.parametrize("way", [True, False])
def test_ggn_by_columns_is_the_same_by_jacobians_and_by_products(
    way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_takes_jacobians", lambda _: way)
    monkeypatch.setattr(columns, "_JACOBIAN_BYTES", 1)  # one sample at a time
    operator = hesspipe.GGNOperator(objective())
    expected = operator @ torch.eye(operator.shape[0], dtype=torch.float64)
    assert_close(columns.ggn_by_columns(objective()), expected)


def test_jacobians_are_not_taken_of_a_network_that_needs_several_samples() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3).double()

        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) < 2:
                raise ValueError("at least two samples")
            outputs: Tensor = self.linear(inputs)
            return outputs

    found = Objective(Pairs(), nn.CrossEntropyLoss(), (INPUTS[:6], TARGETS[:6]))
    found.coupling = None  # as if the checks had not seen it
    assert not columns._takes_jacobians(found)
    assert columns._takes_jacobians(objective())


def test_cost_of_jacobians_decides_between_them_and_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many samples of few outputs: products cost less; the estimate in multiply-adds is by hand."""
    monkeypatch.setattr(columns, "_CHEAP", 0.0)
    for num_data in (2, 40_000):
        fake: Any = SimpleNamespace(
            is_separable=True, theta=None, num_parameters=1000, num_data=num_data,
            is_varied=torch.ones(1000), batches=[SimpleNamespace(inputs=torch.zeros(2))],
            outputs=lambda *_: torch.zeros(1, 10),
        )  # fmt: skip
        # Per sample 2e6 + 1e3 + 10 * 1000 * (1 + 1000 / 8), of all columns 3e6 N and the calls.
        by_sample = 2e6 + 1e3 + 1e4 * 126
        by_products = 1000 * (2e6 / columns._COLUMNS_PER_BLOCK + 3e3 * num_data)
        assert columns._takes_jacobians(fake) == (num_data * by_sample <= by_products)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_operator_keeps_the_graphs_that_fit(limit: int) -> None:
    """Of two batches: none, one or both, and the products are the same."""
    expected = hesspipe.HessianOperator(objective()) @ normal(objective().num_parameters)
    sizes = [
        products.BatchProduct(objective(), Matrix.HESSIAN, batch).graph_bytes
        for batch in objective().batches
    ]
    block_bytes = [0, sizes[0], sum(sizes)][limit]
    operator = hesspipe.HessianOperator(objective(), block_bytes=block_bytes)
    for _ in range(2):
        found = operator @ normal(objective().num_parameters)
        assert_close(found, expected)
        assert len(operator._kept) == limit
        assert operator._kept_bytes == sum(sizes[:limit])


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_products_notice_a_loss_that_changed(matrix: str) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = 1.0

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return self.factor * nn.functional.cross_entropy(outputs, targets)

    loss = Changing()
    found = Objective(network([4, 5, 3], "tanh"), loss, (INPUTS, TARGETS))
    operator = {
        "hessian": hesspipe.HessianOperator,
        "ggn": hesspipe.GGNOperator,
        "residual": hesspipe.ResidualOperator,
    }[matrix](found)
    kept = found.loss_fn
    found.loss_fn = lambda outputs, targets: 1.001 * kept(outputs, targets)
    with pytest.raises(ValueError, match="must not change after the Objective is built"):
        operator @ normal(found.num_parameters)


def test_combined_gradients_of_parameters_without_influence_are_zero() -> None:
    cotangents = normal(2, 7, 3)
    found = columns.combine_gradients(objective(), cotangents)
    theta = objective().theta.clone().requires_grad_()
    for row, vector in zip(found, cotangents, strict=True):
        outputs = objective().outputs(theta, INPUTS)
        (expected,) = torch.autograd.grad(outputs, theta, vector)
        assert_close(row, expected)


# --- losses and structure ------------------------------------------------------------------------


def coupled_outputs(size: float) -> tuple[Tensor, Tensor]:
    """Outputs, and slopes of a loss in which samples feel the others by a relative size."""
    outputs = normal(6, 3, seed=4).requires_grad_()
    loss = outputs.pow(3).sum() + size * outputs.sum(1).prod()
    return outputs, torch.autograd.grad(loss, outputs, create_graph=True)[0]


@pytest.mark.parametrize("size", [0.0, 1e-11, 1e-6, 1.0])
def test_curvature_that_couples_samples_by_little_is_refused(size: float) -> None:
    if size == 0:
        _check_separable(*coupled_outputs(size))
    else:
        with pytest.raises(NotASumOverSamplesError, match="whose curvature couples them"):
            _check_separable(*coupled_outputs(size))


def test_factors_of_a_coupled_loss_are_refused() -> None:
    def coupled(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs - outputs.mean(0), targets)

    found = Objective(network([4, 5, 3], "tanh"), coupled, (INPUTS, TARGETS))
    with pytest.raises(NotASumOverSamplesError, match=r"samples must be independent for factors"):
        curvature_factors(found, found.batches[0])
    with pytest.raises(NotASumOverSamplesError, match="whose curvature couples them"):
        output_curvatures(found, found.batches[0])


def test_factors_have_a_sign_where_it_is_known() -> None:
    """A quadratic loss with a positive, a negative and no curvature in each sample."""
    weights = torch.tensor([2.0, -3.0, 0.0], dtype=torch.float64)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (weights * outputs.square() + outputs).sum(1).mean()

    found = Objective(network([4, 5, 3], "tanh"), loss, (INPUTS, TARGETS))
    split, signs = curvature_factors(found, found.batches[0])
    assert signs.sort(1).values.tolist() == [[-1.0, 0.0, 1.0]] * 7
    rebuilt = (split * signs.unsqueeze(1)) @ split.mT
    expected = torch.diag(2 * weights / 7).expand(7, 3, 3)
    assert (rebuilt - expected).abs().max() <= 20 * EPS


def test_factors_of_a_loss_without_curvature_have_no_signs() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum(1).mean()

    found = Objective(network([4, 5, 3], "tanh"), loss, (INPUTS, TARGETS))
    split, signs = curvature_factors(found, found.batches[0])
    assert not split.any()
    assert not signs.any()


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_overlaps_are_with_the_span_whatever_its_rank(rank: int) -> None:
    vectors = torch.linalg.qr(normal(9, 5)).Q
    basis = torch.linalg.qr(normal(9, rank, seed=3)).Q
    directions = normal(4, rank, seed=8) @ basis.mT
    overlaps, found = squared_overlaps(vectors, directions)
    assert found == rank
    assert (overlaps - (basis.mT @ vectors).square().sum(0)).abs().max() <= 20 * EPS


@pytest.mark.parametrize("num_samples", [2, 40])
def test_few_samples_make_a_gram_matrix_of_their_columns(num_samples: int) -> None:
    """G of few samples has fewer columns than rows, H has others beside them."""
    data = (normal(num_samples, 4), labels(num_samples, 3))
    found = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), data)
    chosen = layers.find_layers(found)
    ggn, hessian = (
        factors.factorize(found, chosen, matrix) for matrix in (Matrix.GGN, Matrix.HESSIAN)
    )
    assert ggn.is_gram == (num_samples == 2)
    assert not hessian.is_gram
    if ggn.is_gram:
        assert ggn.size == ggn.num_sampled


def test_network_without_second_derivatives_of_pre_activations_is_not_piecewise_linear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> bool:
        raise RuntimeError("derivative for aten::something is not implemented")

    found = Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), (INPUTS, TARGETS))
    chosen = layers.find_layers(found)
    assert layers.is_piecewise_linear(found, chosen)
    monkeypatch.setattr(layers, "_is_curved", fail)
    assert not layers.is_piecewise_linear(found, chosen)


def test_triangle_absorbs_rows_and_a_refused_argument_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    triangle, rows = normal(40, 40).triu(), normal(50, 40, seed=1)
    starts = torch.zeros(50, dtype=torch.int64)
    found = triangle.clone()
    compression._absorb(found, rows.clone(), starts)
    expected = triangle.mT @ triangle + rows.mT @ rows
    assert torch.equal(found, found.triu())
    assert (found.mT @ found - expected).abs().max() <= 1e3 * EPS * 40
    plain = compression.dtpqrt
    monkeypatch.setattr(compression, "dtpqrt", lambda *a, **k: (*plain(*a, **k)[:3], -4))
    with pytest.raises(InconsistentMatrixError, match="dtpqrt refused its argument 4"):
        compression._absorb(triangle, rows, starts)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel", [(1, 4), (4, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("options", [
    {"padding": "same"}, {"padding": "same", "dilation": (1, 3)}, {"padding": "valid"},
    {"padding": (2, 1)}, {"stride": (2, 1), "dilation": (2, 1)},
], ids=str)  # fmt: skip
def test_patches_are_what_the_convolution_multiplies(
    kernel: tuple[int, int], options: dict[str, Any]
) -> None:
    """Each direction has its own kernel, padding, stride and dilation."""
    module = nn.Conv2d(2, 3, kernel, bias=False, **options).double()
    images = normal(2, 2, 9, 8)
    patches = layers._patches(module, images)  # (n, K, S)
    found = module.weight.flatten(1) @ patches
    expected = module(images)
    assert found.shape == expected.flatten(2).shape
    assert (found - expected.flatten(2)).abs().max() <= 100 * EPS

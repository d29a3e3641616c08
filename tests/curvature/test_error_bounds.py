"""Error bounds against 50 digits and against float64; checks against matrices that are wrong."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from losses import LOSSES
from many_digits import eigenvalues, random_problem
from problems import EPS, labels, network, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature import dense, error_bounds
from hesspipe.curvature.dense import exact_matrix
from hesspipe.curvature.error_bounds import ProductSamples, matrix_error, sample_products
from hesspipe.curvature.loss_derivatives import curvature_factors, output_curvatures
from hesspipe.curvature.matrix import Matrix
from hesspipe.errors import InconsistentMatrixError
from hesspipe.objective.objective import Objective


@functools.cache
def objective_of(name: str, activation: str = "tanh") -> Objective:
    loss_fn, targets = LOSSES[name]
    return Objective(network([4, 5, 3], activation), loss_fn, (normal(9, 4), targets))


def _with(values: Tensor, rows: slice, columns: slice, factor: float) -> Tensor:
    wrong = values.clone()
    wrong[rows, columns] *= factor
    return wrong


def _with_largest_entry(values: Tensor, factor: float) -> Tensor:
    row, column = divmod(int(values.abs().argmax()), len(values))
    return _with(values, slice(row, row + 1), slice(column, column + 1), factor)


LAST, FIRST = slice(-8, None), slice(25)  # of the last layer, and of the first
FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "scaled by 1e-9": lambda m: (1 + 1e-9) * m,
    "scaled by 1e-6": lambda m: (1 + 1e-6) * m,
    "scaled by 10 %": lambda m: 1.1 * m,
    "zero": torch.zeros_like,
    "negative": torch.neg,
    "one entry by 1e-6": lambda m: _with_largest_entry(m, 1 + 1e-6),
    "one entry by 10 %": lambda m: _with_largest_entry(m, 1.1),
    "one entry by 100 %": lambda m: _with_largest_entry(m, 2.0),
    "a row by 1e-6": lambda m: _with(m, slice(-2, -1), slice(None), 1 + 1e-6),
    "a row by 10 %": lambda m: _with(m, slice(-2, -1), slice(None), 1.1),
    "a column by 10 %": lambda m: _with(m, slice(None), slice(-2, -1), 1.1),
    "a block by 1e-6": lambda m: _with(m, LAST, LAST, 1 + 1e-6),
    "a block and its transpose": lambda m: _with(_with(m, LAST, FIRST, 1.1), FIRST, LAST, 1.1),
    "a block is zero": lambda m: _with(m, FIRST, FIRST, 0.0),
    "the upper triangle": lambda m: m.tril() + 1.1 * m.triu(1),
    "the lower triangle": lambda m: 1.1 * m.tril(-1) + m.triu(),
    "layers exchanged": lambda m: m.roll((25, 25), (0, 1)),
    "not a number": lambda m: _with(m, slice(1), slice(1), float("nan")),
}


@pytest.fixture
def sampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the products of each objective and matrix once."""
    known: dict[tuple[int, Matrix], ProductSamples] = {}

    def sample(objective: Objective, matrix: Matrix) -> ProductSamples:
        key = (id(objective), matrix)
        if key not in known:
            known[key] = sample_products(objective, matrix)
        return known[key]

    monkeypatch.setattr(error_bounds, "sample_products", sample)


@pytest.mark.usefixtures("sampled_once")
@pytest.mark.parametrize("name", LOSSES)
def test_check_with_a_wrong_matrix_fails(name: str) -> None:
    objective = objective_of(name)
    for matrix in Matrix:
        right = exact_matrix(objective, matrix, "columns")
        largest = float(torch.linalg.eigvalsh(right.values).abs().max())
        assert 0 < right.error < 1e-10 * largest
        assert exact_matrix(objective, matrix, "layers").error < 1e-10 * largest
        for change in FAULTS.values():
            wrong = change(right.values)
            if torch.equal(wrong, right.values):
                assert matrix is Matrix.RESIDUAL  # zero in the parameters of the last layer
                continue
            with pytest.raises(InconsistentMatrixError, match=f"the {matrix} disagrees with"):
                matrix_error(objective, matrix, functools.partial(dense._products, wrong))


@pytest.mark.parametrize("method", ["layers", "convolutions", "columns"])
@pytest.mark.parametrize("matrix", list(Matrix))
def test_wrong_matrix_of_any_method_is_refused(
    method: str, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_of("BCELoss", "relu")
    compute = dense._compute
    monkeypatch.setattr(dense, "_compute", lambda *given: compute(*given).mul_(1 + 1e-9))
    with pytest.raises(InconsistentMatrixError, match=f"the {matrix} disagrees with a product"):
        exact_matrix(objective, matrix, method)


@pytest.mark.parametrize("hidden", ["the product", "the transposed product", "both products"])
def test_check_sees_an_error_that_some_products_do_not(hidden: str) -> None:
    objective = objective_of("CrossEntropyLoss")
    values, samples = (
        exact_matrix(objective, Matrix.HESSIAN).values,
        sample_products(objective, Matrix.HESSIAN),
    )
    size = len(values)
    wrong = torch.zeros_like(values)
    if hidden == "both products":
        # Antisymmetric, and zero on the probes; the lower triangle alone is wrong.
        complement = torch.linalg.qr(samples.vectors.T, mode="complete").Q[:, 3:]
        turned = normal(size - 3, size - 3, seed=8).tril(-1)
        wrong = complement @ (turned - turned.T) @ complement.T
    else:
        few = samples.vectors[:, 1:]
        row = normal(size - 1, seed=8)
        wrong[0, 1:] = row - torch.linalg.lstsq(few.T, row[:, None]).solution[:, 0] @ few
        wrong = wrong if hidden == "the product" else wrong.T
    scale = 1e-6 * values.norm() / wrong.norm()
    with pytest.raises(InconsistentMatrixError):
        dense._error_bound(objective, values + scale * wrong, Matrix.HESSIAN, samples)


# Every loss and activation, trained or not, of scales from 1e-6 to 1e6;
# `benchmarks/error_bounds.py` has 500.
@pytest.mark.parametrize("seed", range(12))
def test_every_eigenvalue_is_within_its_bound_of_50_digits(seed: int) -> None:
    problem = random_problem(seed, max_parameters=22)
    objective = problem.objective()
    for matrix, values in problem.matrices().items():
        expected = eigenvalues(values)
        for method in ("auto", "columns"):
            found = hesspipe.spectrum(objective, matrix, method)
            pairs = zip(found.eigenvalues.tolist(), expected, strict=True)
            assert max(float(abs(one - other)) for one, other in pairs) <= found.error_bound


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("std", [0.02, 0.6, 5.0])
def test_matrix_error_bounds_the_error_of_float32(activation: str, std: float) -> None:
    model, inputs = network([6, 7, 4], activation, std=std).float(), normal(80, 6).float()
    # Where p is within eps of 0 and 1, perturbed numbers round more than those of the evaluation.
    slack = 3e3 if std < 1 else 3e4
    single, double = (
        Objective(model, nn.CrossEntropyLoss(), (inputs, labels(80, 4)), dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    for matrix in Matrix:
        values = exact_matrix(single, matrix, "columns").values
        bound = matrix_error(single, matrix, functools.partial(dense._products, values))
        expected = exact_matrix(double, matrix, "columns").values
        error = float(torch.linalg.matrix_norm(values.double() - expected, 2))
        assert error <= bound <= slack * error


def test_loss_is_convex_where_the_last_layer_is_tiny() -> None:
    generator = torch.Generator().manual_seed(6)
    outputs = 0.002 * torch.randn(400, 3, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.eye(3)), model.bias.zero_()
    objective = Objective(model, nn.CrossEntropyLoss(), (outputs, labels(400, 3)))
    factors, signs = curvature_factors(objective, objective.batches[0])
    assert (signs.sum(1) == 2).all()
    assert (signs >= 0).all()
    rebuilt = factors * signs.unsqueeze(1) @ factors.mT
    expected = output_curvatures(objective, objective.batches[0])
    assert (rebuilt - expected).abs().max() <= 100 * EPS * expected.abs().max()


@pytest.mark.parametrize("name", LOSSES)
def test_factors_rebuild_the_curvature_of_each_sample_to_its_rounding(name: str) -> None:
    objective = copy.copy(objective_of(name))
    batch = replace(objective.batches[0], value=None)  # which is that at another theta
    for margin in (0.0, 20.0, 60.0):
        objective.theta = objective.theta.clone()
        objective.theta[-3:] = margin * torch.tensor([1.0, 0.0, -1.0])
        if name == "BCELoss" and margin == 60.0:  # 1 - p is 0
            with pytest.raises(ValueError, match="6 rounded to 0 or 1"):
                curvature_factors(objective, batch)
            continue
        factors, signs = curvature_factors(objective, batch)
        expected = output_curvatures(objective, batch)
        rebuilt = factors * signs.unsqueeze(1) @ factors.mT
        for found, right in zip(rebuilt, expected, strict=True):
            # What was left out is rounding, of numbers of the size of a share or of S_n itself.
            assert (found - right).norm() <= 1e3 * EPS * float(right.norm().clamp(min=1 / 9))

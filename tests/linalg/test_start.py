"""Searches that start from what an operator knows of its eigenvectors: right, whatever that is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import check_eigenpairs, matrix_with, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import OPERATORS
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import symmetric_product

_DIM = 120
_VALUES = torch.cat([torch.linspace(-1, 1, _DIM - 6), torch.tensor([5.0, 5, 6, 6, 6, 9])]).double()
_MATRIX = matrix_with(_VALUES)
_VECTORS = torch.linalg.eigh(_MATRIX).eigenvectors


def _starts() -> dict[str, Tensor | None]:
    return {
        "nothing": None,
        "wanted": _VECTORS[:, -1],
        "of a multiple one": _VECTORS[:, -3],
        "without the wanted ones": _VECTORS[:, : _DIM - 6] @ normal(_DIM - 6),
        "zero": torch.zeros(_DIM).double(),
        "nan": torch.full((_DIM,), math.nan).double(),
        "infinite": torch.full((_DIM,), math.inf).double(),
        "tiny": 1e-320 * torch.ones(_DIM).double(),
        "huge": 1e300 * torch.ones(_DIM).double(),
    }


@pytest.mark.parametrize("name", list(_starts()))
def test_eigenpairs_are_found_with_multiplicity_from_any_start(name: str) -> None:
    product = replace(symmetric_product(_MATRIX), start=lambda: _starts()[name])
    found = eigenpairs(product, num_largest=6)
    check_eigenpairs(found, _MATRIX, _VALUES, 1e-8)


@given(
    copies=st.sampled_from([2, 3, 10]),
    noise=st.sampled_from([0.0, 1e-12, 1e-9]),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=15, deadline=None)
def test_eigenpairs_miss_no_copy_from_a_start_within_the_wanted_space(
    copies: int, noise: float, share: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    top = 3 + noise * torch.randn(copies, generator=random, dtype=torch.float64)
    values = torch.cat([torch.linspace(-1, 1, 80 - copies, dtype=torch.float64), top])
    matrix = matrix_with(values)
    vectors = torch.linalg.eigh(matrix).eigenvectors
    start = share * vectors[:, -1] + (1 - share) * vectors[:, 0]
    product = replace(symmetric_product(matrix), start=lambda: start)
    found = eigenpairs(product, num_largest=copies, seed=seed)
    assert (found.eigenvalues - top.sort().values).abs().max() <= 3e-8


def test_first_vector_has_a_random_half() -> None:
    plain = symmetric_product(_MATRIX)
    random = KrylovBasis(plain, 20, 3).vectors[0].clone()
    known = _VECTORS[:, -1]
    for start, expected in ((known, random + known), (-random, random), (1e200 * known, None)):
        basis = KrylovBasis(replace(plain, start=lambda start=start: start), 20, 3)
        expected = random + known if expected is None else expected
        assert torch.allclose(basis.vectors[0], expected / expected.norm(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("matrix", list(Matrix))
def test_gradient_of_first_batch_equals_that_of_plain_torch(matrix: Matrix) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    inputs, targets = normal(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
    batches = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), batches)
    found = OPERATORS[matrix](objective).gradient_of_first_batch()
    loss = nn.functional.cross_entropy(model(inputs[:4]), targets[:4], reduction="sum") / 6
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.cat([slope.flatten() for slope in slopes])
    assert found is not None
    assert (found - expected).norm() <= 1e-14 * expected.norm()

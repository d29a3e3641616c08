"""Restrictions to the range of the factors, against 50 digits and against the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mpmath import mp
from problems import EPS, labels, network, normal
from torch import Tensor, nn

from hesspipe.curvature import compression
from hesspipe.curvature.compression import compress
from hesspipe.curvature.dense import exact_matrix
from hesspipe.curvature.factored import find_factors
from hesspipe.curvature.factors import Factors
from hesspipe.curvature.layers import find_layers
from hesspipe.curvature.matrix import Matrix
from hesspipe.objective.objective import Objective


def stairs(num_rows: int, size: int, decades: float) -> tuple[Tensor, Tensor]:
    """Rows that begin with more and more zeros, with columns that are almost dependent."""
    starts = torch.arange(num_rows) * size // num_rows
    rows = normal(num_rows, size) * (torch.arange(size) >= starts.unsqueeze(1))
    grades = 10 ** -torch.linspace(0, decades, size, dtype=torch.float64)
    return (rows * grades) @ normal(size, size, seed=1).triu(), starts


def singular_values(rows: Tensor) -> np.ndarray:
    """To 50 digits."""
    with mp.workdps(60):
        found = mp.svd_r(mp.matrix(rows.tolist()), compute_uv=False)
        return np.sort([float(value) for value in found])


@pytest.mark.parametrize("columns_at_once", [1, 5, 64])
@pytest.mark.parametrize("decades", [0.0, 8.0, 14.0])
def test_absorb_keeps_the_singular_values_to_rounding(
    columns_at_once: int, decades: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "_COLUMNS_AT_ONCE", columns_at_once)
    rows, starts = stairs(24, 12, decades)
    expected = singular_values(rows)
    triangle = torch.zeros(12, 12, dtype=torch.float64)
    for part in (slice(0, 9), slice(9, None)):
        compression._absorb(triangle, rows[part].clone(), starts[part])
    found = singular_values(triangle)
    # The square root of a Gram matrix would have errors of 1e-8.
    assert np.abs(found - expected).max() <= 20 * EPS * expected.max()
    # Each column is as accurate as it is small.
    norms = rows.norm(dim=0)
    assert ((triangle.norm(dim=0) - norms).abs() <= 20 * EPS * norms).all()


@pytest.mark.parametrize("shape", [(7, 7), (7, 10), (1, 3), (8, 0)])
@pytest.mark.parametrize("rows_at_once", [1, 3, 8])
def test_square_of_a_triangle_is_its_product_in_blocks_of_any_size(
    shape: tuple[int, int], rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "_ROWS_AT_ONCE", rows_at_once)
    triangle, signs = normal(*shape).triu(), normal(shape[1], seed=1).sign()
    found = torch.full((shape[0], shape[0]), torch.nan, dtype=torch.float64)
    compression._square(triangle, signs, found)
    expected = (triangle * signs) @ triangle.mT
    assert (found - expected).abs().max() <= 20 * EPS * triangle.square().sum()


def factored(model: nn.Module, num_samples: int) -> tuple[Objective, Factors]:
    data = normal(num_samples, 9), labels(num_samples, 3)
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    factors = find_factors(objective, find_layers(objective), Matrix.HESSIAN)
    assert factors is not None
    return objective, factors


@pytest.mark.parametrize("columns_at_once", [4, 200])
@pytest.mark.parametrize("widths", [[9, 30, 3], [9, 25, 4, 3]])
@pytest.mark.parametrize("kind", ["trained", "dead", "leaky", "one sample"])
def test_compress_keeps_eigenvalues_and_vectors_in_panels_of_any_width(
    columns_at_once: int, widths: list[int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "_COLUMNS_AT_ONCE", columns_at_once)
    monkeypatch.setattr(compression, "_ROWS_AT_ONCE", columns_at_once)
    model = network(widths)
    with torch.no_grad():
        if kind == "dead":
            model[1].bias[::2] = -100.0
        elif kind == "one sample":
            model[1].bias[1:-1] -= 2.0
        elif kind == "leaky":
            model[2] = nn.LeakyReLU()
    objective, factors = factored(model, 8)
    assert factors.num_reduced > factors.num_sampled + len(factors.kept) + 2
    values = exact_matrix(objective, "hessian", "columns").values
    vectors = torch.stack([normal(len(values), seed=2), values @ normal(len(values), seed=2)])
    found = compress(factors, vectors)
    expected, scale = torch.linalg.eigvalsh(values), 50 * EPS * values.norm()
    others = expected.new_zeros(len(expected) - len(found.values))
    eigenvalues = torch.cat([torch.linalg.eigvalsh(found.values), others]).sort().values
    assert (eigenvalues - expected).abs().max() <= scale
    before, after = found.coordinates
    assert (before @ found.values - after).norm() <= scale * before.norm()
    assert found.outside[1] <= scale * before.norm()
    norms = torch.hypot(found.coordinates.norm(dim=1), found.outside)
    assert ((norms - vectors.norm(dim=1)).abs() <= 50 * EPS * norms).all()

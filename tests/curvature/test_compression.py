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


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(("columns_at_once", "panel_columns"), [(1, 1), (5, 2), (64, 5), (64, 32)])
@pytest.mark.parametrize("decades", [0.0, 8.0, 14.0])
def test_absorb_keeps_the_singular_values_to_rounding(
    begins: bool,
    columns_at_once: int,
    panel_columns: int,
    decades: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compression, "_COLUMNS_AT_ONCE", columns_at_once)
    monkeypatch.setattr(compression, "_PANEL_COLUMNS", panel_columns)
    rows, starts = stairs(24, 12, decades)
    expected = singular_values(rows)
    triangle = torch.zeros(12, 12, dtype=torch.float64)
    for part in (slice(0, 9), slice(9, None)):
        some = rows[part].clone(), starts[part]
        if begins and part.start == 0:
            some = compression._begin(triangle, *some)
        compression._absorb(triangle, *some)
    assert not triangle.tril(-1).any()
    found = singular_values(triangle)
    # The square root of a Gram matrix would have errors of 1e-8.
    assert np.abs(found - expected).max() <= 20 * EPS * expected.max()
    # Each column is as accurate as it is small.
    norms = rows.norm(dim=0)
    assert ((triangle.norm(dim=0) - norms).abs() <= 20 * EPS * norms).all()


@pytest.mark.parametrize(
    "starts",
    [
        [],
        [0],
        [0, 0, 0],
        [3, 3, 3, 3],
        [0, 0, 2, 2, 2, 4, 4, 4, 4],
        [0, 1, 2, 3],
        [1, 1, 3],
        [4, 4],
        [5, 5, 5],
    ],
)
def test_begin_moves_rows_only_to_where_they_are_part_of_a_triangle(starts: list[int]) -> None:
    size = 5
    rows = normal(len(starts), size) * (torch.arange(size) >= torch.tensor(starts).view(-1, 1))
    triangle = torch.zeros(size, size, dtype=torch.float64)
    left, left_starts = compression._begin(triangle, rows, torch.tensor(starts, dtype=torch.int64))
    assert not triangle.tril(-1).any()
    together = torch.cat([triangle[triangle.any(1)], left[left.any(1)]])
    assert sorted(together.tolist()) == sorted(rows[rows.any(1)].tolist())
    assert left_starts.tolist() == sorted(left_starts.tolist())
    assert not any(row[:start].any() for row, start in zip(left, left_starts, strict=True))
    # As many as can be: each place takes the first row that is left and begins late enough.
    moved, last = 0, -1
    for start in starts:
        if start > last and last + 1 < size:
            moved, last = moved + 1, last + 1
    assert len(left) == len(starts) - moved


@pytest.mark.parametrize("num_columns", [1, 7, 40])
def test_panel_reflects_a_corner_and_rows_where_some_columns_are_zero(num_columns: int) -> None:
    corner, rows = normal(num_columns, num_columns).triu(), normal(9, num_columns, seed=1)
    rows[:, ::3] = 0.0
    rows[:, 1::5] *= 1e-200
    upper, lower, scales = compression._panel(corner, rows)
    reflected = torch.cat([torch.eye(num_columns, dtype=torch.float64), lower])
    rotation = torch.eye(len(reflected), dtype=torch.float64) - reflected @ scales @ reflected.mT
    # Orthogonal, and [corner; rows] is it times [R; 0].
    identity = rotation.mT @ rotation
    assert (identity - torch.eye(len(identity), dtype=torch.float64)).abs().max() <= 100 * EPS
    whole = torch.cat([corner, rows])
    product = rotation.mT @ whole
    assert (product[:num_columns] - upper).abs().max() <= 100 * EPS * whole.norm()
    assert product[num_columns:].abs().max() <= 100 * EPS * whole.norm()
    assert not upper.tril(-1).any()


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
@pytest.mark.parametrize("kind", ["trained", "dead", "leaky", "one sample", "sure", "some sure"])
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
        elif kind == "sure":  # of every sample: probabilities are 0 and 1, and A is zero
            model[-1].weight *= 1e3
        elif kind == "some sure":  # some directions of A are zero
            model[-1].weight *= 10
    objective, factors = factored(model, 8)
    assert factors.num_reduced > factors.num_sampled + len(factors.kept) + 2
    values = exact_matrix(objective, "hessian", "columns").values
    vectors = torch.stack([normal(len(values), seed=2), values @ normal(len(values), seed=2)])
    found = compress(factors, vectors)
    # Where probabilities p are near 1, both have lost digits of 1 - p.
    scale = (1000 if kind == "some sure" else 50) * EPS * values.norm()
    expected = torch.linalg.eigvalsh(values)
    others = expected.new_zeros(len(expected) - len(found.values))
    eigenvalues = torch.cat([torch.linalg.eigvalsh(found.values), others]).sort().values
    assert (eigenvalues - expected).abs().max() <= scale
    before, after = found.coordinates
    assert (before @ found.values - after).norm() <= scale * before.norm()
    assert found.outside[1] <= scale * before.norm()
    norms = torch.hypot(found.coordinates.norm(dim=1), found.outside)
    assert ((norms - vectors.norm(dim=1)).abs() <= 50 * EPS * norms).all()

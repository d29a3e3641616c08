"""Lanczos with a basis of half the bits: the same tridiagonal matrix, and intervals that hold."""

from __future__ import annotations

import functools
import logging
import math

import numpy as np
import pytest
import torch
from problems import matrix_with
from torch import Tensor

import hesspipe
from hesspipe import hardware
from hesspipe.errors import TooLargeError
from hesspipe.linalg.density import density
from hesspipe.linalg.lanczos import tridiagonalize
from hesspipe.linalg.lanczos_basis import LanczosBasis, RoundedBasis
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.spectral_density import Density

SIZE, NUM_STEPS = 300, 50
_BULK = torch.linspace(-1, 1, SIZE - 12, dtype=torch.float64)
# Large outliers converge early, which is when eigenvalues are found again without a basis.
SPECTRA = {
    "outliers": torch.cat([_BULK, torch.logspace(1, 4, 12, dtype=torch.float64)]),
    "both ends": torch.cat([_BULK, torch.linspace(20, 60, 6), -torch.linspace(30, 90, 6)]),
    "one outlier": torch.cat([_BULK, torch.linspace(1, 1.1, 11), torch.tensor([1e5])]),
    "multiple": torch.cat([_BULK, torch.tensor([50.0] * 5 + [7.0] * 7)]),
    "singular": torch.cat([torch.zeros(SIZE - 20), torch.logspace(-2, 3, 20)]),
}
ROUNDOFF = {torch.float32: 2.0**-11, torch.float64: 2.0**-24}


@functools.cache
def _matrix(name: str, dtype: torch.dtype, *, is_diagonal: bool = False) -> Tensor:
    values = SPECTRA[name].double()
    return (torch.diag(values) if is_diagonal else matrix_with(values)).to(dtype)


def _run(
    matrix: Tensor, kind: type[LanczosBasis], num_steps: int = NUM_STEPS
) -> tuple[Tensor, Tensor, float]:
    """T in float64, the vectors that were multiplied (num_steps, P), and the asymmetry."""
    seen: list[Tensor] = []

    def multiply(vector: Tensor) -> Tensor:
        seen.append(vector.clone())
        return matrix @ vector

    product = SymmetricProduct(multiply, len(matrix), matrix.dtype, matrix.device)
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(1)).to(matrix)
    found = tridiagonalize(product, start, num_steps, basis=kind(product, num_steps))
    return found.matrix.double(), torch.stack(seen).double(), found.asymmetry


@pytest.mark.parametrize("is_diagonal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPECTRA)
def test_tridiagonal_is_the_projection_although_the_basis_is_rounded(
    name: str, dtype: torch.dtype, is_diagonal: bool
) -> None:
    matrix = _matrix(name, dtype, is_diagonal=is_diagonal)
    tridiagonal, vectors, asymmetry = _run(matrix, RoundedBasis)
    scale = float(SPECTRA[name].abs().max())
    bound = ROUNDOFF[dtype] * math.sqrt(len(vectors))  # w of the module
    loss = (vectors @ vectors.T - torch.eye(len(vectors))).abs()
    assert loss.max() <= bound
    assert loss.diagonal(1).max() <= 50 * torch.finfo(dtype).eps  # neighbors
    basis, factor = torch.linalg.qr(vectors.T)
    basis *= factor.diagonal().sign()
    projected = basis.T @ matrix.double() @ basis
    error = float(torch.linalg.matrix_norm(tridiagonal - projected, 2))
    assert error <= 20 * torch.finfo(dtype).eps * scale
    assert error <= 4 * asymmetry


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPECTRA)
def test_no_eigenvalue_is_found_twice(name: str, dtype: torch.dtype) -> None:
    tridiagonal, _, _ = _run(_matrix(name, dtype), RoundedBasis)
    nodes, values = torch.linalg.eigvalsh(tridiagonal), SPECTRA[name].double()
    slack = 1e3 * torch.finfo(dtype).eps * float(values.abs().max())
    for threshold in (*nodes.tolist(), *values.tolist()):
        assert (nodes > threshold + slack).sum() <= (values > threshold).sum()
        assert (nodes < threshold - slack).sum() <= (values < threshold).sum()


def test_rows_of_fewer_steps_than_two_are_whole() -> None:
    matrix = _matrix("outliers", torch.float32)
    for num_steps in (1, 2):
        rounded, whole = (_run(matrix, kind, num_steps) for kind in (RoundedBasis, LanczosBasis))
        assert torch.allclose(rounded[0], whole[0], rtol=1e-6)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the rounded basis of a density only."""
    monkeypatch.setattr("hesspipe.linalg.density._is_rounded", lambda *_: True)


def _density(name: str, dtype: torch.dtype, seed: int) -> Density:
    return density(_matrix(name, dtype), num_probes=3, num_steps=NUM_STEPS, seed=seed)


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPECTRA)
def test_intervals_hold_the_exact_numbers(name: str, dtype: torch.dtype) -> None:
    values = SPECTRA[name].double()
    spread = float(values.max() - values.min())
    width = 0.02 * spread
    grid = torch.linspace(float(values.min()), float(values.max()), 11, dtype=torch.float64)
    smooth = torch.exp(-0.5 * ((grid[:, None] - values) / width).square()).mean(1)
    smooth /= width * math.sqrt(2 * math.pi)
    for seed in range(2):
        found = _density(name, dtype, seed)
        curve = found.evaluate(grid, width)
        assert (curve.low <= smooth).all()
        assert (smooth <= curve.high).all()
        for power in (1, 2, 3):
            moment = found.moment(power)
            assert moment.low <= float((values**power).sum()) <= moment.high
        thresholds = _apart(found, grid)
        assert len(thresholds) > 5
        share = (values <= thresholds[:, None]).double().mean(1)
        distribution = found.distribution(thresholds)
        assert (distribution.low <= share).all()
        assert (share <= distribution.high).all()
        for threshold in thresholds.tolist():
            count = found.count(low=threshold)
            assert count.low <= int((values > threshold).sum()) <= count.high


def _apart(found: Density, points: Tensor) -> Tensor:
    """The points at which eigenvalues can be counted."""
    nodes = found.nodes.flatten()
    distances = (points[:, None] - nodes).abs().min(1).values
    return points[distances > 2 * found.resolution]


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("name", ["outliers", "both ends"])
def test_counts_of_outliers_are_nearly_as_sharp_as_with_the_whole_basis(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = _density(name, torch.float32, 0).count(low=15.0)
    monkeypatch.undo()
    whole = _density(name, torch.float32, 0).count(low=15.0)
    assert whole.low <= rounded.low + 2
    assert rounded.high <= whole.high + 15
    assert rounded.low >= whole.low - 2


def test_operator_that_is_not_symmetric_is_refused() -> None:
    matrix = _matrix("both ends", torch.float32).clone()
    matrix[0, 1] += 30.0
    with pytest.raises(ValueError, match="must be symmetric and the same in every product"):
        _run(matrix, RoundedBasis)


def test_symmetric_operator_is_taken_although_rounding_of_many_rows_is_large() -> None:
    """Of 1,500 rows, w^2 is larger than the asymmetry that is allowed in float32."""
    values = torch.linspace(-1, 1, 1600)
    product = SymmetricProduct(lambda v: values * v, 1600, torch.float32, torch.device("cpu"))
    start = torch.ones(1600)
    found = tridiagonalize(product, start, 1500, basis=RoundedBasis(product, 1500))
    bound = 1498 * ROUNDOFF[torch.float32] ** 2
    assert bound > math.sqrt(torch.finfo(torch.float32).eps)
    scale = float(found.matrix.norm(dim=0).max())
    assert bound * scale <= found.asymmetry <= 2 * bound * scale
    exact = torch.linalg.eigvalsh(found.matrix.double())
    assert exact.abs().max() <= 1 + 4 * found.asymmetry


@pytest.mark.parametrize("length", [2**14, 40_000])
def test_rows_of_several_blocks_are_removed_to_the_precision_of_the_dtype(length: int) -> None:
    product = SymmetricProduct(torch.clone, length, torch.float32, torch.device("cpu"))
    basis, stream = RoundedBasis(product, 12), torch.Generator().manual_seed(0)
    for _ in range(12):
        row = torch.randn(length, generator=stream)
        basis.append(row / row.norm())
    rows = basis._rounded.double() / basis._unit  # (10, length)
    vector = torch.randn(length, generator=stream) / length**0.5 + 3 * rows[4].float()
    expected = rows @ vector.double()
    removed = vector.clone()
    found = basis._remove(removed)
    assert (found - expected).abs().max() <= 4 * torch.finfo(torch.float32).eps
    rest = vector.double() - rows.T @ expected
    assert (removed - rest).norm() <= 4 * torch.finfo(torch.float32).eps * vector.norm()


def _room_for(num_vectors: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_bytes", lambda: num_vectors * SIZE * 4)


def test_basis_is_rounded_where_only_then_it_has_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """30 steps need 30 vectors and 10 others, or 16 and 7."""
    matrix = _matrix("outliers", torch.float32)
    with caplog.at_level(logging.WARNING):
        plain = density(matrix, num_steps=30)
        _room_for(40, monkeypatch)
        assert torch.equal(density(matrix, num_steps=30).nodes, plain.nodes)
        assert not caplog.records
        _room_for(39, monkeypatch)
        found = density(matrix, num_steps=30)
    assert (
        "memory has no room for a Lanczos basis of 30 vectors of length P = 300: all but the last "
        "two are rounded to torch.float16"
    ) in caplog.text
    assert found.provenance["density"]["basis"] == "float16"
    assert "basis" not in plain.provenance["density"]
    assert not torch.equal(found.nodes, plain.nodes)
    assert np.allclose(found.nodes[:, -3:], plain.nodes[:, -3:], rtol=1e-5)
    _room_for(23, monkeypatch)
    density(matrix, num_steps=30)
    _room_for(22, monkeypatch)
    with pytest.raises(
        TooLargeError, match=r"a Lanczos basis of 30 .* in torch.float16, with 7 others, needs"
    ):
        density(matrix, num_steps=30)


@pytest.mark.usefixtures("rounded")
def test_density_of_a_rounded_basis_is_saved_with_its_settings(tmp_path: object) -> None:
    found = _density("outliers", torch.float32, 0)
    path = f"{tmp_path}/density.parquet"
    hesspipe.save(found, path)
    loaded = hesspipe.load(path)
    assert torch.equal(loaded.nodes, found.nodes)
    assert loaded.provenance["density"]["basis"] == "float16"

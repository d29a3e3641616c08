"""Tracking: eigenvalues of matrices with prescribed spectra, and what short searches may miss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesspipe.linalg.tracking import track_eigenpairs


def rotated(values: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A symmetric matrix with these eigenvalues, and its eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(len(values), len(values), dtype=torch.float64, generator=generator)
    vectors = torch.linalg.qr(numbers).Q
    return (vectors * values) @ vectors.T, vectors


def bulk(size: int, *others: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(size - len(others), dtype=torch.float64, generator=generator) / 4
    return torch.cat([values, torch.tensor(others, dtype=torch.float64)])


@pytest.mark.parametrize(("num_smallest", "num_largest"), [(0, 1), (1, 0), (1, 1), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_track_eigenpairs_finds_the_ends_with_their_residuals(
    num_smallest, num_largest, dtype, scale
):
    values = scale * bulk(150, -2.0, -1.6, 3.0, 4.0, 5.0).sort().values
    matrix = rotated(values)[0].to(dtype)
    found = track_eigenpairs(
        matrix, num_smallest, num_largest, start=None, tolerance=1e-5, max_products=150,
        max_missed_probability=0.01,
    )  # fmt: skip
    expected = torch.cat([values[:num_smallest], values[len(values) - num_largest :]])
    pairs = found.pairs
    assert found.is_converged.all()
    assert torch.allclose(pairs.eigenvalues, expected, rtol=2e-5, atol=0)
    vectors = pairs.eigenvectors
    residuals = matrix.double() @ vectors.double() - vectors.double() * pairs.eigenvalues
    rounding = 50 * torch.finfo(dtype).eps * float(values.abs().max())
    assert torch.allclose(residuals.norm(dim=0), pairs.residual_norms, rtol=1e-6, atol=rounding)


def test_track_eigenpairs_needs_fewer_products_from_the_last_vectors():
    first, again = (rotated(bulk(400, -1.2, 1.5) * factor)[0] for factor in (1.0, 1.02))
    options = {"tolerance": 1e-4, "max_products": 200}
    cold = track_eigenpairs(first, 1, 1, start=None, **options)
    warm = track_eigenpairs(again, 1, 1, start=cold.start, **options)
    assert warm.pairs.num_products < 0.7 * cold.pairs.num_products
    exact = torch.linalg.eigvalsh(again)[[0, -1]]
    assert torch.allclose(warm.pairs.eigenvalues, exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("end", [-1, 1])
def test_track_eigenpairs_finds_a_new_eigenvalue_that_the_last_vectors_do_not_contain(end):
    values = bulk(400, 3.0)
    matrix, vectors = rotated(values)
    start = track_eigenpairs(matrix, 0, 1, start=None, tolerance=1e-6, max_products=400).start
    new = vectors[:, 0]
    start = start - new * (new @ start)
    changed = matrix + end * (5.0 - end * values[0]) * torch.outer(new, new)
    options = {"tolerance": 1e-3, "max_products": 400}
    ends = {"num_smallest": int(end < 0), "num_largest": int(end > 0)}
    # A short search is content with the last vectors, and says that it may have missed something.
    short = track_eigenpairs(changed, 0, 1, start=start, **options)
    assert short.pairs.num_products < 10
    assert short.missed_probability > 0.5 or float(short.pairs.eigenvalues) > 4.9
    found = track_eigenpairs(changed, **ends, start=start, max_missed_probability=0.01, **options)
    assert float(found.pairs.eigenvalues) == pytest.approx(5.0 * end, rel=1e-3)
    assert found.missed_probability <= 0.01


def test_missed_probability_bounds_how_often_random_parts_miss():
    values = bulk(60, 1.3)
    matrix, vectors = rotated(values)
    blind = vectors[:, 0]  # nothing of the last eigenvector
    for products in (4, 8):
        missed, bounds = [], []
        for seed in range(60):
            numbers = torch.Generator().manual_seed(seed)
            random = torch.randn(60, dtype=torch.float64, generator=numbers)
            found = track_eigenpairs(
                matrix, 0, 1, start=blind, tolerance=1e-15, max_products=products,
                random=random / random.norm(),
            )  # fmt: skip
            missed.append(float(found.pairs.eigenvalues) < 1.3 / 1.1)
            bounds.append(found.missed_probability)
        assert np.mean(missed) <= np.mean(bounds) + 4 * np.sqrt(np.mean(missed) / 60)
    assert np.mean(bounds) < 0.9


def test_track_eigenpairs_says_what_did_not_converge():
    matrix = rotated(torch.linspace(0, 1, 300, dtype=torch.float64))[0]
    found = track_eigenpairs(matrix, 1, 1, start=None, tolerance=1e-6, max_products=8)
    assert found.pairs.num_products == 8
    assert not found.is_converged.any()
    exact = torch.linalg.eigvalsh(matrix)
    for value, norm in zip(found.pairs.eigenvalues, found.pairs.residual_norms, strict=True):
        assert (exact - value).abs().min() <= norm  # an eigenvalue within the residual norm


@pytest.mark.parametrize("size", [1, 2, 3])
def test_track_eigenpairs_ends_in_small_spaces(size):
    matrix = torch.diag(torch.arange(1.0, size + 1, dtype=torch.float64))
    found = track_eigenpairs(matrix, 0, 1, start=None, tolerance=1e-9, max_products=40)
    assert float(found.pairs.eigenvalues) == pytest.approx(size)
    assert found.is_converged.all()


def test_track_eigenpairs_takes_a_matrix_of_zeros():
    found = track_eigenpairs(
        torch.zeros(9, 9, dtype=torch.float64), 0, 1, start=None, tolerance=1e-3, max_products=9
    )
    assert found.pairs.eigenvalues.tolist() == [0.0]


def test_track_eigenpairs_refuses_products_whose_squares_underflow():
    matrix = 1e-16 * torch.eye(9)
    with pytest.raises(ValueError, match="squares lose digits"):
        track_eigenpairs(matrix, 0, 1, start=None, tolerance=1e-3, max_products=9)

"""Ritz pairs and their subsets: which belong to which end, and what they cost."""

from __future__ import annotations

import pytest
import torch
from problems import EPS, matrix_with, normal

from hesspipe.linalg.operator import symmetric_product
from hesspipe.linalg.ritz import Eigenpairs, subset, true_pairs

VALUES = torch.linspace(-2, 5, 30, dtype=torch.float64)


@pytest.fixture
def pairs() -> Eigenpairs:
    """Three pairs at the lower end and four at the upper one, from rough vectors."""
    rows = torch.linalg.qr(normal(30, 7)).Q.T
    found, _ = true_pairs(symmetric_product(matrix_with(VALUES)), rows, 3, 11)
    return found


def test_true_pairs_solve_the_projected_problem(pairs: Eigenpairs) -> None:
    matrix, basis = matrix_with(VALUES), torch.linalg.qr(normal(30, 7)).Q
    expected = torch.linalg.eigvalsh(basis.T @ matrix @ basis)
    assert (pairs.eigenvalues - expected).abs().max() <= 20 * EPS * 5
    residuals = matrix @ pairs.eigenvectors - pairs.eigenvectors * pairs.eigenvalues
    assert (residuals.norm(dim=0) - pairs.residual_norms).abs().max() <= 20 * EPS * 5
    assert (basis.T @ residuals).abs().max() <= 20 * EPS * 5
    assert pairs.residual_norms.min() > 0.01  # they are no eigenvectors
    assert pairs.num_products == 11 + 7
    assert (pairs.num_smallest, pairs.num_largest) == (3, 4)


def test_true_pairs_orthonormalize_their_vectors() -> None:
    matrix, rows = matrix_with(VALUES), torch.linalg.qr(normal(30, 4)).Q.T
    product = symmetric_product(matrix)
    skewed = rows + 0.1 * normal(4, 4, seed=5) @ rows
    one, _ = true_pairs(product, rows, 2, 0)
    other, residuals = true_pairs(product, skewed, 2, 0)
    assert (one.eigenvalues - other.eigenvalues).abs().max() <= 50 * EPS * 5
    gram = other.eigenvectors.T @ other.eigenvectors
    assert (gram - torch.eye(4).double()).abs().max() <= 20 * EPS
    assert (residuals.norm(dim=0) - other.residual_norms).abs().max() <= 20 * EPS * 5


@pytest.mark.parametrize("number", range(128))
def test_subset_counts_the_chosen_pairs_of_each_end(pairs: Eigenpairs, number: int) -> None:
    is_chosen = torch.tensor([bool(number >> bit & 1) for bit in range(7)])
    found = subset(pairs, is_chosen)
    assert found.num_smallest == sum(is_chosen[:3].tolist())
    assert found.num_largest == sum(is_chosen[3:].tolist())
    chosen = [position for position in range(7) if is_chosen[position]]
    assert torch.equal(found.eigenvalues, pairs.eigenvalues[chosen])
    assert torch.equal(found.residual_norms, pairs.residual_norms[chosen])
    assert torch.equal(found.eigenvectors, pairs.eigenvectors[:, chosen])
    assert (found.num_products, found.matrix) == (pairs.num_products, pairs.matrix)

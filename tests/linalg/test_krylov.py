"""Identities of the search basis: projection, restarts, and the bound on missing eigenvectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import EPS, matrix_with

from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import symmetric_product

VALUES = torch.cat([torch.linspace(-1, 1, 60), torch.tensor([1.5, 3.0])]).double()
MATRIX = matrix_with(VALUES)


def ends(count: int, size: int) -> np.ndarray:
    return np.concatenate([np.arange(count), np.arange(size - count, size)])


def test_projection_and_residual_hold_through_restarts() -> None:
    basis = KrylovBasis(symmetric_product(MATRIX), 20, seed=0)
    for restart in range(4):
        while not basis.is_full:
            basis.extend()
        vectors, projected = basis.vectors[:20], torch.from_numpy(basis.projected)
        overlap = basis.vectors @ basis.vectors.T
        assert (overlap - torch.eye(21)).abs().max() <= 50 * EPS
        assert (vectors @ MATRIX @ vectors.T - projected).abs().max() <= 100 * EPS * 3
        relation = MATRIX @ vectors.T - vectors.T @ projected
        relation[:, -1] -= basis.beta * basis.vectors[20]
        assert relation.abs().max() <= 100 * EPS * 3, restart
        ritz = basis.ritz()
        kept = torch.from_numpy(ritz.coefficients).T @ vectors
        true = (MATRIX @ kept.T - kept.T * torch.from_numpy(ritz.values)).norm(dim=0)
        assert (true - torch.from_numpy(ritz.rests)).abs().max() <= 100 * EPS * 3
        basis.restart(ritz, ends(4, 20))
        assert np.array_equal(basis.ritz().rests, ritz.rests[ends(4, 20)])


def test_tracked_components_are_those_of_a_missing_eigenvector() -> None:
    """The identity behind the bound: V u for each eigenvector u, from its eigenvalue only."""
    # Without outliers: none has been found after so few steps.
    matrix = matrix_with(torch.linspace(-1, 1, 200, dtype=torch.float64))
    eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
    basis = KrylovBasis(symmetric_product(matrix), 14, seed=1)
    start = basis.vectors[0].clone()
    basis.watch(np.array([float(eigenvalues[-1]), float(eigenvalues[0])]))
    for _ in range(10):
        basis.extend()
    basis.restart(basis.ritz(), ends(3, 10))
    for _ in range(3):
        basis.extend()
    for row, vector in enumerate((eigenvectors[:, -1], eigenvectors[:, 0])):
        actual = basis.vectors[: basis.size + 1] @ vector / (start @ vector)
        followed = torch.from_numpy(basis._components[row, : basis.size + 1])
        assert (actual - followed).norm() <= 1e-11 * actual.norm()
        # The component of the start along an eigenvector is below the bound.
        assert float((start @ vector).abs()) <= basis.hidden[row] * (1 + 1e-11)


def test_bound_decreases_beyond_the_ritz_values_and_faster_further_out() -> None:
    basis = KrylovBasis(symmetric_product(MATRIX), 30, seed=2)
    basis.watch(np.array([3.1, 4.0, 8.0]))
    bounds = []
    for _ in range(12):
        basis.extend()
        bounds.append(basis.hidden.copy())
    steps = np.array(bounds)
    assert (np.diff(steps, axis=0) < 0).all()
    assert (np.diff(steps[-1]) < 0).all()
    assert steps[-1, 2] < 1e-6


def test_locked_vectors_stay_and_the_search_continues_orthogonal_to_them() -> None:
    basis = KrylovBasis(symmetric_product(MATRIX), 40, seed=3)
    while not basis.is_full:
        basis.extend()
    ritz = basis.ritz()
    basis.lock(ritz, ends(1, 40)[1:])
    assert (basis.num_locked, basis.size, basis.num_starts) == (1, 1, 2)
    locked = basis.vectors[0].clone()
    for _ in range(25):
        basis.extend()
    assert torch.equal(basis.vectors[0], locked)
    # The locked eigenvalue is not found again; the next one is.
    assert basis.ritz().values[-1] == pytest.approx(1.5, abs=1e-6)
    basis.unlock()
    assert basis.ritz().values[-1] == pytest.approx(3.0, abs=1e-10)

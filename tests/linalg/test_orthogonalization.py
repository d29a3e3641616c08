"""Gram-Schmidt on vectors almost inside the span of the basis."""

from __future__ import annotations

import torch
from problems import EPS, normal

from hesspipe.linalg.orthogonalization import orthogonalize


def test_orthogonalize_removes_in_a_second_pass_what_one_leaves() -> None:
    basis = torch.linalg.qr(normal(3000, 12, seed=2)).Q.T.contiguous()
    inside, outside = basis.T @ normal(12), normal(3000, seed=3)
    outside -= basis.T @ (basis @ outside)
    vector = inside + 1e-12 * outside / outside.norm()
    found, coefficients, norm = orthogonalize(vector, basis)
    assert (basis @ found).norm() <= 10 * EPS * norm
    assert abs(norm - 1e-12) <= 1e-2 * 1e-12
    assert (coefficients - basis @ vector).norm() <= 10 * EPS * vector.norm()
    assert torch.equal(vector, inside + 1e-12 * outside / outside.norm())  # not changed


def test_orthogonalize_against_nothing_is_the_vector() -> None:
    vector = normal(5)
    found, coefficients, norm = orthogonalize(vector, vector.new_zeros(0, 5))
    assert torch.equal(found, vector)
    assert len(coefficients) == 0
    assert norm == float(vector.norm())

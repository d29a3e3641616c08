"""Defaults of the matrix-free methods, and the certificate of both signs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from problems import matrix_with, normal

from hesspipe.errors import InconsistentMatrixError, NotConvergedError
from hesspipe.linalg import eigenpairs as module
from hesspipe.linalg.density import density
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.lanczos import tridiagonalize
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.spectrum import matrix_spectrum

MATRIX = matrix_with(normal(300, seed=5))


@pytest.mark.parametrize(
    ("num_smallest", "num_largest", "basis_size", "capacity"),
    [(0, 1, None, 62), (3, 2, None, 70), (0, 140, None, 300), (1, 1, 20, 20), (0, 5, 400, 300)],
)
def test_basis_holds_twice_the_wanted_pairs_and_sixty_by_default(
    num_smallest: int,
    num_largest: int,
    basis_size: int | None,
    capacity: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trade of memory against products that benchmarks/eigenpairs.md measured."""
    made: list[int] = []

    class Recorded(KrylovBasis):
        def __init__(self, product: Any, capacity: int, *arguments: Any) -> None:
            made.append(capacity)
            super().__init__(product, capacity, *arguments)

    monkeypatch.setattr(module, "KrylovBasis", Recorded)
    with pytest.raises(NotConvergedError):
        eigenpairs(
            MATRIX,
            num_smallest=num_smallest,
            num_largest=num_largest,
            basis_size=basis_size,
            max_products=1,
        )
    assert made == [capacity]


@pytest.mark.parametrize(("num_smallest", "num_largest"), [(0, 1), (1, 0), (2, 0), (0, 2)])
def test_pairs_of_one_end_only_are_found(num_smallest: int, num_largest: int) -> None:
    found = eigenpairs(MATRIX, num_smallest=num_smallest, num_largest=num_largest)
    exact = torch.linalg.eigvalsh(MATRIX)
    expected = torch.cat([exact[:num_smallest], exact[300 - num_largest :]])
    assert (found.eigenvalues - expected).abs().max() <= 1e-7


@pytest.mark.parametrize("num_wanted", [1, 4])
def test_error_of_a_search_that_is_stopped_has_the_pairs_of_zero(num_wanted: int) -> None:
    """Every vector is an eigenvector, with a residual and a tolerance of exactly zero."""
    zeros = torch.zeros(40, 40, dtype=torch.float64)
    with pytest.raises(NotConvergedError, match="max_products is reached") as info:
        eigenpairs(zeros, num_largest=num_wanted, max_products=num_wanted)
    converged = info.value.converged
    assert converged.eigenvalues.tolist() == [0.0] * num_wanted
    assert converged.residual_norms.tolist() == [0.0] * num_wanted
    assert (converged.num_smallest, converged.num_largest) == (0, num_wanted)


def test_density_has_three_probes_by_default() -> None:
    """Two would leave one probe to compare with, and exact counts to luck."""
    assert len(density(MATRIX, num_steps=3).nodes) == 3


@pytest.mark.parametrize("sign", [-1, 1])
def test_certificate_covers_both_signs(sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As (-0.1, 1, 1), whose sums three positive numbers share, and mirrored."""
    values = matrix_with(sign * torch.tensor([-0.1, 1.0, 1.0], dtype=torch.float64))
    wrong = np.sort(sign * np.roots([1.0, -1.9, 0.8, -0.05]))
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda _: torch.from_numpy(wrong))
    with pytest.raises(InconsistentMatrixError, match=r"L D L\^T counts"):
        matrix_spectrum(values, matrix="test", method="given")


@pytest.mark.parametrize("step", [2, 3, 6])
def test_operator_whose_asymmetry_shows_late_is_refused(step: int) -> None:
    """A coupling to an earlier vector alone, which is none of the two that T has."""
    size = 8
    matrix = torch.diag(torch.arange(1.0, size + 1)).double()
    matrix += torch.diag(torch.ones(size - 1).double(), 1)
    matrix += torch.diag(torch.ones(size - 1).double(), -1)
    start = torch.eye(size, dtype=torch.float64)[0]
    plain = tridiagonalize(matrix, start, size)
    assert plain.asymmetry <= 1e-14
    matrix[0, step] += 1e-3

    # A product, because the check of an operator at the beginning is another one.
    product = SymmetricProduct(
        lambda vector: matrix @ vector, size, torch.float64, torch.device("cpu")
    )
    with pytest.raises(ValueError, match=f"must be symmetric .* in step {step + 1}, where"):
        tridiagonalize(product, start, size)

"""Extreme eigenpairs against prescribed and dense spectra: values, multiplicities, residuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, check_eigenpairs, matrix_with, normal
from torch import Tensor

from hesspipe.errors import NotConvergedError, TooLargeError
from hesspipe.linalg.eigenpairs import eigenpairs


class Counted:
    """A matrix that counts its products, and can fail after some."""

    def __init__(self, matrix: Tensor, most: int | None = None) -> None:
        self.matrix, self.most = matrix, most
        self.shape, self.dtype, self.device = tuple(matrix.shape), matrix.dtype, matrix.device
        self.num_products = 0

    def __matmul__(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        if self.most is not None and self.num_products > self.most:
            raise KeyboardInterrupt
        return self.matrix @ vector


SPECTRA: dict[str, Tensor] = {
    "outliers at both ends": torch.cat(
        [-torch.linspace(3, 9, 5), torch.linspace(-1, 1, 285), torch.linspace(5, 50, 10)]
    ),
    "bulk alone": normal(300, seed=5),
    "decades": 10.0 ** torch.linspace(-1, 2, 300),
    "multiple": torch.cat([torch.linspace(0, 1, 290), torch.tensor([5.0, 7, 9]).repeat(4)[2:]]),
    "multiple at both ends": torch.tensor([-4.0, -4, -4, -3, 6, 6, 8, 8]).repeat(3),
    "null space": torch.cat([torch.zeros(250), torch.linspace(1, 9, 50)]),
    "pairs of signs": torch.cat([torch.linspace(1, 9, 150), -torch.linspace(1, 9, 150)]),
    "identity": torch.ones(30),
    "zero": torch.zeros(30),
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("num_smallest", "num_largest"), [(0, 8), (6, 0), (4, 6)])
@pytest.mark.parametrize("name", SPECTRA)
def test_eigenpairs_are_the_prescribed_ones(
    name: str, num_smallest: int, num_largest: int, seed: int
) -> None:
    values = SPECTRA[name].double()
    matrix = matrix_with(values)
    found = eigenpairs(
        matrix, num_smallest=num_smallest, num_largest=num_largest, seed=seed, tolerance=1e-10
    )
    check_eigenpairs(found, matrix, values, 1e-10)


def test_multiplicity_needs_the_second_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard: one Krylov space contains one vector per eigenvalue."""
    monkeypatch.setattr("hesspipe.linalg.thick_restart.PairSearch._look_again", lambda *_: True)
    found = eigenpairs(matrix_with(SPECTRA["multiple"].double()), num_largest=3)
    assert found.eigenvalues[0] < 8  # the true ones are 9, 9, 9


def test_float32_finds_each_eigenvalue_with_its_multiplicity() -> None:
    values = SPECTRA["multiple"].double()
    matrix = matrix_with(values, torch.float32)
    found = eigenpairs(matrix, num_largest=9, tolerance=5e-6)
    assert found.eigenvectors.dtype == torch.float32
    check_eigenpairs(found, matrix, values, 5e-6)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_all_pairs_of_a_small_matrix_are_its_decomposition(size: int) -> None:
    values = normal(size, seed=8)
    matrix = matrix_with(values)
    for num_smallest in range(size + 1):
        found = eigenpairs(matrix, num_smallest=num_smallest, num_largest=size - num_smallest)
        check_eigenpairs(found, matrix, values, 1e-12)


def test_scaling_the_operator_scales_the_values_alone() -> None:
    matrix = matrix_with(SPECTRA["outliers at both ends"].double())
    found, scaled = eigenpairs(matrix), eigenpairs(matrix * 2.0**-30)
    assert torch.equal(found.eigenvectors, scaled.eigenvectors)
    assert torch.equal(found.eigenvalues * 2.0**-30, scaled.eigenvalues)


def test_num_products_counts_them_all() -> None:
    operator = Counted(matrix_with(SPECTRA["bulk alone"].double()))
    found = eigenpairs(operator, num_largest=5)
    assert operator.num_products == found.num_products + 2  # the test of symmetry makes two


def test_non_convergence_carries_what_converged() -> None:
    values = torch.cat([torch.linspace(-1, 1, 298), torch.tensor([50.0, 100.0])]).double()
    matrix = matrix_with(values)
    with pytest.raises(NotConvergedError, match=r"^2 of 5 eigenpairs converged in 30 pro") as info:
        eigenpairs(matrix, num_largest=5, max_products=30)
    converged = info.value.converged
    assert (converged.num_smallest, converged.num_largest) == (0, 2)
    check_eigenpairs(converged, matrix, values, 1e-8)


def test_eigenpairs_refuses_products_whose_noise_makes_them_asymmetric() -> None:
    class Noisy(Counted):
        def __matmul__(self, vector: Tensor) -> Tensor:
            product = super().__matmul__(vector)
            return product + 1e-9 * product.norm() * normal(len(vector), seed=self.num_products)

    operator = Noisy(matrix_with(SPECTRA["outliers at both ends"].double()))
    with pytest.raises(ValueError, match="operator must be symmetric"):
        eigenpairs(operator, num_largest=3, tolerance=1e-10)


def test_interrupted_search_resumes_and_ends_the_same(tmp_path: Path) -> None:
    matrix = matrix_with(SPECTRA["bulk alone"].double())
    state = tmp_path / "search.safetensors"
    options: dict[str, Any] = {"num_smallest": 2, "num_largest": 4, "basis_size": 20}
    whole = Counted(matrix)
    expected = eigenpairs(whole, **options, state=tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()
    num_interruptions = 0
    while True:
        operator = Counted(matrix, most=40)
        try:
            found = eigenpairs(operator, **options, state=state)
            break
        except KeyboardInterrupt:
            assert state.exists()
            num_interruptions += 1
    assert num_interruptions >= 2
    assert operator.num_products < whole.num_products - 50  # finished work is not repeated
    assert torch.equal(found.eigenvalues, expected.eigenvalues)
    assert torch.equal(found.eigenvectors, expected.eigenvectors)
    assert not state.exists()


def test_foreign_state_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "search.safetensors"
    values = SPECTRA["bulk alone"].double()
    matrix = matrix_with(values)
    with pytest.raises(NotConvergedError):
        eigenpairs(matrix, num_largest=8, max_products=60, basis_size=20, state=state)
    assert state.exists()
    with pytest.raises(ValueError, match=r"got .*search\.safetensors with other settings"):
        eigenpairs(matrix, num_largest=7, basis_size=20, state=state)
    with pytest.raises(ValueError, match="another operator"):
        eigenpairs(1.001 * matrix, num_largest=8, basis_size=20, state=state)
    resumed = eigenpairs(matrix, num_largest=8, basis_size=20, state=state)
    check_eigenpairs(resumed, matrix, values, 1e-8)


def test_progress_shows_how_many_converged(capsys: pytest.CaptureFixture[str]) -> None:
    eigenpairs(matrix_with(SPECTRA["bulk alone"].double()), num_largest=3, progress=True)
    shown = capsys.readouterr().err
    assert "eigenpairs, operator" in shown
    assert "3/3" in shown
    assert "0/3" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_largest": 0}, "num_smallest \\+ num_largest must be 1 to P = 20, got 0"),
        ({"num_largest": 15, "num_smallest": 6}, "must be 1 to P = 20, got 21"),
        ({"num_smallest": -1}, "num_smallest must be at least 0, got -1"),
        (
            {"tolerance": 1e-16},
            "tolerance must be at least 2.220446049250313e-15 in torch.float64, got 1e-16",
        ),
        ({"max_products": 0}, "max_products must be at least 1, got 0"),
        ({"num_largest": 5, "basis_size": 6}, "basis_size must be at least 7, got 6"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eigenpairs(matrix_with(normal(20)), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tolerance_that_a_refusal_states_is_accepted(dtype: torch.dtype) -> None:
    matrix = torch.diag(torch.arange(1.0, 5)).to(dtype)
    with pytest.raises(ValueError, match="tolerance must be at least") as refused:
        eigenpairs(matrix, num_largest=2, tolerance=0.0)
    stated = float(str(refused.value).split("at least ")[1].split(" in ")[0])
    found = eigenpairs(matrix, num_largest=2, tolerance=stated)
    assert found.eigenvalues.tolist() == pytest.approx([3, 4], rel=stated)


def test_basis_that_does_not_fit_is_refused_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: 1000)
    with pytest.raises(TooLargeError, match=r"a basis of 81 vectors of length P = 300"):
        eigenpairs(matrix_with(SPECTRA["bulk alone"].double()))


def test_block_products_of_the_operator_are_not_needed() -> None:
    """Operators that multiply only single vectors are sufficient."""
    matrix = matrix_with(SPECTRA["decades"].double())
    found = eigenpairs(Counted(matrix), num_largest=2)
    expected = np.sort(SPECTRA["decades"].double())[-2:]
    assert np.abs(found.eigenvalues.numpy() - expected).max() <= 1e-8 * 100
    assert found.residual_norms.max() > EPS

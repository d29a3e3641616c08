"""Residuals confirmed by one product, and copies that other locked vectors could hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from problems import EPS, check_eigenpairs, matrix_with, normal
from torch import Tensor

from hesspipe.errors import NotConvergedError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.operator import symmetric_product
from hesspipe.linalg.ritz import _DELTA, _probes, confirmed_pairs

VALUES = torch.linspace(-1, 6, 80, dtype=torch.float64)
MATRIX = matrix_with(VALUES)
BULK = torch.linspace(-1, 1, 230, dtype=torch.float64)


def predicted(sizes: Tensor, rest: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Orthonormal columns whose residuals are close to multiples of one vector."""
    values, vectors = torch.linalg.eigh(MATRIX)
    columns = torch.linalg.qr(vectors[:, -4:] + rest.outer(sizes)).Q
    columns = columns * (columns * vectors[:, -4:]).sum(0).sign()
    residuals = MATRIX @ columns - columns * values[-4:]
    unit = residuals[:, 0] / residuals[:, 0].norm()
    return columns, (values[-4:], unit @ residuals, unit)


@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("size", [1e-9, 1e-7])
def test_confirmed_pairs_refuses_one_residual_that_was_not_predicted(
    wrong: int, size: float
) -> None:
    vectors = torch.linalg.eigh(MATRIX).eigenvectors
    values = torch.linalg.eigvalsh(MATRIX)[-4:]
    known = (values, torch.zeros(4, dtype=torch.float64), vectors[:, 0])
    product = symmetric_product(MATRIX)
    found, made = confirmed_pairs(product, vectors[:, -4:], known, 0, 7, 1e-8)
    assert found is not None
    assert (found.num_products, made) == (8, 8)
    tilted = vectors[:, -4:].clone()
    tilted[:, wrong] += size * vectors[:, 3]
    found, made = confirmed_pairs(product, tilted, known, 0, 7, 1e-8)
    assert found is None
    assert made == 8


@pytest.mark.parametrize("wrong", range(10))
@pytest.mark.parametrize("allowed", [1e-4, 4e-4])
def test_confirmed_pairs_makes_more_products_in_float32(wrong: int, allowed: float) -> None:
    """Where a ten-thousandth of what is allowed would be rounding: three or two tell enough."""
    matrix = torch.diag(torch.linspace(0.5, 1, 300, dtype=torch.float64)).float()
    values, rest = torch.linspace(0.5, 1, 300, dtype=torch.float64)[-10:], torch.eye(300)[0]
    columns, number = torch.eye(300)[:, -10:].contiguous(), 3 if allowed == 1e-4 else 2
    known = (values, torch.zeros(10, dtype=torch.float64), rest)
    product = symmetric_product(matrix)
    found, made = confirmed_pairs(product, columns, known, 0, 7, allowed)
    assert found is not None
    assert found.num_products == made == 7 + number
    assert found.residual_norms.max() <= 10 * torch.finfo(torch.float32).eps
    columns[:, wrong] += 2.5 * allowed * torch.eye(300)[:, 20]
    found, made = confirmed_pairs(product, columns, known, 0, 7, allowed)
    assert found is None
    assert made <= 7 + number


@pytest.mark.parametrize("num_pairs", [1, 2, 3])
def test_confirmed_pairs_makes_fewer_products_than_pairs_or_none(num_pairs: int) -> None:
    product = symmetric_product(torch.diag(torch.linspace(0.5, 1, 300)))
    values = torch.linspace(0.5, 1, 300, dtype=torch.float64)[-num_pairs:]
    known = (values, torch.zeros(num_pairs, dtype=torch.float64), torch.eye(300)[0])
    found = confirmed_pairs(product, torch.eye(300)[:, -num_pairs:], known, 0, 7, 1e-4)
    assert found == (None, 7)


def test_probes_miss_a_wrong_residual_with_the_stated_probability() -> None:
    """The first of them is normal along the error, and so are the others, independently."""
    for number in (1, 2, 3):
        at_most = _DELTA ** (1 / number)
        assert (2 * float(torch.special.ndtr(torch.tensor(at_most)) - 0.5)) ** number <= _DELTA
        assert _probes(1.0, at_most, 10) == (number, at_most)
    assert _probes(1.0, 0.9, 10) == (0, 0.0)


def test_confirmed_pairs_gives_the_residuals_of_the_vectors() -> None:
    rest = torch.linalg.eigh(MATRIX).eigenvectors[:, 10]
    columns, known = predicted(torch.tensor([1e-9, 0, 2e-10, 0]).double(), rest)
    found, _ = confirmed_pairs(symmetric_product(MATRIX), columns, known, 0, 0, 1e-7)
    assert found is not None
    true = (MATRIX @ columns - columns * known[0]).norm(dim=0)
    assert true.max() > 1e-9
    assert (found.residual_norms - true).abs().max() <= 20 * EPS * 6


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-5, 1e-3])
@pytest.mark.parametrize("place", [1.05, 1.3, 4.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_copies_near_each_wanted_value_are_found(place: float, apart: float, seed: int) -> None:
    """The last wanted value next to the bulk, in the gap, and among the outliers."""
    copies = torch.tensor([place, place + apart, place + 2 * apart], dtype=torch.float64)
    outliers = torch.tensor([3.0, 4.0, 5.0, 5.0, 7.0], dtype=torch.float64)
    values = torch.cat([BULK, copies, outliers])
    matrix = matrix_with(values)
    for num_largest in (6, 7, 8):
        found = eigenpairs(matrix, num_largest=num_largest, seed=seed, tolerance=1e-9)
        check_eigenpairs(found, matrix, values, 1e-9)
    found = eigenpairs(matrix, num_dominant=8, seed=seed, tolerance=1e-9)
    check_eigenpairs(found, matrix, values, 1e-9)


@pytest.mark.parametrize("change", [1e-5, 1e-3])
@pytest.mark.parametrize("seed", [0, 1])
def test_eigenpairs_refuses_products_of_changing_scale(change: float, seed: int) -> None:
    made: list[int] = []

    class Changing:
        shape, dtype, device = MATRIX.shape, MATRIX.dtype, MATRIX.device

        def __matmul__(self, vector: Tensor) -> Tensor:
            made.append(1)
            return (1 + change * float(normal(1, seed=len(made)))) * (MATRIX @ vector)

    with pytest.raises((NotConvergedError, ValueError), match=r"estimates|symmetric"):
        eigenpairs(Changing(), num_largest=3, seed=seed, max_products=2000)


def test_state_of_an_older_search_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "search.safetensors"
    options: dict[str, Any] = {"num_largest": 6, "basis_size": 16, "state": state}
    matrix = matrix_with(torch.cat([BULK, torch.tensor([1.01, 2, 3]).double()]))
    with pytest.raises(NotConvergedError):
        eigenpairs(matrix, **options, max_products=60)
    tensors, about = read_tensors(state)
    del tensors["couplings"]
    write_tensors(tensors, state, about)
    found = eigenpairs(matrix, **options)
    assert (
        "cannot be resumed (it lacks 'couplings'; another version may have written it)"
        in caplog.text
    )
    assert found.eigenvalues[-1] == pytest.approx(3, abs=1e-7)

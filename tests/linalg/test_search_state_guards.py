"""A saved search is resumed for the same problem only, and to the same end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from problems import check_eigenpairs, matrix_with, normal

from hesspipe.errors import DamagedFileError, NotConvergedError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.operator import SymmetricProduct

VALUES = normal(120, seed=5)
MATRIX = matrix_with(VALUES)
OPTIONS: dict[str, Any] = {"num_smallest": 2, "num_largest": 4, "basis_size": 20, "seed": 3}


# As an operator of an objective, which has a name.
NAMED = SymmetricProduct(
    lambda vector: MATRIX @ vector, 120, MATRIX.dtype, MATRIX.device, "hessian"
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of a search that was stopped."""
    path = tmp_path / "search.safetensors"
    with pytest.raises(NotConvergedError):
        eigenpairs(MATRIX, **OPTIONS, max_products=60, state=path)
    assert path.exists()
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"num_smallest": 1}, {"num_largest": 5}, {"basis_size": 21}, {"seed": 4},
        {"tolerance": 1e-7}, {"num_smallest": 4, "num_largest": 2},
    ],
    ids=str,
)  # fmt: skip
def test_load_refuses_a_search_with_other_settings(state: Path, changes: dict[str, Any]) -> None:
    before = state.read_bytes()
    with pytest.raises(ValueError, match=r"got .*search\.safetensors with other settings"):
        eigenpairs(MATRIX, **OPTIONS | changes, state=state)
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    "operator",
    [MATRIX.float(), NAMED, matrix_with(normal(119, seed=5))],
    ids=["dtype", "name", "size"],
)
def test_load_refuses_a_search_of_another_kind_of_operator(state: Path, operator: Any) -> None:
    options = OPTIONS | ({"tolerance": 1e-5} if operator.dtype == torch.float32 else {})
    with pytest.raises(ValueError, match="with other settings"):
        eigenpairs(operator, **options, state=state)


@pytest.mark.parametrize("change", [1e-9, -1e-9, 1e-3])
def test_load_refuses_an_operator_that_differs_a_little(state: Path, change: float) -> None:
    with pytest.raises(ValueError, match="another operator"):
        eigenpairs((1 + change) * MATRIX, **OPTIONS, state=state)
    other = MATRIX.clone()
    other[3, 7] += change
    other[7, 3] += change
    with pytest.raises(ValueError, match="another operator"):
        eigenpairs(other, **OPTIONS, state=state)


def test_load_accepts_rounding_of_the_same_operator(state: Path) -> None:
    # Another number of threads adds in another order.
    found = eigenpairs((1 + 2e-16) * MATRIX, **OPTIONS, state=state)
    check_eigenpairs(found, MATRIX, VALUES, 1e-8)
    assert not state.exists()


def test_load_refuses_a_damaged_state(state: Path) -> None:
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(DamagedFileError, match=r"search\.safetensors"):
        eigenpairs(MATRIX, **OPTIONS, state=state)


@pytest.mark.parametrize("name", ["key", "exponent", "num_starts", "image", "vectors", "hidden"])
def test_load_refuses_a_state_of_another_version(state: Path, name: str) -> None:
    tensors, metadata = read_tensors(state)
    tensors.pop(name, None)
    metadata.pop(name, None)
    write_tensors(tensors, state, metadata)
    with pytest.raises(
        DamagedFileError, match=rf"search\.safetensors .*not a search .* lacks '{name}'"
    ):
        eigenpairs(MATRIX, **OPTIONS, state=state)


def test_state_counts_the_product_that_identifies_the_operator(tmp_path: Path) -> None:
    plain = eigenpairs(MATRIX, **OPTIONS)
    saved = eigenpairs(MATRIX, **OPTIONS, state=tmp_path / "search.safetensors")
    assert saved.num_products == plain.num_products + 1
    assert torch.equal(saved.eigenvalues, plain.eigenvalues)

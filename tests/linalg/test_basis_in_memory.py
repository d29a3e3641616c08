"""The size of the basis of a search, where memory has no room for all of its vectors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import check_eigenpairs, matrix_with, normal

from hesspipe import hardware
from hesspipe.errors import TooLargeError
from hesspipe.linalg import eigenpairs as module
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.krylov import KrylovBasis

SIZE = 400
# A double and a triple eigenvalue among the wanted ones, at both ends.
VALUES = torch.cat([
    torch.linspace(-1, 1, SIZE - 8, dtype=torch.float64),
    torch.tensor([3.0, 3.0, 4.0, 6.0, 6.0, 6.0, -5.0, -5.0], dtype=torch.float64),
])  # fmt: skip
MATRIX = matrix_with(VALUES)
WANTED: dict[str, Any] = {"num_smallest": 2, "num_largest": 6}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of vectors of the bases that are made."""
    numbers: list[int] = []

    class Recorded(KrylovBasis):
        def __init__(self, product: Any, capacity: int, *arguments: Any) -> None:
            numbers.append(capacity)
            super().__init__(product, capacity, *arguments)

    monkeypatch.setattr(module, "KrylovBasis", Recorded)
    return numbers


def _room_for(num_vectors: int, monkeypatch: pytest.MonkeyPatch, element_bytes: int = 8) -> None:
    monkeypatch.setattr(hardware, "available_bytes", lambda: num_vectors * SIZE * element_bytes)


@pytest.mark.parametrize(
    ("room", "capacity"), [(10_000, 76), (95, 76), (94, 75), (50, 31), (35, 16)]
)
def test_basis_has_the_vectors_that_fit_beside_the_results(
    room: int, capacity: int, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 pairs 76 vectors are wanted; 8 results, 10 of the product and the next one have room."""
    _room_for(room, monkeypatch)
    found = eigenpairs(MATRIX, **WANTED)
    assert made == [capacity]
    expected = torch.cat([VALUES.sort().values[:2], VALUES.sort().values[-6:]])
    assert (found.eigenvalues - expected).abs().max() <= 1e-13 * 6
    check_eigenpairs(found, MATRIX, VALUES, 1e-8)


def test_smaller_basis_is_told_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        eigenpairs(MATRIX, **WANTED)
        assert not caplog.records
        _room_for(50, monkeypatch)
        eigenpairs(MATRIX, **WANTED)
    assert "no room for a basis of 76 vectors of length P = 400: the search has one of 31" in (
        caplog.text
    )


def test_search_is_refused_where_the_least_basis_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _room_for(34, monkeypatch)
    with pytest.raises(TooLargeError, match="a basis of 77 vectors of length P = 400"):
        eigenpairs(MATRIX, **WANTED)


def test_given_basis_size_is_refused_rather_than_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    _room_for(50, monkeypatch)
    with pytest.raises(TooLargeError, match="a basis of 61 vectors"):
        eigenpairs(MATRIX, **WANTED, basis_size=60)


@pytest.mark.parametrize("room", [30, 10_000])
def test_search_is_resumed_with_the_basis_that_it_had(
    room: int, made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "search.safetensors"
    matrix = matrix_with(normal(SIZE, seed=3))
    _room_for(50, monkeypatch)
    whole = eigenpairs(matrix, **WANTED)
    with pytest.raises(Exception, match="max_products is reached"):
        eigenpairs(matrix, **WANTED, state=state, max_products=90)
    assert state.exists()
    _room_for(room, monkeypatch, element_bytes=8 if room > 50 else 16)
    resumed = eigenpairs(matrix, **WANTED, state=state)
    assert made == [31, 31, 31]
    assert torch.equal(resumed.eigenvalues, whole.eigenvalues)
    assert torch.equal(resumed.eigenvectors, whole.eigenvectors)


@pytest.mark.parametrize("room", [95, 35])
def test_few_vectors_in_float32_keep_their_digits_and_multiplicities(
    room: int, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _room_for(room, monkeypatch, element_bytes=4)
    found = eigenpairs(MATRIX.float(), **WANTED, tolerance=1e-5)
    assert made == [76 if room == 95 else 16]
    expected = torch.cat([VALUES.sort().values[:2], VALUES.sort().values[-6:]])
    assert (found.eigenvalues - expected).abs().max() <= 1e-5

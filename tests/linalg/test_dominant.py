"""Eigenpairs of the largest magnitude, from whichever end, with their multiplicities."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import EPS, matrix_with
from torch import Tensor

from hesspipe.errors import NotConvergedError
from hesspipe.linalg.eigenpairs import eigenpairs

# Eigenvalues, and the number of pairs.
SPECTRA: dict[str, tuple[Tensor, int]] = {
    "both ends, multiple": (
        torch.cat([torch.linspace(-1, 1, 200), torch.tensor([5.0, 5, -5, -5, -7, 3])]), 6),
    "zeros at the lower end": (torch.cat([torch.zeros(300), torch.tensor([1.0, 2, 3, 3, 9])]), 4),
    "negative": (-torch.linspace(0, 1, 50), 5),
    "all": (torch.linspace(-2, 1, 30), 30),
    "one": (torch.tensor([-3.0]), 1),
    "zero": (torch.zeros(8), 3),
    "a hidden pair at the other end": (
        torch.cat([torch.linspace(-1, 1, 150), torch.tensor([4.0, 3.9, 3.8, -3.85, -3.85])]), 4),
    "tiny": (1e-180 * torch.tensor([1.0, -2, 3, 0.5, -0.1], dtype=torch.float64), 2),
}  # fmt: skip


def check(values: Tensor, num_pairs: int, found: Any) -> None:
    values = values.double()
    expected = values.abs().sort().values[-num_pairs:]
    scale = float(expected.max()) or 1.0
    assert (found.eigenvalues.abs().sort().values - expected).abs().max() <= 500 * EPS * scale
    # Each is an eigenvalue with its sign, as often as it is there.
    chosen = values[np.argsort(-values.abs().numpy(), kind="stable")[:num_pairs]]
    if len(values) == num_pairs or values.abs().sort().values[-num_pairs - 1] < expected[0]:
        difference = found.eigenvalues - chosen.sort().values
        assert difference.abs().max() <= 500 * EPS * scale
        # Rounding may give a zero either sign.
        assert int((chosen < 0).sum()) <= found.num_smallest <= int((chosen <= 0).sum())
    assert (found.residual_norms <= 1e-8 * scale).all()
    assert found.num_smallest + found.num_largest == num_pairs


@pytest.mark.parametrize("name", SPECTRA)
def test_dominant_pairs_are_those_of_largest_magnitude(name: str) -> None:
    values, num_pairs = SPECTRA[name]
    check(values, num_pairs, eigenpairs(matrix_with(values.double()), num_dominant=num_pairs))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=25),
    st.integers(1, 25),
    st.integers(0, 3),
)
def test_dominant_pairs_of_small_matrices_with_multiple_values(
    values: list[int], num_pairs: int, seed: int
) -> None:
    spectrum, num_pairs = torch.tensor(values).double(), min(num_pairs, len(values))
    found = eigenpairs(matrix_with(spectrum), num_dominant=num_pairs, seed=seed)
    check(spectrum, num_pairs, found)


def test_dominant_pairs_of_an_interrupted_search_are_the_same(tmp_path: Path) -> None:
    values, num_pairs = SPECTRA["a hidden pair at the other end"]
    matrix, state = matrix_with(values.double()), tmp_path / "search.safetensors"
    options: dict[str, Any] = {"num_dominant": num_pairs, "basis_size": 12, "state": state}
    expected = eigenpairs(matrix, num_dominant=num_pairs, basis_size=12)
    assert expected.num_products > 30
    num_interruptions = 0
    for most in range(15, expected.num_products, 15):
        with contextlib.suppress(NotConvergedError):
            eigenpairs(matrix, **options, max_products=most, keep_state=True)
            break
        num_interruptions += 1
    assert num_interruptions >= 2
    assert torch.equal(eigenpairs(matrix, **options).eigenvalues, expected.eigenvalues)


def test_dominant_pairs_exclude_numbers_of_pairs_at_ends() -> None:
    matrix = torch.eye(4, dtype=torch.float64)
    for options in ({"num_smallest": 1}, {"num_largest": 2}):
        with pytest.raises(ValueError, match="num_dominant must be given without num_smallest"):
            eigenpairs(matrix, num_dominant=1, **options)
    with pytest.raises(ValueError, match="num_dominant must be at least 0, got -1"):
        eigenpairs(matrix, num_dominant=-1)

"""Sums over many entries in float32, against float64."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

import hesspipe
from hesspipe.linalg.vector_space import (
    VectorSpace,
    inner,
    norm,
    normal_blocks,
    orthonormal,
    sign_blocks,
)
from hesspipe.seeding import generator

_EPS = torch.finfo(torch.float32).eps
# Below, at and above the lengths of the blocks that are summed at once.
_LENGTHS = (1, 255, 256, 257, 4_095, 4_096, 4_097, 1_000_003)


def _columns(length: int, count: int = 4) -> Tensor:
    """Columns of a few thousand in size, in float32: (length, count), all but parallel."""
    random = torch.randn(length, count, generator=generator(length, "columns"))
    return 3000.0 + random


@pytest.mark.parametrize("length", _LENGTHS)
def test_norm_in_float32_is_right_to_a_few_eps(length: int) -> None:
    columns = _columns(length)
    expected = columns.double().norm(dim=0)
    assert ((norm(columns, 0) - expected).abs() <= 4 * _EPS * expected).all()
    assert abs(norm(columns[:, 0].contiguous()) - expected[0]) <= 4 * _EPS * expected[0]
    assert norm(columns, 0).dtype == torch.float32


@pytest.mark.parametrize("length", _LENGTHS)
def test_inner_in_float32_is_right_to_a_few_eps(length: int) -> None:
    columns = _columns(length)
    expected = columns.double().mT @ columns.double()
    for found, right in (
        (inner(columns.mT, columns), expected),
        (inner(columns.mT, columns[:, 1]), expected[:, 1]),
        (inner(columns[:, 0], columns[:, 1]), expected[0, 1]),
    ):
        assert found.shape == right.shape
        assert (found - right).abs().max() <= 16 * _EPS * right.abs().max()


@pytest.mark.parametrize("length", [*_LENGTHS, 2**14, 2**14 + 1])
def test_rough_inner_in_float32_has_six_digits(length: int) -> None:
    columns = _columns(length)
    expected = columns.double().mT @ columns[:, 1].double()
    found = VectorSpace(length).inner(
        columns.mT.contiguous(), columns[:, 1].contiguous(), is_rough=True
    )
    assert found.dtype == torch.float32
    assert ((found - expected).abs() <= 5e-6 * expected).all()


@pytest.mark.parametrize("length", [7, 4_097, 2 * 4_096 + 3, 1_000_003])
def test_orthonormal_in_float32_is_orthonormal_and_spans_the_columns(length: int) -> None:
    columns = torch.randn(length, 4, generator=generator(length, "columns"))
    basis, factor = orthonormal(columns)
    gram = basis.double().mT @ basis.double()
    assert (gram - torch.eye(4)).abs().max() <= 40 * _EPS
    error = (basis @ factor - columns).double().norm()
    assert error <= 40 * _EPS * columns.double().norm()


def test_orthonormal_of_few_rows_and_many_columns_keeps_shapes() -> None:
    basis, factor = orthonormal(torch.randn(4_098, 5, generator=generator(0, "columns")))
    assert (basis.shape, factor.shape) == ((4_098, 5), (5, 5))


@pytest.mark.parametrize("function", [norm, lambda x: inner(x, x)])
def test_sums_in_float64_are_those_of_torch(function: object) -> None:
    vector = torch.randn(20_000, generator=generator(0, "vector"), dtype=torch.float64)
    expected = vector.norm() if function is norm else vector @ vector
    assert function(vector) == expected  # type: ignore[operator]


class _Diagonal:
    """The largest eigenvalues are 100, 60, 30, of vectors that have an entry everywhere."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, length: int) -> None:
        self.shape = (length, length)
        self.waves = torch.ones(3, length)
        self.waves[1, ::2] = self.waves[2, length // 2 :] = -1.0
        self.waves /= length**0.5
        self.values = torch.tensor([100.0, 60.0, 30.0])

    def __matmul__(self, vector: Tensor) -> Tensor:
        parts = (self.waves.double() @ vector.double()).float()
        return self.waves.mT @ (self.values * parts)


def test_eigenpairs_in_float32_have_seven_digits_whatever_their_length() -> None:
    pairs = hesspipe.eigenpairs(_Diagonal(300_000), num_largest=3, tolerance=1e-5)
    expected = torch.tensor([30.0, 60.0, 100.0], dtype=torch.float64)
    assert ((pairs.eigenvalues - expected).abs() <= 1e-6 * expected).all()
    gram = pairs.eigenvectors.double().mT @ pairs.eigenvectors.double()
    assert (gram - torch.eye(3)).abs().max() <= 1e-6


@pytest.mark.parametrize("dim", [1, 16, 2**16 - 1, 2**16 + 5, 2**16 + 16, 2**17 + 3])
def test_random_blocks_are_the_entries_of_a_single_call(dim: int) -> None:
    # torch computes the last 16 normal numbers anew: a last block must not be shorter.
    space = VectorSpace(dim)
    for blocks, draw in ((normal_blocks, space.normal), (sign_blocks, space.signs)):
        found = torch.cat([*blocks(dim, torch.Generator().manual_seed(3))])
        assert torch.equal(found, draw(torch.Generator().manual_seed(3)))


MEMORY_OF_ORTHONORMAL = """
import psutil, torch
from hesspipe.linalg.vector_space import orthonormal
columns = torch.randn(10, 2**21).T
before = psutil.Process().memory_info().data
basis, _ = orthonormal(columns)
print((psutil.Process().memory_info().data - before) / (basis.numel() * 4))
"""


def test_orthonormal_keeps_no_memory_of_its_blocks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_ORTHONORMAL], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.2  # of the basis

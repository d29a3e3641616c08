"""A diagonal block consists of the rows and columns of its members."""

from __future__ import annotations

import pytest
import torch
from problems import assert_close, normal

from hesspipe.curvature.diagonal_blocks import DiagonalBlock

MEMBERS = torch.tensor([True, False, True, True, False])


def symmetric() -> torch.Tensor:
    matrix = normal(5, 5)
    return matrix + matrix.T


def test_product_is_that_of_the_submatrix() -> None:
    matrix = symmetric()
    block = DiagonalBlock(matrix, MEMBERS)
    expected = matrix[MEMBERS][:, MEMBERS]
    assert block.shape == (3, 3)
    assert (block.dtype, block.device) == (matrix.dtype, matrix.device)
    vectors = normal(3, 4, seed=1)
    assert_close(block @ vectors, expected @ vectors)
    assert_close(block @ vectors[:, 0], expected @ vectors[:, 0])


def test_block_of_all_entries_is_the_operator() -> None:
    matrix, vector = symmetric(), normal(5, seed=1)
    assert_close(DiagonalBlock(matrix, torch.ones(5, dtype=torch.bool)) @ vector, matrix @ vector)


@pytest.mark.parametrize(
    ("is_member", "message"),
    [
        (torch.ones(4, dtype=torch.bool), "must be 5 booleans"),
        (torch.ones(5), "must be 5 booleans, got torch.float32"),
        (torch.zeros(5, dtype=torch.bool), "must have a true entry, got none"),
    ],
)
def test_members_that_do_not_fit_are_refused(is_member: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiagonalBlock(symmetric(), is_member)


def test_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(3,\) or \(3, K\), got \(5,\)"):
        DiagonalBlock(symmetric(), MEMBERS) @ normal(5)

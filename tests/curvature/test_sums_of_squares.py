"""Sums of squares by pieces of theta against those of whole rows."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor

from hesspipe.curvature.sums_of_squares import OuterProducts, Piece, Rows, add_sum_of_squares


def _pieces(
    order: tuple[int, ...], num_samples: int, num_rows: int, num_entries: int
) -> tuple[list[Piece], Tensor]:
    """Four pieces that lie in theta in this order, and A (n, r, P)."""
    rows = [normal(num_samples, num_rows, q, seed=q) for q in (num_entries, 2)]
    factors = [
        (normal(num_samples, num_rows, units, seed=units), normal(num_samples, width, seed=width))
        for units, width in ((3, 5), (4, 1))
    ]
    outer = [torch.einsum("nru,nk->nruk", *both).flatten(2) for both in factors]
    parts = [*rows, *outer]
    starts, position = {}, 0
    for number in order:
        starts[number] = position
        position += parts[number].shape[2]
    pieces: list[Piece] = [Rows(starts[number], rows[number]) for number in (0, 1)]
    pieces += [OuterProducts(starts[2 + number], *factors[number]) for number in (0, 1)]
    return pieces, torch.cat([parts[number] for number in order], 2)


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize(
    ("num_samples", "num_rows", "num_entries"), [(6, 3, 7), (1, 1, 2), (2, 2, 600)]
)
def test_add_sum_of_squares_adds_those_of_whole_rows(
    order: tuple[int, ...], num_samples: int, num_rows: int, num_entries: int
) -> None:
    pieces, rows = _pieces(order, num_samples, num_rows, num_entries)
    signs = (labels(num_samples * num_rows, 3) - 1).to(rows).view(num_samples, num_rows)
    signs[0, 0] = -1
    total = normal(rows.shape[2], rows.shape[2])
    expected = total + torch.einsum("nrp,nr,nrq->pq", rows, signs, rows)
    add_sum_of_squares(total, pieces, signs)
    assert_close(total.tril(), expected.tril())

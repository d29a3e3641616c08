"""Positions that are no real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur


@pytest.mark.parametrize("function", ["cdf", "sf", "density"])
@pytest.mark.parametrize(
    "positions",
    [1j, [1.0, 2j], np.array([1 + 0j]), "1.0", ["a"], [None], None, np.array(["2020"], "M8[Y]"),
     float("nan")],
)  # fmt: skip
def test_law_refuses_positions_that_are_no_real_numbers(function: str, positions: Any) -> None:
    with pytest.raises(ValueError, match="positions must be"):
        getattr(MarchenkoPastur(0.5), function)(positions)


@pytest.mark.parametrize("positions", [1, [1], True, np.float32(1.0), np.array([1], np.int8)])
def test_law_takes_real_numbers_of_any_kind(positions: Any) -> None:
    law = MarchenkoPastur(0.5)
    assert np.ravel(law.cdf(positions)) == law.cdf(1.0)

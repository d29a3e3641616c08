"""Losses that differentiate divided models with normalization, on 2 gloo processes.

The reference is the same network with normalization written out, by plain double backward.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import sharded_norms as cases
from normalized import INPUTS, LAYERS, hessian_by_double_backward, network
from problems import EPS, normal
from process_groups import run_in_ranks
from torch import Tensor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("norms")


@functools.cache
def _everything(folder: Path) -> list[dict[tuple[str, str], Tensor]]:
    return run_in_ranks(cases.every_norm, 2, folder)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", cases.LOSSES)
def test_product_is_that_of_the_formula(way: str, name: str, folder: Path) -> None:
    plain = network(name, is_written_out=True)
    expected = hessian_by_double_backward(
        plain, lambda: cases.LOSSES[way](plain, (INPUTS, cases.TARGETS))
    )
    vector = normal(len(expected), seed=3)
    for found in _everything(folder):
        error = float((found[way, name] - expected @ vector).norm())
        assert error <= 100 * EPS * float(expected.norm() * vector.norm())

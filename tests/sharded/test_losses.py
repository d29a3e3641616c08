"""Losses with divided modules and tensors, and processes that differ, on 2 and 3 gloo processes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import sharded_losses as cases
from dense_reference import reference_matrices
from problems import EPS, network, normal
from process_groups import run_in_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("losses")


@functools.cache
def _everything(folder: Path, size: int) -> list[dict[str, Any]]:
    return run_in_ranks(cases.every_loss, size, folder / str(size), size)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", cases.LOSSES)
def test_products_are_those_of_a_loss_that_is_whole(name: str, size: int, folder: Path) -> None:
    loss = cases.LOSSES[name](None)
    expected = reference_matrices(
        network([4, 5, 3], "tanh"),
        lambda m: m(cases.INPUTS),
        lambda outputs: loss(outputs, cases.TARGETS),
    )
    vector = normal(len(expected["hessian"]), seed=3)
    scale = float(expected["hessian"].norm() * vector.norm())
    for one in _everything(folder, size):
        for matrix in ("hessian", "ggn"):
            error = float((one[name][matrix] - expected[matrix] @ vector).norm())
            assert error <= 50 * EPS * scale, f"{matrix} v"


REFUSED = {
    "first derivative": "the first derivative of the loss on equal samples",
    "second derivative": "the second derivative of the loss on equal samples",
    "nan in one rank": "parameters must be finite, got nan or inf in 1.weight",
    "placements": "1.weight must be the same in every process, got shape (5, 4)",
    "frozen in one rank": "1.weight.requires_grad must be the same in every process, got True in",
    "buffer without data": "buffers must have data, got mask on the meta device",
}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", REFUSED)
def test_processes_that_differ_are_refused_in_all_of_them(
    name: str, size: int, folder: Path
) -> None:
    for one in _everything(folder, size):
        classes, message = one["refused"][name]
        assert "ValueError" in classes
        assert REFUSED[name] in message, message

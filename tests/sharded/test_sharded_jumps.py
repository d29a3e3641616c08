"""Losses that jump at divided parameters are refused in all of 2 gloo processes, and no others."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import sharded_jumps as cases
import torch
from dense_reference import reference_matrices
from jumping import CONTINUOUS, INPUTS, JUMPS, TARGETS, ZEROS, Gated, jumping
from problems import EPS, normal
from process_groups import run_in_ranks
from torch import nn
from torch.nn import functional


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jumps")


@functools.cache
def _everything(folder: Path) -> list[dict[str, Any]]:
    return run_in_ranks(cases.every_jump, 2, folder)


def _assert_product(found: list[torch.Tensor], model: nn.Module) -> None:
    expected = reference_matrices(
        model, lambda m: m(INPUTS), lambda outputs: functional.mse_loss(outputs, TARGETS)
    )["hessian"]
    vector = normal(len(expected), seed=3)
    for one in found:
        error = float((one - expected @ vector).norm())
        assert error <= 50 * EPS * float(expected.norm() * vector.norm())


@pytest.mark.parametrize("precision", ["refused", "refused in float32"])
@pytest.mark.parametrize("name", JUMPS)
def test_jump_at_the_parameters_is_refused_in_all_processes_alike(
    name: str, precision: str, folder: Path
) -> None:
    one, other = (found[precision][name] for found in _everything(folder))
    assert one == other
    classes, message = one
    assert classes[0] == "NotTwiceDifferentiableError"
    assert re.search(r"got a jump by .* along gate, on batch 0 of rank \d;.*at random", message)


@pytest.mark.parametrize("name", JUMPS)
def test_jump_near_the_parameters_is_accepted(name: str, folder: Path) -> None:
    _assert_product(
        [found["near"][name]["hessian"] for found in _everything(folder)], jumping(name, 1e-3)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_functions_are_not_called_jumps(
    name: str, dtype: torch.dtype, folder: Path
) -> None:
    for found in _everything(folder):
        assert "continuous" not in found["continuous"][name, dtype][1]


# Where the loss of one process jumps, and that of the other does not.
@pytest.mark.parametrize("place", ["batch 0 of rank 1", "batch 1 of rank 1", "batch 0 of rank 0"])
def test_jump_of_one_process_is_refused_in_all(place: str, folder: Path) -> None:
    for found in _everything(folder):
        classes, message = found["special"][place]
        assert classes[0] == "NotTwiceDifferentiableError"
        assert f"on {place};" in message


@pytest.mark.parametrize(
    "name", ["ignored labels", "no data", "the same data", "batches of any type"]
)
def test_jump_is_refused_whatever_the_processes_have(name: str, folder: Path) -> None:
    for found in _everything(folder):
        classes, message = found["special"][name]
        assert classes[0] == "NotTwiceDifferentiableError", message
        assert "got a jump by" in message


def test_parameter_that_jumps_may_be_left_out(folder: Path) -> None:
    for found in _everything(folder):
        assert found["left out"] == ["layer.weight", "layer.bias"]


def test_loss_that_fails_beside_the_parameters_in_one_process_is_accepted(folder: Path) -> None:
    model = Gated(ZEROS, lambda gate, inputs: (inputs @ gate).unsqueeze(1))
    _assert_product([found["undefined beside"]["hessian"] for found in _everything(folder)], model)


def test_numbers_that_processes_send_have_no_rounding_errors(folder: Path) -> None:
    for found in _everything(folder):
        assert not found["rounding of sent"].any()


def test_reflections_that_vary_are_refused_in_all_processes(folder: Path) -> None:
    for found in _everything(folder):
        classes, message = found["special"]["reflections"]
        assert "ValueError" in classes
        assert "got 0.parametrizations.weight.0 (_Orthogonal)" in message

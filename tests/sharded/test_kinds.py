"""Models of unusual structures and divisions on 2 and 3 gloo processes against plain torch."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import sharded_kinds as kinds
import torch
from dense_reference import reference_matrices
from problems import EPS, normal
from process_groups import run_in_ranks
from torch import Tensor, nn

SIZES = [2, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@functools.cache
def _everything(folder: Path, size: int) -> list[dict[str, Any]]:
    return run_in_ranks(kinds.every_kind, size, folder / str(size), size)


def _expected(name: str) -> dict[str, Tensor]:
    model = kinds.model_of(name)
    kept = torch.cat([torch.full((p.numel(),), p.requires_grad) for p in model.parameters()])
    found = reference_matrices(
        model,
        lambda m: m(kinds.INPUTS),
        lambda outputs: nn.functional.cross_entropy(outputs, kinds.TARGETS),
    )
    return {matrix: found[matrix][kept][:, kept] for matrix in ("hessian", "ggn")}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", kinds.KINDS)
def test_products_are_those_of_the_whole_model(name: str, size: int, folder: Path) -> None:
    expected = _expected(name)
    vector = normal(len(expected["hessian"]), seed=3)
    scale = float(expected["hessian"].norm() * vector.norm())
    for one in _everything(folder, size):
        for matrix, values in expected.items():
            error = float((one[name][matrix] - values @ vector).norm())
            assert error <= 20 * EPS * scale, f"{matrix} v"


@pytest.mark.parametrize("size", SIZES)
def test_methods_work_where_processes_have_no_parameter(size: int, folder: Path) -> None:
    hessian = _expected("processes without a parameter")["hessian"]
    values, vectors = torch.linalg.eigh(hessian)
    scale = float(values.abs().max())
    for one in _everything(folder, size):
        found = one["methods"]
        assert (found["eigenvalues"] - values).abs().max() <= 50 * EPS * scale
        overlaps = (found["eigenvectors"].T @ vectors).abs()
        assert (overlaps - torch.eye(2)).abs().max() <= 100 * EPS
        assert (found["nodes"] - values).abs().max() <= 50 * EPS * scale
        norms = torch.tensor([float(values.sum()), float(values.norm())], dtype=torch.float64)
        assert (torch.tensor(found["norms"], dtype=torch.float64) - norms).abs().max() <= 1e-12

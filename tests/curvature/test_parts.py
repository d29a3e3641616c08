"""Spectra of some of the parameters, in which only what varies has a matrix."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from networks_of_all_kinds import mlp
from problems import EPS, labels, normal
from torch import nn

import hesspipe
from hesspipe.objective.objective import Objective

DATA = normal(9, 4), labels(9, 3)
PATTERNS = [["0.*"], ["2.*", "4.bias"], ["*.weight"], ["4.*"], ["*.bias"]]


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_spectrum_of_some_parameters_is_that_of_their_block(
    matrix: str, patterns: list[str], act: type[nn.Module]
) -> None:
    model = mlp(4, 5, 4, 3, act=act)
    whole = Objective(model, nn.CrossEntropyLoss(), DATA)
    part = Objective(model, nn.CrossEntropyLoss(), DATA, parameters=patterns)
    kept = torch.cat(
        [
            torch.full((shape.numel(),), any(fnmatchcase(name, each) for each in patterns))
            for name, shape in zip(whole.names, whole.shapes, strict=True)
        ]
    )
    values = getattr(hesspipe, f"{matrix}_matrix")(whole, "columns")[kept][:, kept]
    found = hesspipe.spectrum(part, matrix)
    allowed = 20 * EPS * float(hesspipe.hessian_matrix(whole).norm())
    assert found.eigenvalues.shape == (len(values),)
    assert (found.eigenvalues - torch.linalg.eigvalsh(values)).abs().max() <= allowed
    assert found.num_negative + found.num_zero + found.num_positive == len(values)
    dense = getattr(hesspipe, f"{matrix}_matrix")(part)
    assert dense.shape == values.shape
    assert (dense - values).abs().max() <= allowed


def test_spectrum_of_the_last_layer_uses_its_structure() -> None:
    model = mlp(4, 30, 3)
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    assert hesspipe.spectrum(objective, "ggn").method == "factored"
    assert hesspipe.spectrum(objective, "ggn", method="layers").method == "layers"


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_matrix_of_some_parameters_needs_memory_for_these_only(
    monkeypatch: pytest.MonkeyPatch, matrix: str
) -> None:
    model = mlp(4, 300, 3)
    part = Objective(model, nn.CrossEntropyLoss(), DATA, parameters=["*.bias"])
    whole = Objective(model, nn.CrossEntropyLoss(), DATA)
    # 303 of 2,403 parameters vary: a matrix of all takes 46 MB.
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: 5_000_000)
    form = getattr(hesspipe, f"{matrix}_matrix")
    assert form(part, "columns").shape == (303, 303)
    assert hesspipe.spectrum(part, matrix).eigenvalues.shape == (303,)
    with pytest.raises(MemoryError, match=f"the {matrix} of P = 2,403 parameters"):
        form(whole)


def test_every_result_of_some_parameters_has_their_number_of_rows() -> None:
    part = Objective(mlp(4, 5, 3), nn.CrossEntropyLoss(), DATA, parameters=["2.*"])
    values = hesspipe.hessian_matrix(part, "columns")
    assert hesspipe.HessianOperator(part).shape == values.shape == (18, 18)
    assert part.theta.shape == part.is_varied.shape == (part.num_parameters,) == (18,)
    pairs = hesspipe.eigenpairs(part, num_smallest=1, num_largest=2)
    assert pairs.eigenvectors.shape == (18, 3)
    exact = torch.linalg.eigvalsh(values)
    assert (pairs.eigenvalues - exact[[0, -2, -1]]).abs().max() <= 1e-12 * exact[-1]
    estimates = hesspipe.estimate_norms(part, num_products=18)
    assert abs(estimates.trace.value - float(exact.sum())) <= 1e-12 * float(exact.sum())
    # With as many steps as rows, all nodes with weight are eigenvalues.
    found = hesspipe.density(part, num_probes=2, num_steps=18)
    mean = float((found.nodes * found.weights).sum(1).mean())
    assert mean <= float(exact.max())
    assert found.nodes.shape[1] <= 18

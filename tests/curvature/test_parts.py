"""Spectra of some of the parameters, in which only what varies has a matrix."""

from __future__ import annotations

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
    values = getattr(hesspipe, f"{matrix}_matrix")(whole, "columns")
    values[~part.is_varied] = values[:, ~part.is_varied] = 0
    found = hesspipe.spectrum(part, matrix)
    allowed = 20 * EPS * float(hesspipe.hessian_matrix(whole).norm())
    assert (found.eigenvalues - torch.linalg.eigvalsh(values)).abs().max() <= allowed
    assert found.num_negative + found.num_zero + found.num_positive == len(values)
    assert found.num_zero >= int((~part.is_varied).sum())
    dense = getattr(hesspipe, f"{matrix}_matrix")(part)
    assert (dense - values).abs().max() <= allowed


def test_spectrum_of_the_last_layer_uses_its_structure() -> None:
    model = mlp(4, 30, 3)
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    assert hesspipe.spectrum(objective, "ggn").method == "factored"
    assert hesspipe.spectrum(objective, "ggn", method="layers").method == "layers"


def test_spectrum_of_some_parameters_needs_memory_for_these_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = mlp(4, 300, 3)
    objective = Objective(model, nn.CrossEntropyLoss(), DATA, parameters=["*.bias"])
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: objective.num_parameters**2)
    result = hesspipe.spectrum(objective)
    assert len(result.eigenvalues) == objective.num_parameters
    with pytest.raises(MemoryError, match="the hessian of P = 2,403 parameters"):
        hesspipe.hessian_matrix(objective)

"""Spectra, eigenpairs, densities and norms of an objective against its dense matrices."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from problems import EPS, assert_close, check_eigenpairs, labels, network, normal
from torch import nn

import hesspipe
from hesspipe.curvature import dense, exact_spectra, layers, spectra
from hesspipe.curvature.layers import Layer
from hesspipe.curvature.operators import HessianOperator
from hesspipe.curvature.spectra import density, eigenpairs, estimate_norms
from hesspipe.objective.objective import Objective


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_spectrum_is_that_of_the_matrix(
    matrix: str, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective([6, 8, 7, 4], num_samples=30)
    found = hesspipe.spectrum(objective, matrix)
    values = getattr(hesspipe, f"{matrix}_matrix")(objective, "columns")
    expected = torch.from_numpy(np.linalg.eigvalsh(values.numpy()))
    assert_close(found.eigenvalues, expected)
    assert (found.eigenvalues.diff() >= 0).all()
    assert (found.matrix, found.method) == (matrix, "factored" if matrix == "ggn" else "layers")
    assert found.num_negative + found.num_zero + found.num_positive == objective.num_parameters


def test_inertia_of_the_residual_of_one_hidden_relu_layer_is_balanced() -> None:
    # R couples w_j only with column j of W_2: eigenvalues come in pairs +-, C - 1 per unit
    model = network([8, 4, 3])
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(40, 8), labels(40, 3)))
    found = hesspipe.spectrum(objective, "residual")
    assert found.num_negative == found.num_positive == 4 * (3 - 1)
    assert_close(found.eigenvalues, -found.eigenvalues.flip(0))


def test_float32_objective_is_refused(make_objective: Callable[..., Objective]) -> None:
    objective = make_objective()
    single = Objective(
        objective.model,
        nn.CrossEntropyLoss(),
        (objective.batches[0].inputs, objective.batches[0].targets),
        dtype=torch.float32,
    )
    with pytest.raises(
        ValueError, match=r"dtype of the objective must be float64 .* got torch.float32"
    ):
        hesspipe.spectrum(single)


def test_spectrum_forecasts_the_solver_as_well(
    monkeypatch: pytest.MonkeyPatch, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective()
    matrix_bytes = objective.num_parameters**2 * 8
    # Room for the matrix and its work space, but not for the eigensolver's copy.
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: int(2.5 * matrix_bytes))
    assert len(hesspipe.hessian_matrix(objective)) == objective.num_parameters
    with pytest.raises(MemoryError, match="the hessian of P = 55 parameters"):
        hesspipe.spectrum(objective)


def test_layers_are_found_once(
    monkeypatch: pytest.MonkeyPatch, make_objective: Callable[..., Objective]
) -> None:
    found = []

    def record(objective: Objective) -> list[Layer]:
        found.append(layers.find_layers(objective))
        return found[-1]

    for module in (exact_spectra, dense):
        monkeypatch.setattr(module, "find_layers", record)
    assert hesspipe.spectrum(make_objective()).method == "layers"
    assert len(found) == 1


def test_zero_tolerance_has_one_default() -> None:
    default = inspect.signature(spectra.spectrum).parameters["zero_tolerance"].default
    assert default == spectra.ZERO_TOLERANCE


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_eigenpairs_of_an_objective_are_those_of_its_matrix(
    matrix: str, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective([5, 6, 4], "tanh", num_samples=30)
    values = getattr(hesspipe, f"{matrix}_matrix")(objective)
    found = eigenpairs(objective, matrix, num_smallest=3, num_largest=5, tolerance=1e-11)
    assert found.matrix == matrix
    check_eigenpairs(found, values, torch.linalg.eigvalsh(values), 1e-11)


def test_operator_of_an_objective_is_used_unchanged(
    make_objective: Callable[..., Objective],
) -> None:
    objective = make_objective()
    direct = eigenpairs(objective, num_largest=2)
    through = eigenpairs(HessianOperator(objective), num_largest=2)
    assert torch.equal(direct.eigenvalues, through.eigenvalues)


def test_all_steps_find_the_spectrum_of_an_objective(
    make_objective: Callable[..., Objective],
) -> None:
    objective = make_objective([3, 4, 3], "tanh", num_samples=30)
    expected = torch.linalg.eigvalsh(hesspipe.hessian_matrix(objective))
    found = density(objective, num_probes=1, num_steps=objective.num_parameters)
    assert found.matrix == "hessian"
    scale = float(expected.abs().max())
    # The null space is one node; the other eigenvalues are simple.
    for value in expected[expected.abs() > 1e-6 * scale]:
        assert (found.nodes - value).abs().min() <= 1e3 * EPS * scale


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_norms_of_an_objective_are_those_of_its_matrix(
    matrix: str, make_objective: Callable[..., Objective]
) -> None:
    objective = make_objective([6, 8, 4], "tanh", num_samples=30)
    values = getattr(hesspipe, f"{matrix}_matrix")(objective)
    found = estimate_norms(objective, matrix, num_products=60)
    assert found.num_products == 60
    for estimate, exact in (
        (found.trace, values.trace()),
        (found.frobenius_norm, values.norm()),
    ):
        slack = 1e3 * EPS * float(values.norm())
        assert abs(estimate.value - float(exact)) <= 4 * estimate.standard_error + slack


def test_matrix_of_an_objective_gives_results_their_name(
    make_objective: Callable[..., Objective],
) -> None:
    objective = make_objective()
    assert density(HessianOperator(objective), num_steps=2).matrix == "hessian"
    assert density(objective, "ggn", num_steps=2).matrix == "ggn"
    assert density(torch.eye(3), num_steps=2).matrix == "operator"
    with pytest.raises(ValueError, match="matrix must be one of"):
        density(objective, "fisher")

"""Spectrum of the paper's widest network, P = 55,660, against methods without factors."""

from __future__ import annotations

import math

import pytest
import torch
from problems import EPS
from torch import nn

import hesspipe
from hesspipe.curvature.spectra import estimate_norms
from hesspipe.data.mnist import mnist_digits
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.networks.architectures import initialize_normal, mlp
from hesspipe.objective.objective import Objective

HIDDEN, CLASSES = 70, 10
# A quarter of the paper's 1000: the time grows with the square.
NUM_SAMPLES = 250


@pytest.fixture(scope="module")
def objective() -> Objective:
    digits = mnist_digits(source="embedded", folder=None, num_train=NUM_SAMPLES, seed=0)
    inputs, targets = digits.train_inputs, digits.train_targets
    model = mlp(num_inputs=784, hidden_widths=[HIDDEN], num_outputs=CLASSES, activation="relu")
    model = model.to(torch.float64)
    initialize_normal(model, 0.05, torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return Objective(model, nn.CrossEntropyLoss(), (inputs, targets))


@pytest.fixture(scope="module")
def spectrum(objective: Objective) -> Spectrum:
    return hesspipe.spectrum(objective, "hessian")


def test_spectrum_has_every_eigenvalue_and_at_most_the_known_negative_ones(
    spectrum: Spectrum, objective: Objective
) -> None:
    assert spectrum.method == "factored"
    assert len(spectrum.eigenvalues) == objective.num_parameters == 55_660
    assert 0 < spectrum.num_negative <= HIDDEN * (CLASSES - 1)
    # At most as many positive ones as G, N (C - 1), and R have together.
    assert spectrum.num_positive <= NUM_SAMPLES * (CLASSES - 1) + HIDDEN * (CLASSES - 1)


def test_extreme_eigenvalues_are_those_of_the_matrix_free_solver(
    spectrum: Spectrum, objective: Objective
) -> None:
    found = hesspipe.eigenpairs(objective, num_smallest=5, num_largest=10, tolerance=1e-10)
    expected = torch.cat([spectrum.eigenvalues[:5], spectrum.eigenvalues[-10:]])
    # A residual norm bounds the distance to the nearest eigenvalue.
    slack = found.residual_norms + 100 * EPS * spectrum.eigenvalues.abs().max()
    assert ((found.eigenvalues - expected).abs() <= slack).all()


def test_trace_and_norm_are_within_the_error_of_their_estimates(
    spectrum: Spectrum, objective: Objective
) -> None:
    found = estimate_norms(objective, "hessian", num_products=150)
    trace, norm = float(spectrum.eigenvalues.sum()), float(spectrum.eigenvalues.norm())
    assert 0 < found.trace.standard_error < 0.05 * trace
    assert abs(found.trace.value - trace) <= 4 * found.trace.standard_error
    assert 0 < found.frobenius_norm.standard_error < 0.01 * norm
    assert abs(found.frobenius_norm.value - norm) <= 4 * found.frobenius_norm.standard_error


def test_trace_is_that_of_the_ggn_from_per_sample_gradients(
    spectrum: Spectrum, objective: Objective
) -> None:
    # tr G = sum_n tr(S_n J_n J_n^T); R only couples different layers, so its trace is zero.
    batch = objective.batches[0]
    trace = 0.0
    for sample in range(len(batch.inputs)):
        theta = objective.theta.clone().requires_grad_()
        outputs = objective.outputs(theta, batch.inputs[sample : sample + 1])[0]
        rows = [
            torch.autograd.grad(output, theta, retain_graph=True)[0] for output in outputs.unbind()
        ]
        jacobian = torch.stack(rows)
        shares = outputs.detach().softmax(0)
        curvature = torch.diag(shares) - torch.outer(shares, shares)
        trace += float((curvature * (jacobian @ jacobian.mT)).sum()) / len(batch.inputs)
    assert math.isclose(float(spectrum.eigenvalues.sum()), trace, rel_tol=1e-10)

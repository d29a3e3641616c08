"""Stochastic Lanczos quadrature against exact counts, moments and densities."""

from __future__ import annotations

import math

import pytest
import torch
from problems import EPS, matrix_with, normal

from hesspipe.errors import TooLargeError
from hesspipe.linalg.density import density
from hesspipe.linalg.spectral_density import Density

VALUES = torch.cat([torch.linspace(-1, 1, 180), torch.linspace(5, 20, 20)]).double()


def test_weights_are_shares_that_add_up_to_one() -> None:
    found = density(matrix_with(VALUES), num_probes=4, num_steps=30)
    assert found.nodes.shape == found.weights.shape == (4, 30)
    assert found.dim == 200
    assert found.num_products == 120
    assert (found.weights.sum(1) - 1).abs().max() <= 30 * EPS
    assert (found.weights >= 0).all()
    assert (found.nodes.diff() >= 0).all()


def test_density_of_few_distinct_eigenvalues_is_exact_in_as_many_steps() -> None:
    values = torch.tensor([-2.0, 0.0, 1.0, 7.0], dtype=torch.float64).repeat_interleave(15)
    found = density(matrix_with(values), num_probes=3, num_steps=20)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        # Rounding in an invariant space gives further nodes, but no weight.
        for value in (-2.0, 0.0, 1.0, 7.0):
            near = (nodes - value).abs() <= 1e3 * EPS * 7
            assert 0.05 < float(weights[near].sum()) < 0.5
        far = torch.stack([(nodes - v).abs() > 1e3 * EPS * 7 for v in (-2, 0, 1, 7)]).all(0)
        assert float(weights[far].sum()) <= 1e4 * EPS


@pytest.mark.parametrize("power", [0, 1, 2, 3, 9])
def test_moments_are_those_of_the_start_vectors(power: int) -> None:
    """A Gauss quadrature of k nodes is exact up to the power 2 k - 1."""
    from hesspipe.linalg.operator import random_unit, symmetric_product
    from hesspipe.seeding import generator

    matrix = matrix_with(VALUES)
    found = density(matrix, num_probes=2, num_steps=5, seed=3)
    product = symmetric_product(matrix)
    expected = []
    for probe in range(2):
        start = random_unit(product, generator(3, f"density probe {probe}"))
        expected.append(200 * float(start @ torch.linalg.matrix_power(matrix, power) @ start))
    moment = found.moment(power)
    mean, error = moment.estimate, moment.standard_error
    assert abs(mean - sum(expected) / 2) <= 100 * EPS * 200 * 20.0**power
    assert abs(error - abs(expected[0] - expected[1]) / 2) <= 100 * EPS * 200 * 20.0**power


def test_moment_refuses_powers_without_an_exact_quadrature() -> None:
    found = density(matrix_with(VALUES), num_probes=2, num_steps=5)
    for power in (0.5, 2.0, "2", True, None):
        with pytest.raises(TypeError, match="power must be an integer, got"):
            found.moment(power)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at most 2 num_steps - 1 = 9, .* got 10; make more"):
        found.moment(10)
    whole = density(torch.diag(torch.tensor([1.0, 2.0]).double()), num_steps=2)
    assert whole.moment(5).estimate == pytest.approx(33, abs=40)
    with pytest.raises(ValueError, match="power must be smaller for eigenvalues of this size"):
        whole.moment(5000)


def test_counts_are_within_their_intervals() -> None:
    matrix = matrix_with(VALUES)
    found = density(matrix, num_probes=40, num_steps=40)
    for low, high, expected in (
        (3.0, math.inf, 20), (-math.inf, 3.0, 180), (-5.0, 3.0, 180), (3.0, 12.5, 10),
    ):  # fmt: skip
        count = found.count(low, high)
        assert count.high - count.low < 0.1 * expected
        assert count.low <= expected <= count.high
        assert count.low <= count.estimate <= count.high
    everything = found.count()
    assert (everything.low, everything.high) == (200, 200)


def test_standard_errors_are_the_spread_of_the_means() -> None:
    """Over repetitions, errors divided by standard errors have variance 1."""
    matrix, exact = matrix_with(VALUES), float(VALUES.sum())
    scores = []
    for seed in range(60):
        moment = density(matrix, num_probes=10, num_steps=25, seed=seed).moment(1)
        scores.append((moment.estimate - exact) / moment.standard_error)
    squares = torch.tensor(scores).square()
    # Student's t with 9 degrees of freedom: variance 9/7.
    assert abs(squares.mean() - 9 / 7) <= 4 * squares.std() / math.sqrt(60)


def test_smoothed_density_is_that_of_the_eigenvalues() -> None:
    width, grid = 0.5, torch.linspace(-4, 24, 1401, dtype=torch.float64)
    curve = density(matrix_with(VALUES), num_probes=40, num_steps=60).evaluate(grid, width)
    mean, error = curve.estimate, curve.standard_error
    kernel = torch.exp(-0.5 * ((grid.unsqueeze(1) - VALUES) / width).square())
    expected = kernel.mean(1) / (width * math.sqrt(2 * math.pi))
    is_seen = expected > 1e-3 * expected.max()
    assert ((mean - expected).abs() <= 5 * error)[is_seen].all()
    assert error.max() < 0.1 * expected.max()
    assert abs(float(torch.trapezoid(mean, grid)) - 1) <= 1e-6


def test_more_probes_only_add_rows() -> None:
    matrix = matrix_with(VALUES)
    few, many = (density(matrix, num_probes=count, num_steps=10) for count in (2, 3))
    assert torch.equal(few.nodes, many.nodes[:2])
    assert not torch.equal(many.nodes[1], many.nodes[2])
    other = density(matrix, num_probes=2, num_steps=10, seed=1)
    assert not torch.equal(few.nodes, other.nodes)


def test_one_probe_has_no_standard_error() -> None:
    found = density(torch.eye(3), num_probes=1, num_steps=1)
    assert math.isnan(found.moment(1).standard_error)
    assert found.evaluate(torch.zeros(2), 1.0).standard_error.isnan().all()


def test_bad_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.eye(10, dtype=torch.float64)
    found = density(matrix, num_steps=1)
    with pytest.raises(ValueError, match="num_probes must be at least 1, got 0"):
        density(matrix, num_probes=0)
    with pytest.raises(ValueError, match="num_steps must be 1 to P = 10, got 80"):
        density(matrix)
    for width in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="width must be positive and finite"):
            found.evaluate(torch.zeros(1), width)
    with pytest.raises(ValueError, match=r"grid must be a vector, got shape \(1, 1\)"):
        found.evaluate(torch.zeros(1, 1), 1.0)
    with pytest.raises(ValueError, match="low must be below high, got 2"):
        found.count(2.0, 1.0)
    with pytest.raises(ValueError, match="power must be at least 0"):
        found.moment(-1)
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: 100)
    with pytest.raises(TooLargeError, match="a Lanczos basis of 3 vectors of length P = 10"):
        density(matrix, num_steps=3)


def test_progress_shows_the_probes(capsys: pytest.CaptureFixture[str]) -> None:
    found = density(matrix_with(normal(20)), num_probes=2, num_steps=4, progress=True)
    assert isinstance(found, Density)
    shown = capsys.readouterr().err
    assert "density, probe 2/2: 100%" in shown

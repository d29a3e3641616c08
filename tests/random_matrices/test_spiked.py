"""Spiked models against the secular equation, simulation and the counts of Theorem 2."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad

from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur
from hesspipe.random_matrices.sampling import largest_eigenpair
from hesspipe.random_matrices.spiked import (
    edge_scaling,
    eigenvector_overlap,
    position_deviation,
    sample_position,
    separates,
    spectrum_picture,
)


def bulk_integral(law: MarchenkoPastur, function) -> float:
    """Integral over the law, its zeros included."""
    middle, half = (law.lower_edge + law.upper_edge) / 2, (law.upper_edge - law.lower_edge) / 2

    def integrand(angle: float) -> float:
        x = middle - half * np.cos(angle)
        return float(function(x) * law.density(x)) * half * np.sin(angle)

    zeros = law.mass_at_zero
    return quad(integrand, 0, np.pi, epsabs=1e-12)[0] + (zeros * function(0.0) if zeros else 0.0)


@pytest.mark.parametrize(
    ("strength", "ratio"), [(3.0, 1.0), (2.5, 2.0), (1.3, 0.02), (9.0, 0.5), (0.2, 0.25), (0, 0.5)]
)
def test_outlier_solves_the_secular_equation(strength: float, ratio: float) -> None:
    # A direction of strength l separates where z = l (1 - alpha - alpha z m(z)): from the
    # Schur complement, with the companion transform 1 + alpha * integral of x / (z - x).
    law, z = MarchenkoPastur(ratio), sample_position(strength, ratio)
    companion = 1 + ratio * bulk_integral(law, lambda x: x / (z - x))
    assert z == pytest.approx(strength * companion, abs=1e-8)
    # Its weight in the direction is the inverse derivative of the same equation.
    slope = ratio * bulk_integral(law, lambda x: x / (z - x) ** 2)
    expected = 1 / (1 + strength * slope)
    if strength:
        assert eigenvector_overlap(strength, ratio) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ratio", [0.02, 1.0, 2.0])
def test_position_is_continuous_at_the_transition_and_overlap_vanishes(ratio: float) -> None:
    transition = 1 + np.sqrt(ratio)
    edge = MarchenkoPastur(ratio).upper_edge
    assert not separates(transition * (1 - 1e-12), ratio)
    assert separates(transition * (1 + 1e-9), ratio)
    assert sample_position(transition * (1 + 1e-9), ratio) == pytest.approx(edge, rel=1e-12)
    assert sample_position(1.0, ratio) == edge
    assert eigenvector_overlap(transition * (1 + 1e-9), ratio) < 1e-7
    assert eigenvector_overlap(1.0, ratio) == 0


def test_nothing_separates_to_the_left_with_fewer_samples_than_parameters() -> None:
    assert not separates(0.0, 1.0)
    assert not separates(0.0, 2.0)
    assert separates(0.0, 0.99)
    assert sample_position(0.0, 2.0) == MarchenkoPastur(2.0).lower_edge


@pytest.mark.parametrize(("num_parameters", "num_samples"), [(60, 240), (240, 120)])
def test_picture_is_that_of_simulated_spectra(num_parameters: int, num_samples: int) -> None:
    strengths = [12.0, 6.0, 0.05, 1.1]
    picture = spectrum_picture(strengths, num_parameters, num_samples)
    population = np.ones(num_parameters)
    population[: len(strengths)] = strengths
    rng = np.random.default_rng(5)
    repeats = []
    for _ in range(40):
        entries = rng.standard_normal((num_parameters, num_samples))
        entries *= np.sqrt(population)[:, None]
        repeats.append(np.linalg.eigvalsh(entries @ entries.T / num_samples))
    found = np.array(repeats)
    assert (np.abs(found[:, : picture.num_zeros]) < 1e-12).all()
    assert (found[:, picture.num_zeros] > 1e-6).all()
    nonzero = found[:, picture.num_zeros :]
    num_left, num_right = len(picture.left_outliers), len(picture.right_outliers)
    assert (num_left, num_right) == ((1, 2) if num_parameters < num_samples else (0, 2))
    assert picture.num_zeros + picture.num_bulk + num_left + num_right == num_parameters
    means, errors = nonzero.mean(0), nonzero.std(0) / np.sqrt(40)
    # The bias, of order 1/N, is added to the statistical error.
    bias = 20 / num_samples
    for mean, error, limit in zip(
        [*means[:num_left], *means[len(means) - num_right :]],
        [*errors[:num_left], *errors[len(means) - num_right :]],
        [*picture.left_outliers, *picture.right_outliers],
        strict=True,
    ):
        assert abs(mean - limit) < 4 * error + bias * limit
    law = MarchenkoPastur(num_parameters / num_samples)
    slack = 6 * num_samples ** (-2 / 3)
    assert nonzero[:, num_left].min() > law.lower_edge * (1 - slack)
    assert nonzero[:, -num_right - 1].max() < law.upper_edge * (1 + slack)


def test_deviation_and_overlap_are_those_of_simulated_outliers() -> None:
    strength, num_parameters, num_samples, repeats = 6.0, 40, 160, 400
    rng = np.random.default_rng(7)
    positions, overlaps = [], []
    for _ in range(repeats):
        entries = rng.standard_normal((num_parameters, num_samples))
        entries[0] *= np.sqrt(strength)
        values, vectors = np.linalg.eigh(entries @ entries.T / num_samples)
        positions.append(values[-1])
        overlaps.append(vectors[0, -1] ** 2)
    ratio = num_parameters / num_samples
    deviation = position_deviation(strength, ratio, num_samples)
    # Relative error of a standard deviation of 400 numbers: 1 / sqrt(800); bias of order 1/N.
    assert np.std(positions) == pytest.approx(deviation, rel=4 / np.sqrt(2 * repeats) + 0.02)
    error = 4 * np.std(overlaps) / np.sqrt(repeats) + 2 / num_samples
    assert np.mean(overlaps) == pytest.approx(eigenvector_overlap(strength, ratio), abs=error)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("distance", [1e-12, 1e-6, 0.1, 0.9])
def test_deviation_and_overlap_are_the_closed_forms_up_to_the_transition(
    ratio: float, distance: float
) -> None:
    strength = (1 + np.sqrt(ratio)) * (1 + distance)
    exact, alpha = Fraction(float(strength)), Fraction(ratio)
    share = 1 - alpha / (exact - 1) ** 2
    expected = float(strength) * np.sqrt(2 * float(share) / 50)
    assert position_deviation(float(strength), ratio, 50) == pytest.approx(expected, rel=1e-14)
    overlap = float(share / (1 + alpha / (exact - 1)))
    assert eigenvector_overlap(float(strength), ratio) == pytest.approx(overlap, rel=1e-14)


def test_deviation_is_that_of_simulated_outliers_next_to_the_transition() -> None:
    # alpha / (l - 1)^2 = 0.44, alpha / (l - 1) = 0.33: the square is 20 % of the deviation.
    strength, num_parameters, num_samples, repeats = 1.75, 500, 2000, 2500
    rng = np.random.default_rng(17)
    found = [
        largest_eigenpair(strength, num_parameters, num_samples, rng)[0] for _ in range(repeats)
    ]
    deviation = position_deviation(strength, 0.25, num_samples)
    assert np.std(found) == pytest.approx(deviation, rel=4 / np.sqrt(2 * repeats) + 0.02)


@pytest.mark.parametrize("num_parameters", [20, 95, 100, 150])
@pytest.mark.parametrize("num_samples", [40, 95, 100])
@pytest.mark.parametrize("others", [[], [9.0], [30.0, 0.02, 1.1]])
@pytest.mark.parametrize("num_vanishing", [0, 1, 10])
def test_spectrum_picture_has_as_many_zeros_as_a_simulated_matrix(
    num_parameters: int, num_samples: int, others: list[float], num_vanishing: int
) -> None:
    strengths = [0.0] * num_vanishing + others
    picture = spectrum_picture(strengths, num_parameters, num_samples)
    entries = np.random.default_rng(0).standard_normal((num_parameters, num_samples))
    entries[: len(strengths)] *= np.sqrt(strengths)[:, None]
    found = np.linalg.eigvalsh(entries @ entries.T / num_samples)
    assert picture.num_zeros == (found < 1e-12 * found[-1]).sum()
    parts = len(picture.left_outliers) + len(picture.right_outliers)
    assert picture.num_zeros + picture.num_bulk + parts == num_parameters
    assert (picture.left_outliers > 0).all()


@pytest.mark.parametrize("strength", [0.0, 1e-300, 1 - 1e-15, 1 + 1e-15, 1e8, 1e200, 1e308])
@pytest.mark.parametrize("ratio", [1e-300, 1e-16, 1 - 1e-16, 1.0, 1e16, 1e200])
def test_spiked_models_are_finite_or_refused(strength: float, ratio: float) -> None:
    assert 0 <= eigenvector_overlap(strength, ratio) <= 1
    try:
        position = sample_position(strength, ratio)
    except ValueError as error:
        assert "finite position" in str(error) or "must be" in str(error)  # noqa: PT017
    else:
        assert 0 <= position < np.inf
    if separates(strength, ratio):
        assert 0 < position_deviation(strength, ratio, 7) < np.inf or strength == 0


def test_edge_scaling_is_johnstones_with_the_shifts_by_a_half() -> None:
    # By hand for P = 5 and N = 9: roots of 4.5 and 8.5.
    center, width = edge_scaling(5, 9)
    assert center == pytest.approx((4.5 + 8.5 + 2 * 38.25**0.5) / 9, rel=1e-15)
    cube = (4.5**0.5 + 8.5**0.5) ** 4 / 38.25**0.5  # (p + n)^3 (1 / p + 1 / n)
    assert width == pytest.approx(cube ** (1 / 3) / 9, rel=1e-14)


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_edge_scaling_tends_to_the_edge_at_the_rate_of_the_edge(ratio: float) -> None:
    edge = MarchenkoPastur(ratio).upper_edge
    for num_samples in (100, 10_000):
        center, width = edge_scaling(int(ratio * num_samples), num_samples)
        limit = (1 + np.sqrt(ratio)) * (1 + ratio**-0.5) ** (1 / 3)
        assert width * num_samples ** (2 / 3) == pytest.approx(limit, rel=1 / num_samples)
        assert abs(center - edge) < 3 / num_samples


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="strength must be at least 0"):
        sample_position(-1.0, 1.0)
    with pytest.raises(ValueError, match="aspect_ratio must be positive"):
        sample_position(1.0, 0.0)
    with pytest.raises(ValueError, match=r"strength must be more than sqrt\(alpha\) = 1 away"):
        position_deviation(1.9, 1.0, 10)
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 3"):
        edge_scaling(0, 3)
    with pytest.raises(ValueError, match="must be at least 1, got 3 and 0"):
        spectrum_picture([], 3, 0)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        position_deviation(3.0, 1.0, 0)
    with pytest.raises(ValueError, match=r"at most min\(P, N\) = 2, got 3"):
        spectrum_picture([5.0, 6.0, 7.0], 2, 9)

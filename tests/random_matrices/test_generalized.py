"""The generalized law against closed forms, moments, a duality and simulation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import brentq

from hesspipe.errors import NoSolutionError
from hesspipe.random_matrices.generalized import GeneralizedLaw, outlier_positions
from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur
from hesspipe.random_matrices.spiked import sample_position

ONE = np.ones(1)


@pytest.mark.parametrize("ratio", [0.02, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1.0, 1e-7])
def test_equal_weights_give_marchenko_and_pastur(ratio: float, scale: float) -> None:
    law, expected = GeneralizedLaw(ratio, scale * ONE, ONE), MarchenkoPastur(ratio, scale)
    width = expected.upper_edge - expected.lower_edge
    positions = expected.lower_edge + np.linspace(0.05, 1.3, 8) * width
    np.testing.assert_allclose(law.cdf(positions), expected.cdf(positions), atol=1e-8)
    inside = positions[:6]
    np.testing.assert_allclose(law.density(inside), expected.density(inside), rtol=1e-6)
    np.testing.assert_allclose(
        law.edges(), [expected.lower_edge, expected.upper_edge], atol=1e-6 * expected.upper_edge
    )
    np.testing.assert_allclose(law.cdf([-scale, 0.0]), [0.0, expected.mass_at_zero], atol=1e-12)


def test_population_of_one_scale_is_the_same_as_weights_of_that_scale() -> None:
    weights = np.array([0.1, 1.0, 4.0])
    positions = np.linspace(0.3, 9, 6)
    one = GeneralizedLaw(0.7, weights, 2 * ONE).cdf(positions)
    np.testing.assert_allclose(
        one, GeneralizedLaw(0.7, 2 * weights, ONE).cdf(positions), atol=1e-11
    )


def test_samples_and_parameters_can_be_exchanged() -> None:
    # X^T X has the nonzero eigenvalues of X X^T: weights and population trade places.
    weights, population, ratio = np.array([0.2, 1.0, 3.0]), np.array([1.0, 5.0]), 0.4
    law = GeneralizedLaw(ratio, weights, population)
    other = GeneralizedLaw(1 / ratio, population, weights)
    positions = np.array([0.05, 0.4, 1.0, 3.0, 8.0])
    above = 1 - law.cdf(positions)  # per parameter of the one, per sample of the other
    np.testing.assert_allclose(1 - other.cdf(positions / ratio), above * ratio, atol=1e-10)
    assert other.mass_at_zero == pytest.approx(1 - ratio)


def test_moments_are_those_of_the_model() -> None:
    # On a circle around the spectrum, where the quadrature converges exponentially.
    weights, population, ratio = np.array([0.0, 0.5, 2.0]), np.array([0.0, 1.0, 4.0, 4.0]), 1.5
    law = GeneralizedLaw(ratio, weights, population)
    radius = 1.5 * law.bound
    angles = (np.arange(200) + 0.5) * np.pi / 200
    z = radius * np.exp(1j * angles)
    m = law.stieltjes(z)
    moments = [float(np.mean((-m * z ** (power + 1)).real)) for power in (0, 1, 2)]
    d, d2, t, t2 = weights.mean(), (weights**2).mean(), population.mean(), (population**2).mean()
    expected = [1, d * t, d**2 * t2 + ratio * d2 * t**2]
    np.testing.assert_allclose(moments, expected, rtol=1e-10)
    # Rank: 2/3 of the samples for 1.5 parameters each, below the population's 3/4.
    assert law.mass_at_zero == pytest.approx(1 - (2 / 3) / 1.5)
    assert law.cdf(1e-6) == pytest.approx(law.mass_at_zero, abs=1e-3)


@pytest.mark.parametrize(("num_parameters", "num_samples"), [(100, 250), (200, 100)])
def test_law_is_that_of_simulated_eigenvalues_where_marchenko_pastur_is_not(
    num_parameters: int, num_samples: int
) -> None:
    rng = np.random.default_rng(0)
    weights, population = rng.random(num_samples) ** 3, np.array([1.0, 6.0])
    entries = rng.standard_normal((num_parameters, num_samples))
    entries *= np.sqrt(np.repeat(population, num_parameters // 2))[:, None]
    eigenvalues = np.linalg.eigvalsh((entries * weights) @ entries.T / num_samples)
    law = GeneralizedLaw(num_parameters / num_samples, weights, population)
    shares = (np.arange(num_parameters) + 0.5) / num_parameters
    is_zero = np.arange(num_parameters) < num_parameters - num_samples
    chosen = eigenvalues[~is_zero][::5]
    bound = 3 * np.log(num_parameters) / num_parameters
    assert np.abs(law.cdf(chosen) - shares[~is_zero][::5]).max() < bound
    plain = MarchenkoPastur(law.aspect_ratio, float(eigenvalues.mean()))
    assert np.abs(plain.cdf(chosen) - shares[~is_zero][::5]).max() > 2 * bound
    lower, upper = law.edges()
    slack = 6 * num_samples ** (-2 / 3)
    assert lower * (1 - slack) < eigenvalues[~is_zero][0]
    assert eigenvalues[-1] == pytest.approx(upper, rel=slack)


@pytest.mark.parametrize(("strength", "ratio"), [(3.0, 1.0), (4.0, 2.0), (0.2, 0.25), (1.2, 0.25)])
def test_outliers_of_equal_weights_are_those_of_theorem_1(strength: float, ratio: float) -> None:
    law = GeneralizedLaw(ratio, 0.25 * ONE, ONE)
    weights = np.full(1000, 0.25)
    projections = np.full((1000, 1), np.sqrt(strength))
    left, right = outlier_positions(law, weights, projections)
    found = [*left, *right]
    if abs(strength - 1) < np.sqrt(ratio):
        assert not found
    else:
        assert len(right) == (strength > 1)
        assert found == pytest.approx([0.25 * sample_position(strength, ratio)], rel=1e-7)


@pytest.mark.parametrize("strength", [5.0, 10.0, 20.0, 40.0])
def test_outliers_in_gaps_are_those_of_a_simulation(strength: float) -> None:
    num_parameters, num_samples = 80, 4000
    kinds = np.repeat([1.0, 50.0], [60, 20])
    law = GeneralizedLaw(num_parameters / num_samples, ONE, kinds)
    projections = np.full((num_samples, 1), np.sqrt(strength))
    left, right = outlier_positions(law, np.ones(num_samples), projections)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((num_samples, num_parameters)) * np.sqrt(kinds)
    inputs[:, 0] = np.sqrt(strength) * np.sign(rng.standard_normal(num_samples))
    values = np.linalg.eigvalsh(inputs.T @ inputs / num_samples)
    first, second = law.support
    in_gap = values[(values > 1.2 * first.upper) & (values < 0.95 * second.lower)]
    assert len(left) == len(in_gap) == 1
    assert not len(right)
    assert left == pytest.approx(in_gap, rel=0.03)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("beyond", [1e-1, 1e-2, 1e-3, 2e-4])
@pytest.mark.parametrize("sign", [1, -1])
def test_outliers_next_to_an_edge_are_those_of_theorem_1(
    ratio: float, beyond: float, sign: int
) -> None:
    strength = 1 + sign * np.sqrt(ratio) * (1 + beyond)
    if strength <= 0:
        return
    law = GeneralizedLaw(ratio, ONE, ONE)
    left, right = outlier_positions(law, np.ones(50), np.full((50, 1), np.sqrt(strength)))
    assert (len(left), len(right)) == ((0, 1) if sign == 1 else (1, 0))
    expected = sample_position(strength, ratio)
    assert float([*left, *right][0]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("projection", [1e-3, 1e-6, 1e-10, 1e-30])
def test_outliers_next_to_zero_are_found(projection: float) -> None:
    law = GeneralizedLaw(0.25, ONE, ONE)
    left, right = outlier_positions(law, np.ones(50), np.full((50, 1), projection))
    assert left == pytest.approx([0.75 * projection**2], rel=4 * projection + 1e-9)
    assert not len(right)


def test_outliers_are_those_of_a_simulated_logistic_curvature() -> None:
    # Weights depend on the first coordinate, in which the samples have a mean; the second
    # coordinate has a mean alone.
    num_parameters, num_samples = 100, 400
    rng = np.random.default_rng(2)
    found, predicted = [], []
    for _ in range(5):
        inputs = rng.standard_normal((num_samples, num_parameters))
        signs = np.sign(rng.standard_normal(num_samples))
        inputs[:, 0] += 2 * signs
        inputs[:, 1] += 4 * signs
        share = 1 / (1 + np.exp(-inputs[:, 0]))
        weights = share * (1 - share)
        law = GeneralizedLaw(num_parameters / num_samples, weights, ONE)
        left, right = outlier_positions(law, weights, inputs[:, :2])
        assert not len(left)
        values = np.linalg.eigvalsh((inputs.T * weights) @ inputs / num_samples)
        assert len(right) == 1
        found.append(values[-1])
        predicted.append(right[0])
        assert values[-2] < law.edges()[1] * (1 + 6 * num_samples ** (-2 / 3))
    difference = np.array(found) - predicted
    error = difference.std() / np.sqrt(len(found))
    assert abs(difference.mean()) < 4 * error + 3 / num_samples * np.mean(found)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="aspect_ratio must be positive"):
        GeneralizedLaw(0.0, ONE, ONE)
    with pytest.raises(ValueError, match="weights must be at least 0 and not all 0"):
        GeneralizedLaw(1.0, np.array([-1.0, 1.0]), ONE)
    with pytest.raises(ValueError, match="population must be a vector of finite numbers"):
        GeneralizedLaw(1.0, ONE, np.array([np.nan]))
    law = GeneralizedLaw(1.0, ONE, ONE)
    with pytest.raises(ValueError, match="points must lie above the real axis"):
        law.stieltjes([1.0])
    with pytest.raises(ValueError, match="projections must have a row for each"):
        outlier_positions(law, np.ones(4), np.ones((3, 1)))


def test_unsolved_equation_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesspipe.random_matrices.generalized._MAX_ITERATIONS", 1)
    with pytest.raises(NoSolutionError, match="no solution at 1 of 1 points after 1 iterations"):
        GeneralizedLaw(1.0, ONE, ONE).density([1.0])


def support(weights: np.ndarray, ratio: float) -> list[tuple[float, float, float]]:
    """Ends and mass of each piece of the support, for a population of ones and ratio > 1.

    Independent of the fixed-point iteration: outside the support, a = -1 / v is real, the
    equation for a says z = v (alpha + mean_d[d / (v - d)]), and dz / dv > 0. The ends are where
    mean_d[(d / (v - d))^2] = alpha, which is convex between two neighboring weights.

    References
    ----------
    Silverstein, Choi (1995); Bai, Silverstein (1999), for the mass: a gap between the n-th and
    the next weight has the share n / N of the nonzero eigenvalues below.
    """
    d = np.sort(weights)
    radius = np.sqrt(1 / (len(d) * ratio))  # the equation cannot hold closer to a weight

    def slope(v: float) -> float:
        return float(np.mean((d / (v - d)) ** 2)) - ratio

    def position(v: float) -> float:
        return float(v * (ratio + np.mean(d / (v - d))))

    ends = [position(brentq(slope, 0, d[0] * (1 - radius), xtol=1e-300, rtol=1e-14))]
    shares = [0.0]
    for number, (low, high) in enumerate(pairwise(d), start=1):
        start, end = low * (1 + radius), high * (1 - radius)
        if start < end:
            middle = brentq(lambda v: np.mean(d**2 / (d - v) ** 3), start, end, xtol=1e-300)
            if slope(middle) < 0:
                for bracket in ((start, middle), (middle, end)):
                    ends.append(position(brentq(slope, *bracket, xtol=1e-300, rtol=1e-14)))
                shares.append(number / len(d))
    top = d[-1] * np.array([1 + radius, 1.01 + 1 / np.sqrt(ratio)])
    ends.append(position(brentq(slope, *top, rtol=1e-14)))
    masses = np.diff([*shares, 1.0]) / ratio  # of the eigenvalues, of which 1 / alpha are not zero
    return list(zip(ends[::2], ends[1::2], masses, strict=True))


# Curvatures p (1 - p) of a separable problem: single ones far below all others.
SPREAD = np.concatenate([[1e-6, 1e-5, 1.1e-5, 5e-5, 2e-4], np.geomspace(5e-3, 0.25, 55)])


def test_spread_weights_have_a_narrow_piece_of_the_support_for_each_small_one() -> None:
    pieces = support(SPREAD, 2.0)
    law = GeneralizedLaw(2.0, SPREAD, ONE)
    assert [round(120 * mass) for _, _, mass in pieces] == [1, 2, 1, 1, 55]
    below = law.mass_at_zero
    for (lower, upper, mass), following in zip(pieces, [*pieces[1:], None], strict=True):
        assert law.cdf(lower * (1 - 1e-3)) == pytest.approx(below, abs=1e-8)
        below += mass
        assert law.cdf(upper * (1 + 1e-3)) == pytest.approx(below, abs=1e-8)
        assert following is None or upper < following[0] / 1.5
    assert law.edges()[1] == pytest.approx(pieces[-1][1], rel=1e-6)


def test_density_integrates_to_the_mass_in_each_bin_where_the_weights_are_spread() -> None:
    law = GeneralizedLaw(2.0, SPREAD, ONE)
    pieces = support(SPREAD, 2.0)
    bins = np.linspace(0, np.sqrt(pieces[-1][1]), 13) ** 2
    masses = np.diff(law.cdf(bins))
    found = np.zeros(len(masses))
    for lower, upper, mass in pieces:
        # Equal steps of the angle are dense toward both ends of a piece, where the density is a
        # square root; narrow pieces lie inside the first bin.
        angle = (np.arange(2000) + 0.5) * np.pi / 2000
        x = lower + (upper - lower) * np.sin(angle / 2) ** 2
        areas = law.density(x) * (upper - lower) * np.sin(angle) / 2 * (np.pi / 2000)
        assert areas.sum() == pytest.approx(mass, rel=2e-3)
        found += np.histogram(x, bins=bins, weights=areas)[0]
    # A bin's end falls between two nodes.
    np.testing.assert_allclose(found, masses, atol=1e-3 * (1 - law.mass_at_zero))
    assert pieces[3][1] < bins[1]
    # A hundred points evenly spaced in the root, as a drawn curve would have, miss the mass.
    root = np.linspace(1e-6, np.sqrt(bins[1]), 100 // 12)
    drawn = np.trapezoid(2 * root * law.density(root**2), root)
    assert abs(drawn / masses[0] - 1) > 0.1


def test_mass_in_each_bin_is_that_of_simulated_eigenvalues_where_the_weights_are_spread() -> None:
    law = GeneralizedLaw(2.0, SPREAD, ONE)
    bins = np.concatenate([[0.0, 4e-6, 3e-5, 1e-4, 5e-4], np.linspace(0.05, 0.8, 6)])
    expected = np.diff(law.cdf(bins)) * 2 * len(SPREAD)
    rng = np.random.default_rng(5)
    counts = []
    for _ in range(200):
        entries = rng.standard_normal((2 * len(SPREAD), len(SPREAD))) * np.sqrt(SPREAD)
        counts.append(np.histogram(np.linalg.eigvalsh(entries.T @ entries / len(SPREAD)), bins)[0])
    mean, error = np.mean(counts, 0), np.std(counts, 0) / np.sqrt(len(counts))
    np.testing.assert_allclose(expected[:4], [1, 2, 1, 1], atol=1e-6)
    # Of order 1: the difference of a finite matrix from its limit.
    assert (np.abs(mean - expected) < 4 * error + 0.25).all()
    np.testing.assert_allclose(mean[:3], expected[:3], atol=0.05)

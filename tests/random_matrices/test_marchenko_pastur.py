"""The Marchenko-Pastur law against quadrature, moments in closed form, and simulation."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur

RATIOS = [0.02, 0.5, 1.0, 2.0, 7.0]


def integral(law: MarchenkoPastur, function, high: float | None = None) -> float:
    """Over the bulk, in the variable in which its edges are smooth."""
    middle, half = (law.lower_edge + law.upper_edge) / 2, (law.upper_edge - law.lower_edge) / 2
    end = np.pi if high is None else np.arccos((middle - high) / half)

    def integrand(angle: float) -> float:
        x = middle - half * np.cos(angle)
        return float(function(x) * law.density(x)) * half * np.sin(angle)

    return quad(integrand, 0, end, epsabs=1e-12, epsrel=1e-12, limit=400)[0]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_moments_are_those_of_the_closed_form(ratio: float, scale: float) -> None:
    # Narayana's numbers: mean of x^k = scale^k sum_j alpha^j / (j + 1) C(k, j) C(k - 1, j).
    law = MarchenkoPastur(ratio, scale)
    expected = [1, 1 + ratio, 1 + 3 * ratio + ratio**2]
    for power, moment in enumerate(expected, start=1):
        found = integral(law, lambda x, power=power: (x / scale) ** power)
        assert found == pytest.approx(moment, rel=1e-10)


@pytest.mark.parametrize("ratio", RATIOS)
def test_cdf_is_the_integral_of_the_density_and_counts_the_zeros(ratio: float) -> None:
    law = MarchenkoPastur(ratio, 0.3)
    positions = law.lower_edge + np.linspace(0.01, 0.99, 7) * (law.upper_edge - law.lower_edge)
    for x in positions:
        expected = law.mass_at_zero + integral(law, lambda x: 1.0, high=x)
        assert float(law.cdf(x)) == pytest.approx(expected, abs=1e-10)
    outside = law.cdf([-1.0, 0.0, law.lower_edge, law.upper_edge, 2 * law.upper_edge])
    zeros = law.mass_at_zero
    np.testing.assert_allclose(outside, [0, zeros, zeros, 1, 1], atol=1e-14)
    assert not law.density([0.5 * law.lower_edge, 1.1 * law.upper_edge]).any()


@pytest.mark.parametrize(("num_parameters", "num_samples"), [(150, 300), (300, 300), (300, 150)])
def test_law_is_that_of_simulated_eigenvalues(num_parameters: int, num_samples: int) -> None:
    entries = np.random.default_rng(3).standard_normal((num_parameters, num_samples))
    eigenvalues = np.linalg.eigvalsh(entries @ entries.T / num_samples)
    law = MarchenkoPastur(num_parameters / num_samples)
    shares = (np.arange(num_parameters) + 0.5) / num_parameters
    is_zero = np.arange(num_parameters) < num_parameters - num_samples
    assert np.abs(eigenvalues[is_zero]).max(initial=0) < 1e-12
    # Eigenvalues are rigid: the distance is of order log(P) / P, not P^(-1/2).
    distance = np.abs(law.cdf(eigenvalues[~is_zero]) - shares[~is_zero]).max()
    assert distance < 3 * np.log(num_parameters) / num_parameters
    assert np.mean(is_zero) == pytest.approx(law.mass_at_zero)


EXTREME = [
    1e-20,
    1e-14,
    1e-8,
    0.02,
    0.15,
    0.2,
    0.9,
    1 - 1e-13,
    1.0,
    1 + 1e-9,
    3.0,
    1e8,
    1e16,
    1e100,
]


def exact_cdf(ratio: float, x: float) -> mpmath.mpf:
    """The antiderivative in closed form, at 60 digits."""
    alpha, x = mpmath.mpf(ratio), mpmath.mpf(x)
    low, high = (1 - mpmath.sqrt(alpha)) ** 2, (1 + mpmath.sqrt(alpha)) ** 2
    zeros = max(mpmath.mpf(0), 1 - 1 / alpha)
    if not low < x < high:
        return zeros if x <= low else mpmath.mpf(1)
    below, above = mpmath.sqrt(x - low), mpmath.sqrt(high - x)
    turn = mpmath.atan2(mpmath.sqrt(high) * below, mpmath.sqrt(low) * above)
    area = below * above + (low + high) * mpmath.atan2(below, above)
    return zeros + (area - 2 * mpmath.sqrt(low * high) * turn) / (2 * mpmath.pi * alpha)


@pytest.mark.parametrize("ratio", EXTREME)
def test_cdf_and_sf_are_those_of_60_digits_within_0_and_1_and_monotone(ratio: float) -> None:
    law = MarchenkoPastur(ratio)
    low, high = law.lower_edge, law.upper_edge
    shares = np.concatenate(
        [np.linspace(0, 1, 41), np.geomspace(1e-12, 0.1, 20), 1 - np.geomspace(1e-12, 0.1, 20)]
    )
    x = np.unique(np.clip(low + (high - low) * shares, low, high))
    cdf, sf = law.cdf(x), law.sf(x)
    assert (cdf[0], cdf[-1], sf[-1]) == (law.mass_at_zero, 1.0, 0.0)
    assert law.cdf([-1.0, np.inf, -np.inf]).tolist() == [0.0, 1.0, 0.0]
    assert ((cdf >= 0) & (cdf <= 1) & (sf >= 0) & (sf <= 1)).all()
    assert np.diff(cdf).min() >= -4e-16
    assert np.diff(sf).max() <= 4e-16
    # A position is known to eps of itself, that is eps / sqrt(alpha) of the bulk's half width.
    root = min(ratio, 1 / ratio) ** 0.5
    rounding = 4e-16 / root + 1e-14
    with mpmath.workdps(60):
        expected = [exact_cdf(ratio, value) for value in x.tolist()]
        errors = [float(value - cdf[n]) for n, value in enumerate(expected)]
        others = [float((1 - value) * max(1, ratio)) for value in expected]
    assert np.abs(errors).max() <= rounding / max(1, ratio) + 3e-16
    assert np.abs(np.array(others) - sf * max(1, ratio)).max() <= rounding


@pytest.mark.parametrize("ratio", EXTREME)
def test_density_integrates_to_the_mass_of_the_bulk(ratio: float) -> None:
    law = MarchenkoPastur(ratio)
    root = min(ratio, 1 / ratio) ** 0.5
    angle = (np.arange(4000) + 0.5) * np.pi / 4000
    middle = (law.lower_edge + law.upper_edge) / 2
    x = middle - (law.upper_edge - law.lower_edge) / 2 * np.cos(angle)
    steps = (law.upper_edge - law.lower_edge) / 2 * np.sin(angle) * np.pi / 4000
    mass = float(np.sum(law.density(x) * steps))
    assert mass == pytest.approx(1 - law.mass_at_zero, rel=1e-6 + 1e-14 / root)


@pytest.mark.parametrize("function", ["cdf", "sf", "density"])
def test_positions_that_are_nan_are_refused(function: str) -> None:
    with pytest.raises(ValueError, match="positions must be numbers, got 1 that are nan"):
        getattr(MarchenkoPastur(0.5), function)([1.0, np.nan])


@pytest.mark.parametrize(
    ("ratio", "scale"), [(1e-310, 1.0), (1e290, 1.0), (1.0, 1e-290), (1e200, 1e200)]
)
def test_laws_that_cannot_be_represented_are_refused(ratio: float, scale: float) -> None:
    with pytest.raises(ValueError, match="aspect_ratio and the upper edge must be between"):
        MarchenkoPastur(ratio, scale)


@pytest.mark.parametrize(
    ("ratio", "scale", "name"), [(0.0, 1.0, "aspect_ratio"), (np.nan, 1.0, "aspect_ratio"),
                                 (1.0, -1.0, "scale"), (1.0, np.inf, "scale")],
)  # fmt: skip
def test_impossible_laws_are_refused(ratio: float, scale: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive and finite"):
        MarchenkoPastur(ratio, scale)

"""The Tracy-Widom law against its published moments, and against simulated edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.stats import kstest

from hesspipe.random_matrices.sampling import largest_eigenpair
from hesspipe.random_matrices.spiked import edge_scaling
from hesspipe.random_matrices.tracy_widom import tracy_widom_cdf


def test_moments_are_the_published_ones() -> None:
    # Bornemann (2010), Table 3: mean, variance, skewness and excess kurtosis for beta = 1.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    above, below, half_weights = -1 + 4.5 * (nodes + 1), -1 - 4.5 * (nodes + 1), 4.5 * weights
    complement, cdf = 1 - tracy_widom_cdf(above), tracy_widom_cdf(below)
    # Integration by parts about -1, the tail above and the tail below.
    moments = [1.0]
    for power in (1, 2, 3):
        tails = (above + 1) ** (power - 1) * complement - (below + 1) ** (power - 1) * cdf
        moments.append(float(np.sum(half_weights * power * tails)))
    mean = moments[1] - 1
    variance = moments[2] - moments[1] ** 2
    third = moments[3] - 3 * moments[1] * moments[2] + 2 * moments[1] ** 3
    assert mean == pytest.approx(-1.2065335745820, abs=1e-7)
    assert variance == pytest.approx(1.607781034581, abs=1e-6)
    assert third / variance**1.5 == pytest.approx(0.29346452408, abs=1e-5)


def test_cdf_does_not_depend_on_the_number_of_nodes_and_rises_from_0_to_1() -> None:
    s = np.linspace(-10, 8, 31)
    values = tracy_widom_cdf(s)
    np.testing.assert_allclose(values, tracy_widom_cdf(s, num_nodes=130), atol=1e-13)
    assert (np.diff(values) > -1e-13).all()
    assert values[0] < 1e-20
    assert tracy_widom_cdf([-50.0, 50.0]) == pytest.approx([0.0, 1.0], abs=1e-15)


def test_simulated_edges_follow_the_law() -> None:
    num_parameters, num_samples = 40, 60
    rng = np.random.default_rng(11)
    entries = rng.standard_normal((250, num_parameters, num_samples))
    largest = np.linalg.eigvalsh(entries @ entries.transpose(0, 2, 1) / num_samples)[:, -1]
    center, width = edge_scaling(num_parameters, num_samples)
    test = kstest((largest - center) / width, tracy_widom_cdf)
    assert test.pvalue > 0.01
    # With a Gaussian instead of the law, the test fails.
    assert kstest((largest - center) / width, "norm").pvalue < 1e-6


def test_tracy_widom_cdf_is_nearer_to_simulated_edges_with_the_shifts_by_a_half() -> None:
    # Ma (2012): the shifts by 1/2 take the error from order N^(-1/3) to N^(-2/3).
    num_parameters, num_samples = 40, 60
    rng = np.random.default_rng(12)
    draws = np.array(
        [largest_eigenpair(1.0, num_parameters, num_samples, rng)[0] for _ in range(4000)]
    )
    roots = np.sqrt(num_parameters), np.sqrt(num_samples)
    plain_center = sum(roots) ** 2 / num_samples
    plain_width = sum(roots) * (1 / roots[0] + 1 / roots[1]) ** (1 / 3) / num_samples
    grid = np.linspace(-10, 8, 241)
    law = PchipInterpolator(grid, tracy_widom_cdf(grid))

    def distance(center: float, width: float) -> float:
        return float(kstest(np.clip((draws - center) / width, -10, 8), law).statistic)

    assert distance(*edge_scaling(num_parameters, num_samples)) < 0.75 * distance(
        plain_center, plain_width
    )


@pytest.mark.parametrize("positions", [float("nan"), [0.0, float("nan")]])
def test_tracy_widom_cdf_refuses_nan(positions) -> None:
    with pytest.raises(ValueError, match="positions must be numbers, got 1 that are nan"):
        tracy_widom_cdf(positions)

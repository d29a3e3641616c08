"""The support of the generalized law against 50 digits, closed forms, simulation and duality."""

from __future__ import annotations

from itertools import pairwise

import mpmath
import numpy as np
import pytest

from hesspipe.random_matrices.generalized import GeneralizedLaw
from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur
from hesspipe.random_matrices.support import find_support

ONE = np.ones(1)
RATIOS = [1e-100, 1e-30, 1e-14, 1e-4, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 2.0, 1e6, 1e14, 1e30]


def drawn(seed: int) -> GeneralizedLaw:
    """A law with atoms over up to 12 decades on both sides, some of them at zero."""
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        atoms = 10 ** rng.uniform(-rng.choice([1, 4, 12]), 0, rng.integers(1, 5))
        atoms = np.repeat(atoms, rng.integers(1, 6, len(atoms)))
        sides.append(np.append(atoms, np.zeros(rng.integers(0, 3))))
    return GeneralizedLaw(
        10 ** rng.uniform(-6, 6), sides[0] * 10.0 ** rng.integers(-9, 9), sides[1]
    )


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_find_support_is_that_of_marchenko_and_pastur_for_one_atom(ratio, scale):
    (piece,) = find_support(ratio, scale * ONE, 3 * ONE)
    law = MarchenkoPastur(ratio, 3 * scale)
    assert piece.lower == pytest.approx(law.lower_edge, rel=1e-7 * (abs(ratio - 1) < 1e-3) + 1e-14)
    assert piece.upper == pytest.approx(law.upper_edge, rel=1e-14)
    assert piece.mass == pytest.approx(1 - law.mass_at_zero, rel=1e-12)


def test_find_support_has_both_pieces_of_two_atoms_far_apart():
    first, second = find_support(1e-4, ONE, np.array([1.0, 50.0]))
    # Nearly independent: Marchenko-Pastur pieces with half of the parameters each.
    half = MarchenkoPastur(0.5e-4)
    assert first[:2] == pytest.approx((half.lower_edge, half.upper_edge), rel=1e-3)
    assert second[:2] == pytest.approx((50 * half.lower_edge, 50 * half.upper_edge), rel=1e-3)
    assert (first.mass, second.mass) == (0.5, 0.5)


@pytest.mark.parametrize("seed", range(12))
def test_find_support_has_edges_that_are_double_roots_to_50_digits(seed):
    law = drawn(seed)
    with mpmath.workdps(50):
        ratio = mpmath.mpf(law.aspect_ratio)
        d, t = ([mpmath.mpf(float(v)) for v in side] for side in (law.weights, law.population))

        def equations(log_a, log_z, sign):
            a, z = sign * mpmath.exp(log_a), mpmath.exp(log_z)
            b = sum(v / (1 + v * a) for v in d) / len(d)
            slope = sum((v / (1 + v * a)) ** 2 for v in d) / len(d)
            first = ratio * sum(v / (v * b - z) for v in t) / len(t)
            second = ratio * sum((v / (v * b - z)) ** 2 for v in t) / len(t)
            return first / a - 1, second * slope - 1

        for piece in law.support:
            width = (piece.upper - piece.lower) / piece.upper
            for edge, outward in ((piece.lower, -1), (piece.upper, 1)):
                # Start outside, next to the edge, at the law's own a.
                near = edge * (1 + outward * 1e-5 * width)
                a = law.solve(np.array([near * (1 + 1e-10j * width)]))[0].real
                sign = float(np.sign(a))
                start = mpmath.log(abs(a)), mpmath.log(near)
                _, found = mpmath.findroot(
                    lambda x, y, sign=sign: equations(x, y, sign), start, tol=1e-40, maxsteps=60
                )
                assert float(mpmath.exp(found) / edge - 1) == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize("seed", range(12))
def test_find_support_has_all_of_the_mass_and_nothing_outside(seed):
    law = drawn(100 + seed)
    pieces = law.support
    total = law.mass_at_zero
    assert law.cdf(pieces[0].lower * (1 - 1e-12)) == pytest.approx(total, abs=1e-12)
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        middle = np.linspace(piece.lower, piece.upper, 7)[1:-1]
        assert (law.density(middle) > 0).all()
        inside = law.cdf(middle)
        # Strictly inside the piece's share of the mass: no gap was counted as support.
        assert (inside > total + 1e-3 * piece.mass).all()
        assert (inside < total + 0.999 * piece.mass).all()
        assert (np.diff(inside) > 0).all()
        total += piece.mass
        assert law.cdf(piece.upper) == pytest.approx(total, abs=1e-12)
        outside = piece.upper * 1.5 if following is None else (piece.upper + following.lower) / 2
        assert law.density(outside) == 0
        # Next to the axis, the Stieltjes transform has no imaginary part there.
        size = law.stieltjes(np.array([outside * (1 + 1e-12j)]))[0]
        assert abs(size.imag * outside) < 1e-8
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_find_support_is_the_same_with_samples_and_parameters_exchanged(seed):
    law = drawn(200 + seed)
    ratio = law.aspect_ratio
    other = find_support(1 / ratio, law.population, law.weights)
    for one, two in zip(law.support, other, strict=True):
        assert np.array(two[:2]) * ratio == pytest.approx(np.array(one[:2]), rel=1e-12)
        assert two.mass == pytest.approx(one.mass * ratio, rel=1e-9)


@pytest.mark.parametrize(
    ("num_parameters", "num_samples", "weights", "population"),
    [
        (60, 1200, [1.0], [1.0, 8.0, 0.05]),
        (1200, 60, [1.0, 0.1, 0.004], [1.0]),
        (300, 300, [1.0, 1e-3], [1.0, 0.01]),
        (120, 360, [0.0, 1.0, 30.0], [1e-4, 1.0]),
    ],
)
def test_find_support_is_that_of_simulated_matrices(
    num_parameters, num_samples, weights, population
):
    rng = np.random.default_rng(3)
    d = np.resize(weights, num_samples)
    t = np.resize(population, num_parameters)
    pieces = find_support(num_parameters / num_samples, d, t)
    entries = rng.standard_normal((num_parameters, num_samples)) * np.sqrt(t)[:, None] * np.sqrt(d)
    found = np.linalg.svd(entries, compute_uv=False) ** 2 / num_samples
    found = np.sort(found[found > 1e-12 * found.max()])
    ends = np.cumsum([round(piece.mass * num_parameters) for piece in pieces])
    assert ends[-1] == len(found)
    slack = 6 * min(num_parameters, num_samples) ** (-2 / 3)
    for piece, (start, end) in zip(pieces, pairwise([0, *ends]), strict=True):
        assert found[start] == pytest.approx(piece.lower, rel=slack, abs=0.02 * piece.upper)
        assert found[end - 1] == pytest.approx(piece.upper, rel=slack)
    assert len(pieces) > 1


def test_find_support_has_a_piece_for_each_of_many_small_weights():
    weights = np.geomspace(1e-12, 1, 60)
    pieces = find_support(4.0, weights, ONE)
    rng = np.random.default_rng(0)
    entries = rng.standard_normal((240, 60)) * np.sqrt(weights)
    found = np.sort(np.linalg.svd(entries, compute_uv=False) ** 2 / 60)
    ends = np.cumsum([round(240 * piece.mass) for piece in pieces])
    assert ends[-1] == 60
    # Of 60 eigenvalues over twelve decades, each lies in the piece that its rank says, or next to
    # it: a piece of few eigenvalues is as wide as their fluctuation.
    for rank, value in enumerate(found):
        piece = pieces[int(np.searchsorted(ends, rank, side="right"))]
        assert piece.lower / 1.5 < value < piece.upper * 1.5


@pytest.mark.parametrize("ratio", [1e-300, 1e-141, 1e141, 1e300, float("inf"), float("nan"), -1.0])
def test_generalized_law_refuses_what_it_cannot_represent(ratio):
    with pytest.raises(ValueError, match=r"aspect_ratio.* must be"):
        GeneralizedLaw(ratio, ONE, ONE)
    with pytest.raises(ValueError, match="must be between"):
        GeneralizedLaw(1.0, 1e200 * ONE, ONE)
    with pytest.raises(ValueError, match="positions must be numbers"):
        GeneralizedLaw(1.0, ONE, ONE).cdf([0.5, float("nan")])


@pytest.mark.parametrize("ratio", [1e-20, 1e-8, 1.0, 1e8, 1e20])
def test_generalized_law_solves_its_equation_to_the_last_digits(ratio):
    # Marchenko-Pastur's Stieltjes transform in closed form, with the root that has the sign of z.
    law = GeneralizedLaw(ratio, ONE, ONE)
    # So many that some end on a step that is hardly smaller than the tolerance.
    z = (1 + ratio) * np.exp(1j * np.linspace(0.1, 3.0, 600))
    with mpmath.workdps(60):
        alpha = mpmath.mpf(ratio)
        expected = []
        for point in z:
            w = mpmath.mpc(point)
            root = mpmath.sqrt(w - (1 - mpmath.sqrt(alpha)) ** 2)
            root *= mpmath.sqrt(w - (1 + mpmath.sqrt(alpha)) ** 2)
            expected.append(complex((1 - alpha - w + root) / (2 * alpha * w)))
    np.testing.assert_allclose(law.stieltjes(z), expected, rtol=1e-12)

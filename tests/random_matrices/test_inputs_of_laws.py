"""Laws on lists, whole numbers and float32, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hesspipe.outliers import count_outliers
from hesspipe.random_matrices.generalized import GeneralizedLaw, outlier_positions
from hesspipe.random_matrices.spiked import edge_scaling, sample_position, spectrum_picture


@pytest.mark.parametrize("convert", [list, np.float32, np.int64], ids=["list", "float32", "int64"])
def test_generalized_law_does_not_depend_on_the_type_of_its_atoms(
    convert: Callable[[Any], Any],
) -> None:
    weights, population = np.array([1.0, 2.0]), np.array([1.0, 50.0])
    law = GeneralizedLaw(0.1, convert(weights), convert(population))
    expected = GeneralizedLaw(0.1, weights, population)
    assert law.support == expected.support
    assert law.density(50.0) == expected.density(50.0) > 0


def test_generalized_law_does_not_change_with_the_callers_array() -> None:
    population = np.ones(2)
    law = GeneralizedLaw(0.25, np.ones(1), population)
    population[:] = 9.0
    assert law.edges() == (0.25, 2.25)


def test_outlier_positions_accepts_lists() -> None:
    law = GeneralizedLaw(0.25, np.ones(1), np.ones(1))
    left, right = outlier_positions(law, [1.0] * 4, [[2.0]] * 4)
    assert (len(left), right) == (0, pytest.approx([4 * (1 + 0.25 / 3)], rel=1e-8))


@pytest.mark.parametrize(
    ("strength", "aspect_ratio"),
    [(1e-11, 1 - 1e-10), (1e-3, 0.99), (1.001000001, 1e-6), (1e200, 1e300)],
)
def test_sample_position_is_exact_near_a_hard_edge(strength: float, aspect_ratio: float) -> None:
    level, alpha = Fraction(strength), Fraction(aspect_ratio)
    expected = float(level * (level - 1 + alpha) / (level - 1))
    assert sample_position(strength, aspect_ratio) == pytest.approx(expected, rel=1e-15)


LAW = GeneralizedLaw(0.25, np.ones(1), np.ones(1))
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "complex weights": (
        lambda: GeneralizedLaw(1.0, np.array([1j]), np.ones(1)), ValueError, "weights must be real",
    ),
    "complex projections": (
        lambda: outlier_positions(LAW, np.ones(2), np.full((2, 1), 1j)), ValueError, "must be real",
    ),
    "no samples": (
        lambda: outlier_positions(LAW, np.ones(0), np.ones((0, 1))), ValueError, "at least one",
    ),
    "half a parameter": (lambda: spectrum_picture([2.0], 10.5, 95), ValueError, "whole numbers"),
    "half a sample": (lambda: edge_scaling(10, 95.5), ValueError, "whole numbers"),
    "half a candidate": (
        lambda: count_outliers([1.0, 2.0], num_candidates=2.5),
        TypeError, "num_candidates must be a whole number",
    ),
    "several rules": (
        lambda: count_outliers([1.0, 2.0], rule=["gap"]),
        ValueError, "rule must be one of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_laws_refuse_what_they_cannot_represent(name: str) -> None:
    run, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        run()

"""Barriers of known functions."""

from __future__ import annotations

import numpy as np
import pytest
from problems import EPS

from hesspipe.landscape.barriers import Barrier, find_barrier
from hesspipe.landscape.paths import line_coefficients


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda a: (a - 0.3) ** 2, Barrier(0.0, 0.0, 0.0)),  # convex: none
        (lambda a: 2.0 - 5 * a, Barrier(0.0, 0.0, 0.0)),  # straight: none
        (lambda a: 4 * a * (1 - a), Barrier(1.0, 0.5, 1.0)),
        # A slope of 2 beneath the bump: above the chord it is 1, above the higher end 0.25.
        (lambda a: 4 * a * (1 - a) + 2 * a, Barrier(1.0, 0.5, 0.25)),
    ],
)
def test_find_barrier_is_that_of_known_functions(loss, expected):
    coefficients = line_coefficients(num_between=8, num_beyond=4)
    found = find_barrier(coefficients, [loss(a) for a in coefficients])
    for name in ("height", "place", "rise"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=4 * EPS), name


def test_find_barrier_does_not_look_past_the_ends():
    assert find_barrier([-1.0, 0.0, 0.5, 1.0, 2.0], [9.0, 1.0, 1.0, 1.0, 9.0]).height == 0


def test_find_barrier_does_not_move_with_a_constant_and_scales_with_the_loss():
    coefficients = line_coefficients(10, 0)
    losses = np.sin(7 * np.array(coefficients))
    base = find_barrier(coefficients, losses)
    assert base.height > 0.5
    moved, scaled = (
        find_barrier(coefficients, losses + 3),
        find_barrier(coefficients, 1e-9 * losses),
    )
    assert (moved.place, scaled.place) == (base.place, base.place)
    assert moved.height == pytest.approx(base.height, rel=50 * EPS)
    assert scaled.height == pytest.approx(1e-9 * base.height, rel=10 * EPS)


def test_find_barrier_is_the_same_from_the_other_end():
    coefficients = line_coefficients(10, 0)
    losses = [np.cos(7 * a) + a for a in coefficients]
    there, back = find_barrier(coefficients, losses), find_barrier(coefficients, losses[::-1])
    assert back.height == pytest.approx(there.height, rel=50 * EPS)
    assert back.place == pytest.approx(1 - there.place, abs=1e-15)


@pytest.mark.parametrize("coefficients", [[0.1, 0.5, 1.0], [0.0, 0.5, 0.9]])
def test_find_barrier_refuses_a_line_without_its_ends(coefficients):
    with pytest.raises(ValueError, match="coefficients must hold 0 and 1"):
        find_barrier(coefficients, [1.0, 2.0, 3.0])

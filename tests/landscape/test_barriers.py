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


@pytest.mark.parametrize("seed", range(6))
def test_find_barrier_is_the_same_in_any_order(seed):
    rng = np.random.default_rng(seed)
    coefficients = np.array([0.0, 1.0, *rng.uniform(-0.5, 1.5, 9)])
    losses = rng.normal(size=11)
    order = np.argsort(coefficients)
    inside = [
        (a, loss - losses[0] - a * (losses[1] - losses[0]), loss - max(losses[0], losses[1]))
        for a, loss in zip(coefficients, losses, strict=True)
        if 0 <= a <= 1
    ]
    place, height, _ = max(inside, key=lambda entry: entry[1])
    expected = Barrier(
        max(height, 0.0), place if height > 0 else 0.0, max(0.0, *(r for *_, r in inside))
    )
    for chosen in (order, order[::-1], rng.permutation(11)):
        found = find_barrier(coefficients[chosen], losses[chosen])
        for name in ("height", "place", "rise"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=20 * EPS)


@pytest.mark.parametrize(
    ("coefficients", "losses", "message"),
    [
        ([0.0, 0.5, 1.0], [1.0, float("nan"), 2.0], "losses must be finite, got nan"),
        ([0.0, 0.5, 1.0], [1.0, 2.0, float("inf")], "losses must be finite, got inf"),
        ([0.0, float("nan"), 1.0], [1.0, 2.0, 3.0], "coefficients must be finite, got nan"),
        ([0.0, 1.0, float("inf")], [1.0, 2.0, 3.0], "coefficients must be finite, got inf"),
        ([0.0, 0.5, 0.5, 1.0], [1.0, 2.0, 2.0, 3.0], "coefficients must be distinct"),
        ([0.0, 1.0, 1.0], [1.0, 2.0, 3.0], "coefficients must be distinct"),
        ([0.0, 0.5, 1.0], [1.0, 2.0], "two vectors of equal length"),
        ([[0.0, 1.0]], [[1.0, 2.0]], "two vectors of equal length"),
        ([], [], "coefficients must hold 0 and 1"),
        ([0.5], [1.0], "coefficients must hold 0 and 1"),
    ],
)
def test_find_barrier_refuses_what_is_no_line(coefficients, losses, message):
    with pytest.raises(ValueError, match=message):
        find_barrier(coefficients, losses)


@pytest.mark.parametrize("coefficients", [[0.1, 0.5, 1.0], [0.0, 0.5, 0.9]])
def test_find_barrier_refuses_a_line_without_its_ends(coefficients):
    with pytest.raises(ValueError, match="coefficients must hold 0 and 1"):
        find_barrier(coefficients, [1.0, 2.0, 3.0])

"""Outlier counts: spectra with known answers, invariances, and the package kneed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kneed import KneeLocator

from hesspipe.outliers import count_outliers

EPS = np.finfo(np.float64).eps
RULES = ["gap", "ratio", "elbow"]
# Descending: 100 50 | 4 2 1 | 0.03 0.02 0.01. The largest gap is 100 - 50, the largest ratio
# 1 / 0.03; below the line from (1, 100) to (8, 0.01), which falls by 14.28 a rank, the points
# lie at most 67.4 away, at 4.
STEPS = [0.01, 0.02, 0.03, 1.0, 2.0, 4.0, 50.0, 100.0]
# Descending: 10 9 8 | 2 1.9 1.8 | 0.1: the gap 6 at 8, the ratio 18 at 1.8, the elbow at 2.
SHELVES = [0.1, 1.8, 1.9, 2.0, 8.0, 9.0, 10.0]


def count(eigenvalues, rule: str, **settings_) -> int:
    return count_outliers(eigenvalues, rule, **settings_).num_outliers


@pytest.mark.parametrize(
    ("eigenvalues", "rule", "num_outliers", "cutoff"),
    [
        (STEPS, "gap", 1, 75.0),
        (STEPS, "ratio", 5, (1.0 * 0.03) ** 0.5),
        (STEPS, "elbow", 2, 4.0),
        (SHELVES, "gap", 3, 5.0),
        (SHELVES, "ratio", 6, (1.8 * 0.1) ** 0.5),
        (SHELVES, "elbow", 3, 2.0),
        ([1.0, 2.0, 9.0], "gap", 1, 5.5),
        ([1.0, 8.0, 9.0], "gap", 2, 4.5),
        ([1.0, 4.0, 20.0], "ratio", 1, 80.0**0.5),
        ([1.0, 5.0, 20.0], "ratio", 2, 5.0**0.5),
        ([1.0, 4.0], "gap", 1, 2.5),
        ([1.0, 4.0], "ratio", 1, 2.0),
        ([1.0, 4.0], "elbow", 0, 4.0),
        # Nothing lies below a line that bulges upward: no elbow.
        ([1.0, 8.0, 9.0, 10.0], "elbow", 0, 10.0),
    ],
)
def test_count_outliers_finds_the_known_answer(eigenvalues, rule, num_outliers, cutoff):
    result = count_outliers(eigenvalues, rule)
    assert (result.num_outliers, result.rule) == (num_outliers, rule)
    assert result.cutoff == pytest.approx(cutoff, rel=4 * EPS)


@pytest.mark.parametrize(
    ("eigenvalues", "rule", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], "gap", 1),
        ([1.0, 1.0, 3.0, 3.0, 5.0, 5.0], "gap", 2),
        ([1.0, 2.0, 4.0, 8.0], "ratio", 1),
        ([1.0, 1.0, 2.0, 2.0, 4.0, 4.0], "ratio", 2),
        ([1.0, 2.0, 3.0, 4.0, 5.0], "elbow", 0),
        # Below the line 9 7 5 3 1, the points 9 5 4 1 1 lie 0 2 1 2 0 and 9 7 3 1 1 lie 0 0 2 2 0.
        ([1.0, 1.0, 4.0, 5.0, 9.0], "elbow", 1),
        ([1.0, 1.0, 3.0, 7.0, 9.0], "elbow", 2),
    ],
)
def test_count_outliers_takes_the_fewest_of_equals(eigenvalues, rule, expected):
    assert count(eigenvalues, rule) == expected


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factor", [0.1, 0.3, 1 / 3, 1e-9, 3.0, 7e5])
@pytest.mark.parametrize(
    "eigenvalues",
    [
        [1.0, 2.0, 3.0],
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        [1.0, 3.0, 5.0, 5.0, 7.0],
        [1.0, 3.0, 9.0, 27.0],
        [1.0, 1.0, 7.0, 7.0, 49.0],
        [3.0, 3.0, 3.0],
        [1.0, 1.0, 4.0, 5.0, 9.0],
    ],
)
def test_count_outliers_takes_the_same_of_equals_in_every_unit(rule, factor, eigenvalues):
    expected = count(eigenvalues, rule)
    for scaled in (
        factor * np.array(eigenvalues),
        # Equal numbers as they are after a computation: by one rounding apart.
        np.cumsum(np.diff([0.0, *(factor * np.array(eigenvalues))])),
        np.exp(np.log(factor) + np.log(eigenvalues)),
    ):
        assert count(np.sort(scaled), rule) == expected
        for num_zeros in (1, 50):
            assert count([0.0] * num_zeros + np.sort(scaled).tolist(), rule) == expected


@pytest.mark.parametrize("rule", RULES)
def test_count_outliers_of_zeros_and_equals_is_that_of_equals(rule):
    assert count([0.0] * 100 + [5.0] * 3, rule) == count([5.0] * 3, rule) == 0
    assert count([1e-9] * 100 + [5.0] * 3, rule) == 3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "bulk",
    [
        [-5.0, -4.0, -3.0, 0.0, 0.0],
        [-1e-3, 0.0, 0.0, 0.0],
        [0.0, 1e-300, 1e-200, 1e-100, 1e-30],
        [1e-20, EPS],
    ],
    ids=["negative", "zero", "tiny", "at the rounding"],
)
def test_count_outliers_ignores_eigenvalues_not_positive_beyond_rounding(rule, bulk):
    result = count_outliers(bulk + SHELVES, rule)
    assert result == count_outliers(SHELVES, rule)


@pytest.mark.parametrize(("factor", "expected"), [(0.5, 1), (2.0, 3)])
def test_count_outliers_has_its_floor_at_eps_times_size_times_the_largest(factor, expected):
    floor = EPS * 4 * 8.0
    # If it enters, the smallest makes the largest ratio; if not, 8 / 2 does.
    assert count([factor * floor, 1.0, 2.0, 8.0], "ratio") == expected


def test_count_outliers_measures_its_floor_by_the_largest_magnitude():
    # eps * P * |-1e16| is about 9: the 1 is rounding, the 1,000 and 3,000 are not.
    assert count([-1e16, 1.0, 1000.0, 3000.0], "ratio") == 1
    assert count([-1.0, 1.0, 1000.0, 3000.0], "ratio") == 2


def test_count_outliers_needs_num_candidates_against_a_ratio_near_zero():
    bulk = np.geomspace(1e-3, 1e-2, 200)
    outliers = [1.0, 2.0, 3.0]
    # 12 orders of magnitude down, above rounding: the ratio there is 10^9.
    eigenvalues = [1e-12, *bulk, *outliers]
    assert count(eigenvalues, "ratio", num_candidates=120) == 3
    assert count(eigenvalues, "ratio", num_candidates=204) == 203


@pytest.mark.parametrize(("num_candidates", "expected"), [(2, 1), (3, 1), (4, 3), (5, 3), (6, 5)])
def test_count_outliers_considers_num_candidates_only(num_candidates, expected):
    descending = [16.0, 10.0, 8.0, 2.0, 1.0, 0.1]
    assert count(descending[::-1], "ratio", num_candidates=num_candidates) == expected


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factor", [1e-9, 1e9, 2.0**-300, 2.0**300])
@pytest.mark.parametrize("eigenvalues", [STEPS, SHELVES, [-1.0, 0.0, *SHELVES]])
def test_count_outliers_scales_the_cutoff_and_not_the_count(eigenvalues, rule, factor):
    plain = count_outliers(eigenvalues, rule)
    scaled = count_outliers(factor * np.array(eigenvalues), rule)
    assert scaled.num_outliers == plain.num_outliers
    assert scaled.cutoff == pytest.approx(factor * plain.cutoff, rel=8 * EPS, abs=0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "eigenvalues",
    [[], [5.0], [0.0], [-5.0], [3.0] * 10, [0.0] * 10, [-3.0, -2.0, -1.0], [0.0, 0.0, 5.0]],
)
def test_count_outliers_is_zero_without_two_different_candidates(eigenvalues, rule):
    result = count_outliers(eigenvalues, rule)
    assert result.num_outliers == 0
    assert result.cutoff == (eigenvalues[-1] if eigenvalues else 0.0)


spectra = arrays(
    np.float64, st.integers(0, 30), elements=st.floats(-1e6, 1e6, allow_subnormal=False)
).map(np.sort)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(eigenvalues=spectra, rule=st.sampled_from(RULES), num_candidates=st.integers(2, 40))
def test_count_outliers_counts_what_lies_above_its_cutoff(eigenvalues, rule, num_candidates):
    result = count_outliers(eigenvalues, rule, num_candidates=num_candidates)
    assert result.num_outliers == sum(value > result.cutoff for value in eigenvalues.tolist())
    assert result.num_outliers < num_candidates


@settings(deadline=None, derandomize=True, max_examples=100)
@given(eigenvalues=spectra, rule=st.sampled_from(RULES))
def test_count_outliers_does_not_change_its_input(eigenvalues, rule):
    before = eigenvalues.copy()
    count_outliers(eigenvalues, rule)
    assert np.array_equal(eigenvalues, before)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    bulk=st.lists(st.floats(1.0, 1.5), min_size=1, max_size=50),
    outliers=st.lists(st.floats(100.0, 120.0), min_size=1, max_size=20),
    rule=st.sampled_from(["gap", "ratio"]),
)
def test_count_outliers_finds_the_one_large_gap(bulk, outliers, rule):
    assert count(sorted(bulk + outliers), rule) == len(outliers)


RANKS = np.arange(1, 61)
CURVES = {
    "1/x": 1 / RANKS,
    "1/x^2": RANKS**-2.0,
    "1/sqrt(x)": RANKS**-0.5,
    "exp(-x/5)": np.exp(-RANKS / 5),
    "exp(-x/20)": np.exp(-RANKS / 20),
    "1/(x+10)": 1 / (RANKS + 10),
}


@pytest.mark.parametrize("name", CURVES)
def test_count_outliers_has_the_elbow_of_kneed(name):
    knee = KneeLocator(RANKS, CURVES[name], curve="convex", direction="decreasing").knee
    result = count_outliers(CURVES[name][::-1], "elbow")
    assert result.num_outliers + 1 == knee
    assert result.cutoff == CURVES[name][knee - 1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_count_outliers_takes_tensors(rule, dtype):
    tensor = torch.tensor([1.0, 2.0, 4.0, 64.0, 128.0], dtype=dtype)
    assert count_outliers(tensor, rule) == count_outliers(tensor.tolist(), rule)


def test_count_outliers_uses_the_gap_by_default():
    assert count_outliers(STEPS) == count_outliers(STEPS, "gap")


@pytest.mark.parametrize(
    ("eigenvalues", "message"),
    [
        ([0.0, np.nan], "must be finite, got 1 that are not"),
        ([-np.inf, 0.0, np.inf], "must be finite, got 2 that are not"),
        ([[1.0, 2.0]], r"must have shape \(P,\), got \(1, 2\)"),
        (3.0, r"must have shape \(P,\), got \(\)"),
        ([3.0, 2.0], "must be in ascending order; sort them first"),
        ([1.0, 2.0j], "must be real, got complex numbers"),
    ],
)
def test_count_outliers_refuses_invalid_spectra(eigenvalues, message):
    with pytest.raises(ValueError, match=f"eigenvalues {message}"):
        count_outliers(eigenvalues, "gap")


def test_count_outliers_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"one of \['elbow', 'gap', 'ratio'\], got 'knee'"):
        count_outliers(STEPS, "knee")


@pytest.mark.parametrize("num_candidates", [1, 0, -3])
def test_count_outliers_refuses_too_few_candidates(num_candidates):
    message = f"num_candidates must be at least 2, got {num_candidates}"
    with pytest.raises(ValueError, match=message):
        count_outliers(STEPS, "gap", num_candidates=num_candidates)

"""Statements about the Hessian's spectrum, checked on runs.

Each check returns the criterion, what was measured, and a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hesspipe.claims.runs import Run, verdict


def _flatness(
    runs: Mapping[str, Run], *, experiments: Sequence[str], max_magnitude: float, min_share: float
) -> dict[str, Any]:
    shares = {}
    for name in experiments:
        magnitudes = np.abs(runs[name].eigenvalues)
        shares[name] = float(np.mean(magnitudes <= max_magnitude * magnitudes.max()))
    return {
        "criterion": f"in each run, at least {min_share:.0%} of the eigenvalues are at most "
        f"{max_magnitude:g} times the largest in magnitude",
        "measured": {
            "smallest_share": min(shares.values()),
            "median_share": float(np.median(list(shares.values()))),
            "num_runs": len(shares),
        },
        "verdict": verdict([share >= min_share for share in shares.values()]),
    }


def _counts_match(
    runs: Mapping[str, Run],
    *,
    experiments: Sequence[str],
    rule: str,
    max_difference: int,
    min_share: float,
) -> dict[str, Any]:
    differences = [runs[name].num_outliers[rule] - runs[name].num_classes for name in experiments]
    is_match = [-max_difference <= difference <= 0 for difference in differences]
    share = float(np.mean(is_match))
    return {
        "criterion": f"the {rule} rule finds k outliers, or up to {max_difference} fewer, in at "
        f"least {min_share:.0%} of the runs",
        "measured": {
            "num_equal": sum(difference == 0 for difference in differences),
            "num_within": sum(is_match),
            "num_runs": len(differences),
        },
        "verdict": "holds" if share >= min_share else verdict(is_match),
    }


def _counts_grow(
    runs: Mapping[str, Run], *, groups: Sequence[Sequence[str]], rule: str
) -> dict[str, Any]:
    counts = [[runs[name].num_outliers[rule] for name in group] for group in groups]
    return {
        "criterion": f"within each group of runs, the count by the {rule} rule grows strictly "
        "with the number of clusters",
        "measured": {"counts": counts},
        "verdict": verdict([bool((np.diff(group) > 0).all()) for group in counts]),
    }


def _negative_part(
    runs: Mapping[str, Run], *, experiments: Sequence[str], max_magnitude: float
) -> dict[str, Any]:
    ratios = {
        name: float(-runs[name].eigenvalues[0] / runs[name].eigenvalues[-1])
        if runs[name].eigenvalues[-1] > 0
        else float("inf")
        for name in experiments
    }
    is_met = [
        runs[name].num_negative > 0 and ratio <= max_magnitude for name, ratio in ratios.items()
    ]
    return {
        "criterion": "in each run there are negative eigenvalues, and the most negative is at most "
        f"{max_magnitude:g} times the largest",
        "measured": {
            "smallest_ratio": min(ratios.values()),
            "largest_ratio": max(ratios.values()),
            "num_within": sum(is_met),
            "num_runs": len(ratios),
            "fewest_negative": min(runs[name].num_negative for name in experiments),
        },
        "verdict": verdict(is_met),
    }


def _edge_unchanged(
    runs: Mapping[int, Mapping[str, Run]],
    *,
    experiments: Sequence[str],
    num_compared: int,
    max_ratio: float,
) -> dict[str, Any]:
    ratios = {}
    for seed, by_name in runs.items():
        tops = np.stack([by_name[name].eigenvalues[-num_compared:] for name in experiments])
        # Of each rank, the largest over the smallest; their geometric mean.
        ratios[seed] = float(np.exp(np.mean(np.log(tops.max(0) / tops.min(0)))))
    return {
        "criterion": f"for each seed, the {num_compared} largest eigenvalues differ between the "
        f"networks by a factor of at most {max_ratio:g}, in the geometric mean over the ranks",
        "measured": {"factors": list(ratios.values()), "num_seeds": len(ratios)},
        "verdict": verdict([ratio <= max_ratio for ratio in ratios.values()]),
    }


def _share_unchanged(
    runs: Mapping[int, Mapping[str, Run]], *, experiments: Sequence[str], max_ratio: float
) -> dict[str, Any]:
    shares = {
        seed: [by_name[name].num_negative / len(by_name[name].eigenvalues) for name in experiments]
        for seed, by_name in runs.items()
    }
    return {
        "criterion": "for each seed, the largest share of negative eigenvalues is at most "
        f"{max_ratio:g} times the smallest",
        "measured": {"shares": list(shares.values()), "num_seeds": len(shares)},
        "verdict": verdict([max(values) <= max_ratio * min(values) for values in shares.values()]),
    }


def _first_is_larger(
    runs: Mapping[int, Mapping[str, Run]], *, experiments: Sequence[str], num_compared: int
) -> dict[str, Any]:
    first, second = (
        [by_name[name].eigenvalues[-num_compared:] for by_name in runs.values()]
        for name in experiments
    )
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    return {
        "criterion": f"for each seed, each of the {num_compared} largest eigenvalues of the first "
        "network is larger than that of the second",
        "measured": {
            "ratios_of_the_largest": [float(ratio[-1]) for ratio in ratios],
            "num_larger": [int((ratio > 1).sum()) for ratio in ratios],
            "num_seeds": len(ratios),
        },
        "verdict": verdict([bool((ratio > 1).all()) for ratio in ratios]),
    }


def _counts_equal(
    runs: Mapping[int, Mapping[str, Run]],
    *,
    experiments: Sequence[str],
    rule: str,
    max_difference: int,
) -> dict[str, Any]:
    counts = [
        [by_name[name].num_outliers[rule] for name in experiments] for by_name in runs.values()
    ]
    return {
        "criterion": f"for each seed, the counts by the {rule} rule differ by at most "
        f"{max_difference}",
        "measured": {"counts": counts, "num_seeds": len(counts)},
        "verdict": verdict([max(row) - min(row) <= max_difference for row in counts]),
    }


SPECTRUM_CLAIMS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "flatness": (
        "At the bottom, most eigenvalues of the Hessian are near zero, except for a small number "
        "of larger ones.",
        _flatness,
    ),
    "counts_match": (
        "The number of large eigenvalues above the gap matches the number of classes.",
        _counts_match,
    ),
    "counts_grow": ("More complex data produce more outliers.", _counts_grow),
    "negative_part": (
        "After training negative eigenvalues remain, orders of magnitude smaller than the large "
        "positive ones.",
        _negative_part,
    ),
    "edge_unchanged": (
        "Increasing the size of the network does not change the right edge of the spectrum.",
        _edge_unchanged,
    ),
    "share_unchanged": (
        "The share of negative eigenvalues stays the same as the network grows.",
        _share_unchanged,
    ),
    "first_is_larger": (
        "The large batch method locates points with larger positive eigenvalues.",
        _first_is_larger,
    ),
    "counts_equal": (
        "Large batches and small batches produce the same number of outliers.",
        _counts_equal,
    ),
}

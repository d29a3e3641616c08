"""Statements about H = G + R, the outliers' directions, and lines between solutions.

Each check returns the criterion, what was measured, and a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hesspipe.claims.runs import verdict
from hesspipe.config.results import ResultKey
from hesspipe.curvature.matrix import Matrix
from hesspipe.landscape.barriers import find_barrier
from hesspipe.tables.store import Result

Results = Mapping[ResultKey, Result]


def _residual_is_small(results: Results, *, max_ratio: float) -> dict[str, Any]:
    ratios = _operator_ratios(results)
    return {
        "criterion": "in each run, the operator norm of R is at most "
        f"{max_ratio:g} times that of H",
        "measured": {
            "largest_ratio": max(ratios.values()),
            "median_ratio": float(np.median(list(ratios.values()))),
            "num_within": sum(ratio <= max_ratio for ratio in ratios.values()),
            "num_runs": len(ratios),
        },
        "verdict": verdict([ratio <= max_ratio for ratio in ratios.values()]),
    }


def _residual_fades(results: Results, *, max_ratio: float) -> dict[str, Any]:
    ratios = {step: ratio for (_, _, step), ratio in sorted(_operator_ratios(results).items())}
    first, last = ratios[min(ratios)], ratios[max(ratios)]
    return {
        "criterion": "from the first step to the last, the operator norm of R over that of H "
        f"falls, and by the last step to at most {max_ratio:g}",
        "measured": {
            "first_ratio": first,
            "largest_ratio": max(ratios.values()),
            "last_ratio": last,
            "step_of_the_largest": max(ratios, key=lambda step: ratios[step]),
            "last_step": max(ratios),
        },
        "verdict": verdict([last < first, last <= max_ratio]),
    }


def _operator_ratios(results: Results) -> dict[tuple[str, int, int], float]:
    """||R|| / ||H|| by experiment, seed and step."""
    norms: dict[tuple[str, int, int], dict[Matrix, float]] = {}
    for spectrum in results.values():
        experiment, seed, step, matrix = (
            spectrum.provenance[key] for key in ("experiment", "seed", "step", "matrix")
        )
        norm = float(spectrum.table["eigenvalue"].abs().max())
        norms.setdefault((experiment, seed, step), {})[Matrix(matrix)] = norm
    return {key: norm[Matrix.RESIDUAL] / norm[Matrix.HESSIAN] for key, norm in norms.items()}


def _trivial_zeros(results: Results) -> dict[str, Any]:
    rows = [spectrum.provenance for spectrum in results.values()]
    bounds = [max(0, row["num_parameters"] - row["num_samples"]) for row in rows]
    # Softmax has curvature in C - 1 of the C outputs of a sample.
    corrected = [
        max(0, row["num_parameters"] - row["num_samples"] * (row["num_classes"] - 1))
        if row["num_classes"]
        else None
        for row in rows
    ]
    zeros = [row["num_zero"] for row in rows]
    is_met = [zero >= bound for zero, bound in zip(zeros, bounds, strict=True)]
    return {
        "criterion": "in each run, at least P - N eigenvalues of G are zero within the solver's "
        "rounding",
        "measured": {
            "num_zero": zeros,
            "parameters_minus_samples": bounds,
            "parameters_minus_samples_times_outputs": corrected,
            "num_within": sum(is_met),
            "num_runs": len(is_met),
        },
        "verdict": verdict(is_met),
    }


def _no_barrier(results: Results, *, max_rise: float) -> dict[str, Any]:
    rises = {}
    for key, line in results.items():
        table = line.table
        ends = table[table["coefficient"].isin([0.0, 1.0])]
        for loss in _measured_halves(table):
            barrier = find_barrier(table["coefficient"].tolist(), table[loss].tolist())
            rises[key.seed, loss] = barrier.rise / float(ends[loss].max())
    return {
        "criterion": "for each seed, on the line between the ends of Part I and Part II neither "
        f"the training loss nor the test loss rises above its value at the higher end by more "
        f"than {max_rise:.0%} of it",
        "measured": {
            loss: [rise for (_, name), rise in rises.items() if name == loss]
            for loss in sorted({name for _, name in rises}, reverse=True)
        },
        "verdict": verdict([rise <= max_rise for rise in rises.values()]),
    }


def _measured_halves(line: pd.DataFrame) -> list[str]:
    """The losses that a line has: without held-out data, that of training."""
    return [loss for loss in ("train_loss", "test_loss") if line[loss].notna().all()]


def _second_end_is_better(results: Results) -> dict[str, Any]:
    criterion = (
        "for each seed, the test accuracy at the end of Part II is higher than at the end of Part I"
    )
    if any(line.table["test_accuracy"].isna().any() for line in results.values()):
        reason = "needs held-out data with class labels"
        return {
            "criterion": criterion, "measured": {"reason": reason}, "verdict": "not measured",
        }  # fmt: skip
    gains = [
        float(table[table["coefficient"] == 1.0]["test_accuracy"].iloc[0])
        - float(table[table["coefficient"] == 0.0]["test_accuracy"].iloc[0])
        for table in (line.table for line in results.values())
    ]
    return {
        "criterion": criterion,
        "measured": {"gains": gains},
        "verdict": verdict([gain > 0 for gain in gains]),
    }


def _outliers_are_class_means(results: Results, *, min_overlap: float) -> dict[str, Any]:
    overlaps = {}
    for key, directions in results.items():
        num_classes, own = directions.provenance["num_classes"], directions.table["own"]
        overlaps[key.experiment] = {
            "first": float(own.iloc[: num_classes - 1].min()),
            "after": float(own.iloc[num_classes:].max()),
        }
    is_met = [found["first"] >= min_overlap > found["after"] for found in overlaps.values()]
    return {
        "criterion": "in each run, each of the k - 1 leading eigenvectors of H has a squared "
        f"overlap of at least {min_overlap:g} with the span of the k class-mean gradients of the "
        "class's own output (relative to the mean of the outputs), and none after the k-th has",
        "measured": {
            "smallest_of_the_first": min(found["first"] for found in overlaps.values()),
            "largest_after": max(found["after"] for found in overlaps.values()),
            "num_within": sum(is_met),
            "num_runs": len(is_met),
        },
        "verdict": verdict(is_met),
    }


LANDSCAPE_CLAIMS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "residual_is_small": (
        "At the end of training the Hessian is approximated by its Gauss-Newton part.",
        _residual_is_small,
    ),
    "residual_fades": (
        "The second term of the decomposition can be ignored as training progresses.",
        _residual_fades,
    ),
    "trivial_zeros": (
        "The Gauss-Newton matrix has at least P - N trivial eigenvalues.",
        _trivial_zeros,
    ),
    "outliers_are_class_means": (
        "The large eigenvalues are linked to the covariance of the gradients of the outputs, of "
        "which there is one for each class.",
        _outliers_are_class_means,
    ),
    "no_barrier": (
        "The straight line between the large-batch and the small-batch solution has no barrier.",
        _no_barrier,
    ),
    "second_end_is_better": (
        "The small-batch solution generalizes slightly better.",
        _second_end_is_better,
    ),
}

"""Statements from random matrix theory, checked on linear and spiked models.

Each check returns the criterion, what was measured, and a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hesspipe.claims.runs import verdict
from hesspipe.config.results import ResultKey
from hesspipe.tables.store import Result

Results = Mapping[ResultKey, Result]


def _plain_law(results: Results, *, max_distance: float) -> dict[str, Any]:
    return _law(results, "plain_distance", "the Marchenko-Pastur law", max_distance)


def _generalized_law(results: Results, *, max_distance: float) -> dict[str, Any]:
    return _law(results, "distance", "the law of the samples' curvatures", max_distance)


def _law(results: Results, key: str, name: str, max_distance: float) -> dict[str, Any]:
    distances = [result.provenance[key] for result in results.values() if result.kind == "law"]
    return {
        "criterion": "for each model, the Kolmogorov-Smirnov distance of the bulk from "
        f"{name}, with nothing fitted, is at most {max_distance:g}",
        "measured": {
            "distances": distances,
            "num_within": sum(distance <= max_distance for distance in distances),
            "num_models": len(distances),
        },
        "verdict": verdict([distance <= max_distance for distance in distances]),
    }


def _large_outlier(results: Results, *, max_error: float) -> dict[str, Any]:
    rows, is_met = [], []
    for result in results.values():
        if result.kind == "law_outliers":
            right = result.table[result.table["side"] == "right"]
            rows.append(
                {
                    "name": result.provenance["name"],
                    "predicted": right["predicted"].tolist(),
                    "measured": right["measured"].tolist(),
                    "edge": result.provenance["upper_edge"],
                }
            )
            errors = (right["measured"] / right["predicted"] - 1).abs()
            is_met.append(len(right) == 1 and float(errors.iloc[0]) <= max_error)
    return {
        "criterion": "each model has one outlier to the right of the bulk, and it is where it is "
        f"predicted within {max_error:.0%}",
        "measured": {"outliers": rows, "num_within": sum(is_met), "num_models": len(is_met)},
        "verdict": verdict(is_met),
    }


def _spike_positions(results: Results, *, min_distance: float, max_errors: float) -> dict[str, Any]:
    (positions,) = results.values()
    table = _away_from_the_transition(positions.table, min_distance)
    errors = (table["mean"] - table["predicted"]).abs() / table["finite_size_error"]
    sizes = table["num_samples"].unique()
    shrunk = {
        name: _exponent(table[table["separates"] == separates], column)
        for name, separates, column in (
            ("edge_exponent", False, "gap"),
            ("outlier_exponent", True, "deviation"),
        )
    }
    is_met = [float(error) <= max_errors for error in errors]
    return {
        "criterion": "for each size, and strengths at least "
        f"{min_distance:g} from the transition, the mean position is within {max_errors:g} "
        "finite-size errors of l (1 + alpha / (l - 1)) above it and of the edge below it; this "
        "error is of order N^(-2/3) at the edge and N^(-1/2) above",
        "measured": {
            "largest_error": float(errors.max()),
            "num_within": sum(is_met),
            "num_points": len(is_met),
            "sizes": [int(size) for size in sizes],
            **shrunk,
        },
        "verdict": verdict(is_met),
    }


def _exponent(table: pd.DataFrame, column: str) -> float | None:
    """Fit the exponent of the power of N that a quantity follows, over all strengths."""
    if table["num_samples"].nunique() < 2:
        return None
    table = table.assign(gap=(table["mean"] - table["predicted"]).abs())
    logs = table.assign(size=np.log(table["num_samples"]), value=np.log(table[column]))
    centered = logs.groupby("strength")[["size", "value"]].transform(lambda x: x - x.mean())
    return float((centered["size"] * centered["value"]).sum() / (centered["size"] ** 2).sum())


def _spike_fluctuations(
    results: Results, *, min_distance: float, min_p_value: float
) -> dict[str, Any]:
    (positions,) = results.values()
    table = _away_from_the_transition(positions.table, min_distance)
    table = table[table["num_samples"] == table["num_samples"].max()]
    is_met = [
        bool(row["p_value"] >= min_p_value and row["distance"] <= row["other_distance"])
        if row["separates"]
        else bool(row["p_value"] >= min_p_value)
        for _, row in table.iterrows()
    ]
    return {
        "criterion": "at the largest size, and strengths at least "
        f"{min_distance:g} from the transition, a Kolmogorov-Smirnov test does not reject the "
        "Tracy-Widom law below it and the Gaussian above it, with nothing fitted, at "
        f"p = {min_p_value:g}",
        "measured": {
            "p_values": {
                f"{law} at l = {strength:g}": float(value)
                for law, strength, value in zip(
                    table["law"], table["strength"], table["p_value"], strict=True
                )
            },
            "num_samples": int(positions.table["num_samples"].max()),
        },
        "verdict": verdict(is_met),
    }


def _away_from_the_transition(table: pd.DataFrame, min_distance: float) -> pd.DataFrame:
    transition = 1 + np.sqrt(table["num_parameters"] / table["num_samples"])
    is_away = (table["strength"] - transition).abs() >= min_distance
    return pd.DataFrame(table[is_away])


def _spectrum_parts(results: Results, *, max_errors: float) -> dict[str, Any]:
    table = pd.concat([result.table for result in results.values()], ignore_index=True)
    zeros = table[table["part"] == "zeros"]
    others = table[table["part"] != "zeros"]
    # The fluctuation of one matrix is the finite-size error; at an edge the mean is off by as much.
    errors = (others["mean"] - others["predicted"]).abs() / others["spread"]
    is_met = [
        *(zeros["mean"] == zeros["predicted"]),
        *(float(error) <= max_errors for error in errors),
    ]
    return {
        "criterion": "the number of zeros is P - N, and edges and outliers on both sides are "
        f"where they are predicted within {max_errors:g} times the fluctuation of one matrix",
        "measured": {
            "num_zeros": [int(number) for number in zeros["mean"]],
            "largest_error": float(errors.max()),
            "num_within": sum(is_met),
            "num_parts": len(is_met),
        },
        "verdict": verdict(is_met),
    }


THEORY_CLAIMS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "plain_law": (
        "Logistic regression on one blob falls into the classical Marchenko-Pastur law.",
        _plain_law,
    ),
    "generalized_law": (
        "The spectrum of a linear model is that of a sample covariance of its gradients.",
        _generalized_law,
    ),
    "large_outlier": (
        "With two classes, the spectrum has one large outlier and a bulk close to zero.",
        _large_outlier,
    ),
    "spike_positions": (
        "Theorem 1: above 1 + sqrt(alpha) the largest eigenvalue is an outlier at "
        "l (1 + alpha / (l - 1)); below, it is at the edge.",
        _spike_positions,
    ),
    "spike_fluctuations": (
        "Theorem 1: the fluctuations are Gaussian above the transition and Tracy-Widom below.",
        _spike_fluctuations,
    ),
    "spectrum_parts": (
        "Theorem 2: zeros, a Marchenko-Pastur bulk, right outliers and left outliers.",
        _spectrum_parts,
    ),
}

"""Overlaps of leading eigenvectors with class-mean gradients, one row for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hesspipe.curvature.matrix import Matrix
from hesspipe.tables.queries import of_kind, of_same_run, outlier_row
from hesspipe.tables.store import Result


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Average the overlaps of the first C - 1 eigenvectors and of those after the C-th.

    Parameters
    ----------
    results : sequence of Result
        Directions, and the outlier counts of the same runs.
    settings : mapping
        rule, for the number of outliers.

    Returns
    -------
    DataFrame
        experiment, seed, step, num_parameters, num_classes, num_outliers (of H, by the rule); for
        each span its rank, its chance level rank / P, and the mean squared overlap of the first
        C - 1 eigenvectors (<span>_first), of the C-th (<span>_last), and of those after it
        (<span>_after).
    """
    outliers = of_kind(results, "outliers")
    return pd.DataFrame(
        [
            _row(directions, of_same_run(directions, outliers), settings["rule"])
            for directions in of_kind(results, "directions")
        ]
    )


def _row(directions: Result, outliers: Result, rule: str) -> dict[str, object]:
    provenance = directions.provenance
    num_classes, num_parameters = provenance["num_classes"], provenance["num_parameters"]
    count = outlier_row(outliers, provenance["step"], Matrix.HESSIAN, rule)
    row: dict[str, object] = {
        key: provenance[key]
        for key in ("experiment", "seed", "step", "num_parameters", "num_classes")
    }
    row["num_outliers"] = int(count["num_outliers"])
    for span, rank in provenance["ranks"].items():
        overlaps = directions.table[span].to_numpy()
        row |= {
            f"{span}_rank": rank,
            f"{span}_chance": rank / num_parameters,
            f"{span}_first": overlaps[: num_classes - 1].mean(),
            f"{span}_last": overlaps[num_classes - 1],
            f"{span}_after": overlaps[num_classes:].mean(),
        }
    return row

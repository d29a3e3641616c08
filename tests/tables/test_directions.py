"""The table of overlaps: means over the first C - 1 eigenvectors, the C-th and the others."""

from __future__ import annotations

import pandas as pd

from hesspipe.tables.directions import make_table
from hesspipe.tables.store import Result


def test_make_table_averages_the_first_the_last_and_those_after() -> None:
    table = pd.DataFrame({"order": [1, 2, 3, 4], "own": [0.9, 0.7, 0.5, 0.1]})
    provenance = {
        "experiment": "a", "seed": 0, "step": 9, "num_parameters": 30, "num_classes": 3,
        "ranks": {"own": 3},
    }  # fmt: skip
    counts = pd.DataFrame(
        [(9, "hessian", "gap", 7), (9, "hessian", "ratio", 2), (9, "ggn", "ratio", 5),
         (0, "hessian", "ratio", 6)],
        columns=["step", "matrix", "rule", "num_outliers"],
    )  # fmt: skip
    results = [
        Result("directions", table, provenance),
        Result("outliers", counts, {"experiment": "a", "seed": 0}),
        Result("outliers", counts.iloc[:0], {"experiment": "a", "seed": 1}),
    ]
    (row,) = make_table(results, {"rule": "ratio"}).to_dict("records")
    assert row["num_outliers"] == 2
    assert row["own_chance"] == 0.1
    assert (row["own_first"], row["own_last"], row["own_after"]) == (0.8, 0.5, 0.1)

"""The table of signs, and the bound on the negative eigenvalues."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from hesspipe.tables.inertia import make_table
from hesspipe.tables.store import Result

ABOUT: dict[str, Any] = {
    "experiment": "mnist_width10",
    "seed": 1,
    "num_parameters": 200,
    "num_classes": 10,
    "matrix": "hessian",
    "method": "factored",
    "num_negative": 3,
    "num_zero": 150,
    "num_positive": 47,
    "model": {"kind": "mlp", "hidden_widths": [7], "activation": "relu"},
}


def row(**changes: Any) -> pd.Series:
    table = pd.DataFrame({"rank": [0, 1, 2], "eigenvalue": [-0.5, 0.0, 4.0]})
    return make_table([Result("spectrum", table, ABOUT | changes)], {}).iloc[0]


def test_inertia_takes_the_counts_of_the_provenance_and_the_extreme_eigenvalues() -> None:
    found = row()
    assert (found["num_negative"], found["num_zero"], found["num_positive"]) == (3, 150, 47)
    assert found["negative_percent"] == 1.5
    assert (found["smallest"], found["largest"]) == (-0.5, 4.0)
    assert (found["experiment"], found["seed"], found["method"]) == ("mnist_width10", 1, "factored")


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, 7 * 9),
        ({"matrix": "residual"}, 7 * 9),
        ({"num_classes": 3}, 7 * 2),
        ({"matrix": "ggn"}, 0),
        ({"model": ABOUT["model"] | {"activation": "tanh"}}, None),
        ({"model": ABOUT["model"] | {"hidden_widths": [7, 5]}}, None),
        ({"model": {"kind": "convnet", "channels": [2, 4]}}, None),
    ],
)
def test_inertia_bounds_the_negative_eigenvalues_where_the_argument_holds(
    changes: dict[str, Any], bound: int | None
) -> None:
    found = row(**changes)["negative_bound"]
    assert pd.isna(found) if bound is None else found == bound

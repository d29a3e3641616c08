"""The decomposition of matrices with known spectra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.tables.decomposition import decompose, make_table
from hesspipe.tables.store import Result


def spectrum(values, matrix: str, step: int) -> Result:
    values = np.sort(np.asarray(values, dtype=float))
    table = pd.DataFrame({"rank": range(len(values)), "eigenvalue": values})
    provenance = {
        "step": step, "matrix": matrix, "num_classes": 2,
        "num_negative": int((values < 0).sum()),
    }  # fmt: skip
    return Result("spectrum", table, provenance)


def tables(step: int, fade: float) -> list[Result]:
    return [
        spectrum([8.0 + fade, 4.0, 0.0, -3 * fade], "hessian", step),
        spectrum([8.0, 4.0, 0.0, 0.0], "ggn", step),
        spectrum([fade, 0.0, 0.0, -4 * fade], "residual", step),
    ]


COUNTS = pd.DataFrame(
    [
        {"step": step, "matrix": matrix, "rule": rule, "num_outliers": number, "cutoff": 0.0}
        for number, (step, matrix, rule) in enumerate(
            (step, matrix, rule)
            for step in (0, 10)
            for matrix in ("hessian", "ggn")
            for rule in ("gap", "ratio")
        )
    ]
)
RUN = {"experiment": "mine", "seed": 0, "num_classes": 2}
OUTLIERS = Result("outliers", COUNTS, RUN | {"rules": ["gap", "ratio"], "versions": {}})


def test_decompose_has_the_sizes_and_counts_of_each_step_by_each_rule() -> None:
    result = decompose([*tables(10, 0.5), *tables(0, 2.0)], OUTLIERS)
    assert result.provenance == RUN | {"rules": ["gap", "ratio"]}
    assert list(zip(result.table["step"], result.table["rule"], strict=True)) == [
        (0, "gap"), (0, "ratio"), (10, "gap"), (10, "ratio"),
    ]  # fmt: skip
    assert list(result.table["num_outliers"]) == [0, 1, 4, 5]
    assert list(result.table["num_outliers_ggn"]) == [2, 3, 6, 7]
    sizes = result.table.drop(columns=["rule", "num_outliers", "num_outliers_ggn"])
    assert sizes.iloc[0].tolist() == sizes.iloc[1].tolist() != sizes.iloc[2].tolist()


def test_make_table_has_norms_extremes_and_counts_of_each_step() -> None:
    result = decompose([*tables(10, 0.5), *tables(0, 2.0)], OUTLIERS)
    table = make_table([result], {"rule": "ratio"})
    assert list(table["step"]) == [0, 10]
    first, last = table.iloc[0], table.iloc[1]
    assert first["operator_ratio"] == 8 / 10
    assert last["frobenius_ratio"] == pytest.approx(
        np.hypot(0.5, 2) / np.linalg.norm([8.5, 4, 1.5])
    )
    assert first["largest_difference"] == 2 / 10
    assert (first["smallest_hessian"], first["smallest_residual"]) == (-6, -8)
    assert (last["num_negative_hessian"], last["num_negative_residual"]) == (1, 1)
    assert first["negative_share"] == 6 / 8
    assert list(table["num_outliers"]) == [1, 5]
    assert list(table["num_outliers_ggn"]) == [3, 7]


def test_decompose_names_a_missing_matrix() -> None:
    with pytest.raises(ValueError, match=r"at step 10, got \['ggn', 'hessian'\]"):
        decompose(tables(10, 0.5)[:2], OUTLIERS)

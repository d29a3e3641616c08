"""The decomposition's table against matrices whose spectra are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.tables.decomposition import decomposition_table


def spectrum(values, matrix: str, step: int) -> pd.DataFrame:
    values = np.sort(np.asarray(values, dtype=float))
    table = pd.DataFrame({"rank": range(len(values)), "eigenvalue": values})
    table.attrs = {
        "step": step, "matrix": matrix, "num_classes": 2,
        "num_negative": int((values < 0).sum()),
    }  # fmt: skip
    return table


def tables(step: int, fade: float) -> list[pd.DataFrame]:
    return [
        spectrum([8.0 + fade, 4.0, 0.0, -3 * fade], "hessian", step),
        spectrum([8.0, 4.0, 0.0, 0.0], "ggn", step),
        spectrum([fade, 0.0, 0.0, -4 * fade], "residual", step),
    ]


OUTLIERS = pd.DataFrame(
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


def test_table_has_norms_ends_and_counts_of_each_step() -> None:
    table = decomposition_table([*tables(10, 0.5), *tables(0, 2.0)], OUTLIERS, "ratio")
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


def test_missing_matrix_is_named() -> None:
    with pytest.raises(ValueError, match=r"at step 10, got \['ggn', 'hessian'\]"):
        decomposition_table(tables(10, 0.5)[:2], OUTLIERS, "ratio")

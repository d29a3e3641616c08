"""Selections from results: runs, outlier rows, joined tables, both ends of a spectrum."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.tables.queries import (
    extreme_eigenvalues,
    join_histories,
    join_spectra,
    of_kind,
    of_same_run,
    outlier_row,
    outlier_rows,
)
from hesspipe.tables.store import Result

RUN = {
    "experiment": "slow", "num_classes": 3, "seed": 1, "step": 20, "matrix": "hessian",
    "num_parameters": 3, "num_negative": 1, "num_zero": 0,
}  # fmt: skip
SPECTRUM = pd.DataFrame({"rank": [0, 1, 2], "eigenvalue": [-1e-3, 1 / 3, 2.0]})
OUTLIERS = pd.DataFrame(
    {
        "step": [0, 20, 20, 20],
        "matrix": ["hessian", "hessian", "hessian", "ggn"],
        "rule": ["gap", "gap", "ratio", "gap"],
        "num_outliers": [1, 2, 3, 4],
        "cutoff": [0.5, 0.25, 0.125, 0.0625],
    }
)


def two_spectra() -> list[Result]:
    """The second experiment sorts before the first."""
    return [
        Result("spectrum", SPECTRUM, RUN | {"experiment": "late", "num_classes": 9}),
        Result("spectrum", SPECTRUM, RUN | {"experiment": "early", "step": 0}),
    ]


def test_join_spectra_labels_each_eigenvalue_in_the_order_of_the_spectra() -> None:
    table = join_spectra(two_spectra())
    expected = {
        "experiment": ["late"] * 3 + ["early"] * 3,
        "seed": [1] * 6,
        "num_classes": [9] * 3 + [3] * 3,
        "num_parameters": [3] * 6,
        "num_negative": [1] * 6,
        "num_zero": [0] * 6,
        "step": [20] * 3 + [0] * 3,
        "matrix": ["hessian"] * 6,
        "rank": [0, 1, 2] * 2,
        "eigenvalue": [-1e-3, 1 / 3, 2.0] * 2,
    }
    assert table.to_dict("list") == expected
    assert list(table.columns) == list(expected)


@pytest.mark.parametrize(
    ("step", "matrix", "rule", "expected"),
    [
        (0, "hessian", "gap", (1, 0.5)),
        (20, "hessian", "gap", (2, 0.25)),
        (20, "hessian", "ratio", (3, 0.125)),
        (20, "ggn", "gap", (4, 0.0625)),
    ],
)
def test_outlier_row_is_that_of_the_step_matrix_and_rule(
    step: int, matrix: str, rule: str, expected: tuple[int, float]
) -> None:
    row = outlier_row(Result("outliers", OUTLIERS, RUN), step, matrix, rule)
    assert (row["num_outliers"], row["cutoff"]) == expected
    assert (row["step"], row["matrix"], row["rule"]) == (step, matrix, rule)


def test_outlier_row_says_what_was_not_counted() -> None:
    with pytest.raises(ValueError, match="one row of the ggn at step 20 by the elbow rule, got 0"):
        outlier_row(Result("outliers", OUTLIERS, RUN), 20, "ggn", "elbow")


def test_outlier_rows_hold_every_rule() -> None:
    rows = outlier_rows(Result("outliers", OUTLIERS, RUN), 20, "hessian")
    assert dict(zip(rows["rule"], rows["num_outliers"], strict=True)) == {"gap": 2, "ratio": 3}


def test_of_same_run_finds_the_experiment_and_the_seed() -> None:
    others = [
        Result("outliers", OUTLIERS, {"experiment": name, "seed": seed})
        for name in ("late", "early")
        for seed in (0, 1)
    ]
    late, early = two_spectra()
    assert of_same_run(late, others) is others[1]
    assert of_same_run(early, others) is others[3]
    with pytest.raises(ValueError, match="one of late seed 1, got 0"):
        of_same_run(late, others[2:])


def test_of_kind_keeps_the_order_and_refuses_none() -> None:
    results = [Result(kind, SPECTRUM, {}) for kind in ("outliers", "spectrum", "outliers")]
    assert of_kind(results, "outliers") == [results[0], results[2]]
    with pytest.raises(ValueError, match=r"must include a line table, got \['outliers', 'spe"):
        of_kind(results, "line")


def test_join_histories_counts_the_steps_from_the_start_of_the_first() -> None:
    histories = [
        Result("history", pd.DataFrame({"step": steps, "train_loss": losses}), {})
        for steps, losses in (([0, 50, 100], [3.0, 2.0, 1.0]), ([0, 60], [1.0, 0.5]))
    ]
    table = join_histories(histories)
    assert table["step"].tolist() == [0, 50, 100, 100, 160]
    assert table["part"].tolist() == [1, 1, 1, 2, 2]
    assert table["train_loss"].tolist() == [3.0, 2.0, 1.0, 1.0, 0.5]
    assert histories[1].table["step"].tolist() == [0, 60]


ABOUT = {"experiment": "mine", "seed": 3, "step": 7, "matrix": "ggn", "num_parameters": 9,
         "tolerance": 1e-9}  # fmt: skip
EIGENVALUES = np.array([-4.0, -1.0, -1.0, 0.0, 0.0, 0.5, 2.0, 2.0, 8.0])


def whole() -> Result:
    table = pd.DataFrame({"rank": range(9), "eigenvalue": EIGENVALUES}).sample(
        frac=1.0, random_state=0
    )
    return Result("spectrum", table, ABOUT)


def ends() -> Result:
    table = pd.DataFrame(
        {
            "end": ["smallest"] * 3 + ["largest"] * 4,
            "rank": [0, 1, 2, 5, 6, 7, 8],
            "eigenvalue": EIGENVALUES[[0, 1, 2, 5, 6, 7, 8]],
            "residual_norm": [1e-9] * 7,
        }
    )
    return Result("eigenpairs", table, ABOUT)


def test_extreme_eigenvalues_are_the_same_from_a_spectrum_and_from_eigenpairs() -> None:
    pd.testing.assert_frame_equal(
        extreme_eigenvalues([whole()], 4, 3), extreme_eigenvalues([ends()], 4, 3)
    )


def test_extreme_eigenvalues_start_with_the_most_extreme_and_keep_equal_ones() -> None:
    table = extreme_eigenvalues([whole()], 3, 3)
    by_end = table.groupby("end", sort=False)["eigenvalue"].apply(list).to_dict()
    assert by_end == {"largest": [8.0, 2.0, 2.0], "smallest": [-4.0, -1.0, -1.0]}
    assert table["order"].tolist() == [1, 2, 3, 1, 2, 3]
    assert set(table["step"]) == {7}
    assert set(table["num_parameters"]) == {9}


def test_extreme_eigenvalues_leave_out_an_end_of_none() -> None:
    assert set(extreme_eigenvalues([whole()], 2, 0)["end"]) == {"largest"}


def test_extreme_eigenvalues_refuse_more_than_were_computed() -> None:
    with pytest.raises(ValueError, match="must be at least 5, got 4; compute more"):
        extreme_eigenvalues([ends()], 5, 1)


def test_extreme_eigenvalues_of_the_ggn_may_be_its_largest_only() -> None:
    ggn, hessian = ends(), Result("eigenpairs", ends().table, ABOUT | {"matrix": "hessian"})
    upper = Result("eigenpairs", ggn.table[ggn.table["end"] == "largest"], ABOUT)
    both = extreme_eigenvalues([hessian, ggn], 4, 3)
    is_left_out = (both["matrix"] == "ggn") & (both["end"] == "smallest")
    pd.testing.assert_frame_equal(
        extreme_eigenvalues([hessian, upper], 4, 3), both[~is_left_out].reset_index(drop=True)
    )
    with pytest.raises(ValueError, match=r"smallest .* must be at least 3, got 0; compute more"):
        extreme_eigenvalues([upper], 0, 3)
    upper.provenance["matrix"] = "hessian"
    with pytest.raises(ValueError, match=r"smallest .* must be at least 3, got 0; compute more"):
        extreme_eigenvalues([ggn, upper], 4, 3)


def test_extreme_eigenvalues_say_up_to_where_one_counts_as_zero() -> None:
    pairs = ends()
    pairs.table["residual_norm"] = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9]
    table = extreme_eigenvalues([pairs], 2, 1)
    assert table["uncertainty"].tolist() == [1e-9, 1e-7, 1e-3]
    assert set(extreme_eigenvalues([whole()], 2, 1)["uncertainty"]) == {1e-9}

"""The ends of a spectrum are the same, whether all of it is known or only its ends."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.tables.extremes import extreme_eigenvalues

ABOUT = {"experiment": "mine", "seed": 3, "step": 7, "matrix": "ggn", "num_parameters": 9,
         "tolerance": 1e-9}  # fmt: skip
EIGENVALUES = np.array([-4.0, -1.0, -1.0, 0.0, 0.0, 0.5, 2.0, 2.0, 8.0])


def whole() -> pd.DataFrame:
    table = pd.DataFrame({"rank": range(9), "eigenvalue": EIGENVALUES}).sample(
        frac=1.0, random_state=0
    )
    table.attrs = dict(ABOUT)
    return table


def ends() -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "end": ["smallest"] * 3 + ["largest"] * 4,
            "rank": [0, 1, 2, 5, 6, 7, 8],
            "eigenvalue": EIGENVALUES[[0, 1, 2, 5, 6, 7, 8]],
            "residual_norm": [1e-9] * 7,
        }
    )
    table.attrs = dict(ABOUT)
    return table


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
    with pytest.raises(ValueError, match="must be at least 5, got 4; ask for more"):
        extreme_eigenvalues([ends()], 5, 1)


def test_extreme_eigenvalues_say_up_to_where_one_counts_as_zero() -> None:
    pairs = ends()
    pairs["residual_norm"] = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9]
    table = extreme_eigenvalues([pairs], 2, 1)
    assert table["uncertainty"].tolist() == [1e-9, 1e-7, 1e-3]
    assert set(extreme_eigenvalues([whole()], 2, 1)["uncertainty"]) == {1e-9}

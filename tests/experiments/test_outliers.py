"""Outlier counts of a run: every spectrum by every rule."""

import pandas as pd
import pytest

from hesspipe.experiments.outliers import count_by_rules, count_outliers
from hesspipe.tables.store import Result, read_result, write_result


def spectrum(eigenvalues: list[float], step: int = 100, matrix: str = "hessian") -> Result:
    table = pd.DataFrame({"rank": range(len(eigenvalues)), "eigenvalue": eigenvalues})
    provenance = {
        "experiment": "mine", "seed": 3, "num_classes": 4, "step": step, "matrix": matrix,
        "num_parameters": len(eigenvalues), "num_negative": 0, "num_zero": 0,
    }  # fmt: skip
    return Result("spectrum", table, provenance)


def test_count_by_rules_has_one_row_for_each_rule_in_the_order_given():
    result = count_by_rules(spectrum([-0.25, 0.0, 0.25, 1.0, 4.0]), ["ratio", "gap"], 5)
    # Of 4, 1, 0.25: both neighbors have the ratio 4, and 4 - 1 is the largest gap.
    assert result.to_dict("list") == {
        "step": [100, 100],
        "matrix": ["hessian", "hessian"],
        "rule": ["ratio", "gap"],
        "num_outliers": [1, 1],
        "cutoff": [2.0, 2.5],
    }


@pytest.mark.parametrize(("num_candidates", "expected"), [(2, 1), (3, 2)])
def test_count_by_rules_passes_num_candidates_on(num_candidates, expected):
    # Of 8, 0.5, 0.0125 the last two have the larger ratio.
    result = count_by_rules(spectrum([-1e-6, 0.0, 0.0125, 0.5, 8.0]), ["ratio"], num_candidates)
    assert result["num_outliers"].tolist() == [expected]


def test_count_outliers_has_every_spectrum_of_the_run_by_every_rule(tmp_path):
    spectra = {
        "a.parquet": spectrum([0.25, 1.0, 4.0], step=0),
        "b.parquet": spectrum([0.5, 7.0, 8.0], step=50, matrix="ggn"),
    }
    for name, result in spectra.items():
        write_result(result, tmp_path / name)
    paths = [tmp_path / name for name in spectra]
    counts = count_outliers(paths, rules=["gap", "elbow"], num_candidates=5)
    assert counts.provenance == {
        "experiment": "mine", "seed": 3, "num_classes": 4, "rules": ["gap", "elbow"],
        "num_candidates": 5,
    }  # fmt: skip
    rows = zip(*(counts.table[key] for key in ("step", "matrix", "rule")), strict=True)
    assert list(rows) == [
        (0, "hessian", "gap"), (0, "hessian", "elbow"), (50, "ggn", "gap"), (50, "ggn", "elbow"),
    ]  # fmt: skip
    # 4 - 1 is the largest gap of the first, 7 - 0.5 of the second.
    assert counts.table.loc[counts.table["rule"] == "gap", "num_outliers"].tolist() == [1, 2]
    write_result(counts, tmp_path / "outliers.parquet")
    assert read_result(tmp_path / "outliers.parquet", "outliers").table["step"].tolist() == [
        0, 0, 50, 50,
    ]  # fmt: skip

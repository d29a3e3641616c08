"""Table 1: counts by several rules, beside published ones."""

import pandas as pd
import pytest

from hesspipe.tables.outliers import (
    count_by_rules,
    final_counts,
    outlier_counts,
    to_latex,
    to_markdown,
)

PUBLISHED = pd.DataFrame(
    {
        "algorithm": ["sgd", "gd"],
        "activation": ["relu", "relu"],
        "num_parameters": [5, 5],
        "covariance": [10.0, 1.0],
        "mean": [9.49e-05, 7.13e-06],
        "std": [9.49e-05, 7.13e-06],
        "num_clusters": [2, 2],
        "gap": [2, 3],
        "ratio": [None, 4],
        "heuristic": [7, None],
        "cutoff": [0.015, None],
    }
)
# Two lie above 0.015 and three above 0.01.
EIGENVALUES = {"gd": [-0.25, 0.0, 0.25, 1.0, 4.0], "sgd": [-1e-6, 0.0, 0.0125, 0.5, 8.0]}


def spectrum(algorithm: str, cluster_std: float, activation: str = "relu") -> pd.DataFrame:
    eigenvalues = EIGENVALUES[algorithm]
    table = pd.DataFrame({"rank": range(len(eigenvalues)), "eigenvalue": eigenvalues})
    table.attrs = {
        "experiment": f"{algorithm}_{activation}",
        "seed": 0,
        "step": 100,
        "matrix": "hessian",
        "training": {"algorithm": algorithm},
        "model": {"activation": activation},
        "dataset": {"cluster_std": cluster_std, "num_clusters": 2},
    }
    return table


def outliers(algorithm: str = "gd", seed: int = 0) -> pd.DataFrame:
    """Counts that differ in every row, so that a wrong row shows."""
    rows = [
        (step, matrix, rule)
        for step in (0, 100)
        for matrix in ("ggn", "hessian")
        for rule in ("gap", "ratio", "elbow")
    ]
    table = pd.DataFrame(rows, columns=["step", "matrix", "rule"])
    first = 20 if algorithm == "gd" else 40
    table["num_outliers"] = range(first, first + len(rows))
    table["cutoff"] = table["num_outliers"] / 1000
    table.attrs = {"experiment": algorithm, "seed": seed}
    return table


@pytest.fixture
def table():
    spectra = [spectrum("gd", 1.0), spectrum("sgd", 10.0), spectrum("gd", 1.0, "tanh")]
    return outlier_counts(spectra, [outliers("gd"), outliers("sgd"), outliers("gd")], PUBLISHED)


def test_count_by_rules_has_one_row_a_rule_in_the_order_given():
    result = count_by_rules(spectrum("gd", 1.0), ["ratio", "gap"], 5)
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
    result = count_by_rules(spectrum("sgd", 10.0), ["ratio"], num_candidates)
    assert result["num_outliers"].tolist() == [expected]


def test_final_counts_takes_the_hessian_at_the_last_step_of_each_run():
    metrics = final_counts([outliers("gd", seed=3), outliers("sgd").iloc[::-1]])
    assert metrics == {
        "gd_seed3": {"gap": 29, "ratio": 30, "elbow": 31},
        "sgd_seed0": {"elbow": 51, "ratio": 50, "gap": 49},
    }
    assert type(metrics["gd_seed3"]["gap"]) is int  # JSON knows no NumPy integers


def test_outlier_counts_keeps_the_order_of_the_experiments(table):
    assert table["algorithm"].tolist() == ["gd", "sgd", "gd"]
    assert table["activation"].tolist() == ["relu", "relu", "tanh"]
    assert table["covariance"].tolist() == [1.0, 10.0, 1.0]


def test_outlier_counts_joins_the_published_row_of_the_same_experiment(table):
    assert table["paper_gap"].tolist() == [3, 2, pd.NA]
    assert table["paper_ratio"].tolist() == [4, pd.NA, pd.NA]
    assert table["paper_elbow"].tolist() == [pd.NA, 7, pd.NA]
    assert table["paper_cutoff"].fillna(-1.0).tolist() == [-1.0, 0.015, -1.0]
    assert table["paper_mean"].fillna(-1.0).tolist() == [7.13e-06, 9.49e-05, -1.0]


@pytest.mark.parametrize(
    ("column", "value"),
    [("algorithm", "adam"), ("activation", "tanh"), ("num_parameters", 6), ("covariance", 2.0)],
)
def test_outlier_counts_joins_by_every_key(column, value):
    published = PUBLISHED.assign(**{column: [PUBLISHED[column][0], value]})
    table = outlier_counts([spectrum("gd", 1.0)], [outliers("gd")], published)
    assert table[["paper_gap", "paper_ratio", "above_paper_cutoff"]].isna().all(axis=None)


def test_outlier_counts_takes_counts_at_the_step_and_matrix_of_the_spectrum(table):
    assert table["gap"].tolist() == [29, 49, 29]
    assert table["ratio"].tolist() == [30, 50, 30]
    assert table["elbow"].tolist() == [31, 51, 31]
    assert table["cutoff"].tolist() == [0.031, 0.051, 0.031]


def test_outlier_counts_has_moments_over_all_eigenvalues(table):
    assert table["mean"][0] == 1.0
    # Deviations -1.25, -1, -0.75, 0, 3: their squares add up to 12.125, over 5.
    assert table["std"][0] == pytest.approx(2.425**0.5, rel=1e-15)
    assert table["num_parameters"].tolist() == [5, 5, 5]


def test_outlier_counts_counts_strictly_above_the_cutoff_of_the_paper(table):
    assert table["above_paper_cutoff"].tolist() == [pd.NA, 2, pd.NA]
    published = PUBLISHED.assign(cutoff=[0.5, 0.25])
    spectra = [spectrum("gd", 1.0), spectrum("sgd", 10.0)]
    again = outlier_counts(spectra, [outliers("gd"), outliers("sgd")], published)
    assert again["above_paper_cutoff"].tolist() == [2, 1]


def test_outlier_counts_refuses_two_published_rows_of_one_experiment():
    twice = pd.concat([PUBLISHED, PUBLISHED])
    with pytest.raises(ValueError, match="one-to-one"):
        outlier_counts([spectrum("gd", 1.0)], [outliers("gd")], twice)


def cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| \\").split(separator)]


SHOWN = pd.DataFrame(
    {
        "algorithm": ["gd", "sgd"],
        "num_parameters": [5510, 4022],
        "mean": [1.31e-06, 1.2345e-4],
        "gap": pd.array([50, None], dtype="Int64"),
        "cutoff": [0.00049, 0.0123],
        "paper_std": [1.10e-04, None],
        "paper_cutoff": [None, 0.010],
    }
)
ROWS = [
    ["gd", "5510", "1.31e-06", "50", "0.00049", "1.10e-04", "–"],
    ["sgd", "4022", "1.23e-04", "–", "0.012", "–", "0.01"],
]


def test_to_markdown_keeps_the_digits_and_shows_a_dash_for_nothing():
    header, _, *rows = to_markdown(SHOWN).splitlines()
    assert cells(header, "|") == [name.replace("_", " ") for name in SHOWN.columns]
    assert [cells(row, "|") for row in rows] == ROWS


def test_to_latex_keeps_the_digits_and_shows_a_dash_for_nothing():
    lines = to_latex(SHOWN).splitlines()
    assert [cells(line, "&") for line in lines if "e-0" in line] == ROWS
    assert [lines[1], lines[-2]] == ["\\toprule", "\\bottomrule"]


def test_to_markdown_shows_every_row_of_a_table_with_gaps(table):
    rows = [cells(row, "|") for row in to_markdown(table).splitlines()[2:]]
    shown = pd.DataFrame(rows, columns=table.columns)
    assert shown["paper_ratio"].tolist() == ["4", "–", "–"]
    assert shown["above_paper_cutoff"].tolist() == ["–", "2", "–"]
    assert shown["paper_mean"].tolist() == ["7.13e-06", "9.49e-05", "–"]
    assert shown["mean"].tolist()[0] == "1.00e+00"

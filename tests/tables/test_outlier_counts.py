"""Table 1: counts by several rules next to published ones."""

from pathlib import Path

import pandas as pd
import pytest

from hesspipe.tables.outlier_counts import final_counts, make_table, to_latex, to_markdown
from hesspipe.tables.store import Result

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


def spectrum(algorithm: str, cluster_std: float, activation: str = "relu") -> Result:
    eigenvalues = EIGENVALUES[algorithm]
    table = pd.DataFrame({"rank": range(len(eigenvalues)), "eigenvalue": eigenvalues})
    provenance = {
        "experiment": f"{algorithm}_{activation}",
        "seed": 0,
        "step": 100,
        "matrix": "hessian",
        "training": {"algorithm": algorithm},
        "model": {"activation": activation},
        "dataset": {"cluster_std": cluster_std, "num_clusters": 2},
    }
    return Result("spectrum", table, provenance)


def outliers(algorithm: str = "gd", activation: str = "relu", seed: int = 0) -> Result:
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
    return Result("outliers", table, {"experiment": f"{algorithm}_{activation}", "seed": seed})


def table_of(results: list[Result], published: pd.DataFrame, folder: Path) -> pd.DataFrame:
    published.to_csv(folder / "published.csv", index=False)
    return make_table(results, {"published": str(folder / "published.csv")})


@pytest.fixture
def table(tmp_path):
    spectra = [spectrum("gd", 1.0), spectrum("sgd", 10.0), spectrum("gd", 1.0, "tanh")]
    counts = [outliers("gd", "tanh"), outliers("gd"), outliers("sgd")]
    return table_of(spectra + counts, PUBLISHED, tmp_path)


def test_final_counts_takes_the_hessian_at_the_last_step_of_each_run():
    second = outliers("sgd")
    backward = Result("outliers", second.table.iloc[::-1], second.provenance)
    metrics = final_counts([outliers("gd", seed=3), backward])
    assert metrics == {
        "gd_relu_seed3": {"gap": 29, "ratio": 30, "elbow": 31},
        "sgd_relu_seed0": {"elbow": 51, "ratio": 50, "gap": 49},
    }
    assert type(metrics["gd_relu_seed3"]["gap"]) is int  # JSON knows no NumPy integers


def test_make_table_keeps_the_order_of_the_experiments(table):
    assert table["algorithm"].tolist() == ["gd", "sgd", "gd"]
    assert table["activation"].tolist() == ["relu", "relu", "tanh"]
    assert table["covariance"].tolist() == [1.0, 10.0, 1.0]


def test_make_table_joins_the_published_row_of_the_same_experiment(table):
    assert table["paper_gap"].tolist() == [3, 2, pd.NA]
    assert table["paper_ratio"].tolist() == [4, pd.NA, pd.NA]
    assert table["paper_elbow"].tolist() == [pd.NA, 7, pd.NA]
    assert table["paper_cutoff"].fillna(-1.0).tolist() == [-1.0, 0.015, -1.0]
    assert table["paper_mean"].fillna(-1.0).tolist() == [7.13e-06, 9.49e-05, -1.0]


@pytest.mark.parametrize(
    ("column", "value"),
    [("algorithm", "adam"), ("activation", "tanh"), ("num_parameters", 6), ("covariance", 2.0)],
)
def test_make_table_joins_by_every_key(tmp_path, column, value):
    published = PUBLISHED.assign(**{column: [PUBLISHED[column][0], value]})
    table = table_of([spectrum("gd", 1.0), outliers("gd")], published, tmp_path)
    assert table[["paper_gap", "paper_ratio", "above_paper_cutoff"]].isna().all(axis=None)


def test_make_table_takes_counts_at_the_step_and_matrix_of_the_spectrum(table):
    assert table["gap"].tolist() == [29, 49, 29]
    assert table["ratio"].tolist() == [30, 50, 30]
    assert table["elbow"].tolist() == [31, 51, 31]
    assert table["cutoff"].tolist() == [0.031, 0.051, 0.031]


def test_make_table_has_moments_over_all_eigenvalues(table):
    assert table["mean"][0] == 1.0
    # Deviations -1.25, -1, -0.75, 0, 3: their squares add up to 12.125, over 5.
    assert table["std"][0] == pytest.approx(2.425**0.5, rel=1e-15)
    assert table["num_parameters"].tolist() == [5, 5, 5]


def test_make_table_counts_strictly_above_the_cutoff_of_the_paper(table, tmp_path):
    assert table["above_paper_cutoff"].tolist() == [pd.NA, 2, pd.NA]
    published = PUBLISHED.assign(cutoff=[0.5, 0.25])
    results = [spectrum("gd", 1.0), spectrum("sgd", 10.0), outliers("gd"), outliers("sgd")]
    again = table_of(results, published, tmp_path)
    assert again["above_paper_cutoff"].tolist() == [2, 1]


def test_make_table_refuses_two_published_rows_of_one_experiment(tmp_path):
    twice = pd.concat([PUBLISHED, PUBLISHED])
    with pytest.raises(ValueError, match="one-to-one"):
        table_of([spectrum("gd", 1.0), outliers("gd")], twice, tmp_path)


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

"""Outlier counts of trained networks and published ones: Table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from hesspipe.curvature.matrix import Matrix
from hesspipe.tables.queries import of_kind, of_same_run, outlier_rows
from hesspipe.tables.store import Result

_KEYS = ["algorithm", "activation", "num_parameters", "covariance"]
_PUBLISHED = {"heuristic": "elbow"}
_COUNTS = [
    "num_clusters", "gap", "ratio", "elbow", "above_paper_cutoff", "paper_gap", "paper_ratio",
    "paper_elbow",
]  # fmt: skip


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate the outlier counts of several experiments next to published ones.

    Parameters
    ----------
    results : sequence of Result
        One spectrum for each experiment, and the outlier counts of the same runs.
    settings : mapping
        published, the path of a CSV file: algorithm, activation, num_parameters, covariance, and
        published numbers for each.

    Returns
    -------
    DataFrame
        One row for each experiment: what identifies it, mean and std of its eigenvalues, the
        number of clusters, counts by gap, ratio and elbow, the elbow's cutoff, how many
        eigenvalues lie above the paper's cutoff, and paper_<column> for each published number.
        The paper's heuristic count and cutoff, set by eye, are paper_elbow and paper_cutoff.
        Missing counts are <NA>.
    """
    spectra, outliers = of_kind(results, "spectrum"), of_kind(results, "outliers")
    rows = pd.DataFrame([_row(spectrum, of_same_run(spectrum, outliers)) for spectrum in spectra])
    published = pd.read_csv(settings["published"])
    renamed = published.drop(columns="num_clusters").rename(columns=_PUBLISHED)
    renamed.columns = [name if name in _KEYS else f"paper_{name}" for name in renamed.columns]
    table = rows.merge(renamed, on=_KEYS, how="left", validate="one_to_one")
    above = [
        (spectrum.table["eigenvalue"] > cutoff).sum() if pd.notna(cutoff) else None
        for spectrum, cutoff in zip(spectra, table["paper_cutoff"], strict=True)
    ]
    table.insert(list(table.columns).index("cutoff") + 1, "above_paper_cutoff", above)
    return table.astype(dict.fromkeys(_COUNTS, "Int64"))


def final_counts(outliers: Sequence[Result]) -> dict[str, dict[str, int]]:
    """Select the outlier counts of the Hessian at the last step of each run.

    Parameters
    ----------
    outliers : sequence of Result

    Returns
    -------
    dict
        From "<experiment>_seed<seed>" to the count by rule.
    """
    counts = {}
    for run in outliers:
        is_hessian = run.table["matrix"] == Matrix.HESSIAN
        last = outlier_rows(run, run.table.loc[is_hessian, "step"].max(), Matrix.HESSIAN)
        name = f"{run.provenance['experiment']}_seed{run.provenance['seed']}"
        counts[name] = dict(zip(last["rule"], map(int, last["num_outliers"]), strict=True))
    return counts


def to_markdown(table: pd.DataFrame) -> str:
    """Format the table as Markdown: three digits, a dash for a missing number."""
    return tabulate(_cells(table), headers="keys", tablefmt="pipe", disable_numparse=True) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """Format the table as a LaTeX tabular in the style of booktabs."""
    return (
        tabulate(_cells(table), headers="keys", tablefmt="latex_booktabs", disable_numparse=True)
        + "\n"
    )


def _row(spectrum: Result, outliers: Result) -> dict[str, object]:
    provenance, eigenvalues = spectrum.provenance, spectrum.table["eigenvalue"]
    rows = outlier_rows(outliers, provenance["step"], provenance["matrix"])
    by_rule = rows.set_index("rule")
    return {
        "algorithm": provenance["training"]["algorithm"],
        "activation": provenance["model"]["activation"],
        "num_parameters": len(eigenvalues),
        "covariance": provenance["dataset"]["cluster_std"],
        "mean": eigenvalues.mean(),
        "std": eigenvalues.std(ddof=0),
        "num_clusters": provenance["dataset"]["num_clusters"],
        **{rule: by_rule.loc[rule, "num_outliers"] for rule in ("gap", "ratio", "elbow")},
        "cutoff": by_rule.loc["elbow", "cutoff"],
    }


def _cells(table: pd.DataFrame) -> dict[str, list[str]]:
    texts = {}
    for name in table.columns:
        column = table[name]
        if name in ("mean", "std", "paper_mean", "paper_std"):
            shown = column.map("{:.2e}".format, na_action="ignore")
        elif name in ("cutoff", "paper_cutoff"):
            shown = column.map("{:.2g}".format, na_action="ignore")
        else:
            shown = column.map("{}".format, na_action="ignore")
        texts[name.replace("_", " ")] = [
            text if is_known else "–" for text, is_known in zip(shown, column.notna(), strict=True)
        ]
    return texts

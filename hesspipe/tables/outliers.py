"""Table 1: outlier counts of trained networks beside the published ones."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from hesspipe.outliers import Rule, count_outliers

_KEYS = ["algorithm", "activation", "num_parameters", "covariance"]
_PUBLISHED = {"heuristic": "elbow"}
_COUNTS = [
    "num_clusters", "gap", "ratio", "elbow", "above_paper_cutoff", "paper_gap", "paper_ratio",
    "paper_elbow",
]  # fmt: skip


def count_by_rules(
    spectrum: pd.DataFrame, rules: Sequence[Rule], num_candidates: int
) -> pd.DataFrame:
    """Count the outliers of one spectrum by several rules.

    Of a network that is too large for all eigenvalues, the largest ones are enough: no other
    enters a rule.

    Parameters
    ----------
    spectrum : DataFrame
        A spectrum or eigenpair table with its provenance in `attrs`.
    rules : sequence of str
    num_candidates : int
        See `hesspipe.outliers`.

    Returns
    -------
    DataFrame
        step, matrix, rule, num_outliers, cutoff; one row per rule.

    Raises
    ------
    ValueError
        If an eigenpair table holds fewer than `num_candidates` of the largest.
    """
    eigenvalues = spectrum["eigenvalue"]
    if "end" in spectrum.columns:
        eigenvalues = eigenvalues[spectrum["end"] == "largest"].sort_values()
        if len(eigenvalues) < num_candidates:
            raise ValueError(
                f"num_candidates must be at most {len(eigenvalues)}, the number of largest "
                f"eigenvalues that were computed, got {num_candidates}"
            )
    counts = [count_outliers(eigenvalues, rule, num_candidates=num_candidates) for rule in rules]
    return pd.DataFrame(
        {
            "step": spectrum.attrs["step"],
            "matrix": spectrum.attrs["matrix"],
            "rule": [count.rule for count in counts],
            "num_outliers": [count.num_outliers for count in counts],
            "cutoff": [count.cutoff for count in counts],
        }
    )


def final_counts(outliers: Sequence[pd.DataFrame]) -> dict[str, dict[str, int]]:
    """Pick each run's outlier counts of the Hessian at its last step.

    Parameters
    ----------
    outliers : sequence of DataFrame
        Outlier tables with their provenance in `attrs`.

    Returns
    -------
    dict
        From "<experiment>_seed<seed>" to the count by rule.
    """
    counts = {}
    for table in outliers:
        hessian = table[table["matrix"] == "hessian"]
        last = hessian[hessian["step"] == hessian["step"].max()]
        name = f"{table.attrs['experiment']}_seed{table.attrs['seed']}"
        counts[name] = dict(zip(last["rule"], map(int, last["num_outliers"]), strict=True))
    return counts


def outlier_counts(
    spectra: Sequence[pd.DataFrame], outliers: Sequence[pd.DataFrame], published: pd.DataFrame
) -> pd.DataFrame:
    """Put the outlier counts of several experiments beside published ones.

    Parameters
    ----------
    spectra : sequence of DataFrame
        One spectrum per experiment, at the step of the table, with its provenance in `attrs`.
    outliers : sequence of DataFrame
        The outlier table of each experiment, in the same order.
    published : DataFrame
        algorithm, activation, num_parameters, covariance, and published numbers for each.

    Returns
    -------
    DataFrame
        One row per experiment: what identifies it, mean and std of its eigenvalues, the number
        of clusters, counts by gap, ratio and elbow, the elbow's cutoff, how many eigenvalues
        lie above the paper's own cutoff, and paper_<column> for each published number. The
        paper's heuristic count and cutoff, set by eye, stand as paper_elbow and paper_cutoff.
        Counts without a value are <NA>.
    """
    rows = pd.DataFrame([_row(*pair) for pair in zip(spectra, outliers, strict=True)])
    renamed = published.drop(columns="num_clusters").rename(columns=_PUBLISHED)
    renamed.columns = [name if name in _KEYS else f"paper_{name}" for name in renamed.columns]
    table = rows.merge(renamed, on=_KEYS, how="left", validate="one_to_one")
    above = [
        (spectrum["eigenvalue"] > cutoff).sum() if pd.notna(cutoff) else None
        for spectrum, cutoff in zip(spectra, table["paper_cutoff"], strict=True)
    ]
    table.insert(list(table.columns).index("cutoff") + 1, "above_paper_cutoff", above)
    return table.astype(dict.fromkeys(_COUNTS, "Int64"))


def to_markdown(table: pd.DataFrame) -> str:
    """Format the table for people: pipes, three digits, a dash where there is no number."""
    return (
        tabulate(_for_people(table), headers="keys", tablefmt="pipe", disable_numparse=True) + "\n"
    )


def to_latex(table: pd.DataFrame) -> str:
    """Format the table as a LaTeX tabular in the style of booktabs."""
    return (
        tabulate(
            _for_people(table), headers="keys", tablefmt="latex_booktabs", disable_numparse=True
        )
        + "\n"
    )


def _row(spectrum: pd.DataFrame, outliers: pd.DataFrame) -> dict[str, object]:
    about = spectrum.attrs
    here = outliers[(outliers["step"] == about["step"]) & (outliers["matrix"] == about["matrix"])]
    by_rule = here.set_index("rule")
    return {
        "algorithm": about["training"]["algorithm"],
        "activation": about["model"]["activation"],
        "num_parameters": len(spectrum),
        "covariance": about["dataset"]["cluster_std"],
        "mean": spectrum["eigenvalue"].mean(),
        "std": spectrum["eigenvalue"].std(ddof=0),
        "num_clusters": about["dataset"]["num_clusters"],
        **{rule: by_rule.loc[rule, "num_outliers"] for rule in ("gap", "ratio", "elbow")},
        "cutoff": by_rule.loc["elbow", "cutoff"],
    }


def _for_people(table: pd.DataFrame) -> dict[str, list[str]]:
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

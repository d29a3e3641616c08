"""What the outliers of several networks are, in a row each."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def summarize_directions(
    directions: Sequence[pd.DataFrame], outliers: Sequence[pd.DataFrame], rule: str
) -> pd.DataFrame:
    """Tabulate how far the first C - 1 eigenvectors, the next one and those after lie in spans.

    Parameters
    ----------
    directions : sequence of DataFrame
        Tables of `hesspipe.experiments.directions.directions_table`, with provenance in `attrs`.
    outliers : sequence of DataFrame
        The outlier table of each run.
    rule : str
        Of counting outliers.

    Returns
    -------
    DataFrame
        experiment, seed, num_parameters, num_classes, num_outliers (of H, by the rule); for each
        span its rank, its chance level rank / P, and the mean squared overlap of the first
        C - 1 eigenvectors (<span>_first), of the C-th (<span>_last), and of those after it
        (<span>_after).
    """
    return pd.DataFrame(
        [_row(table, counts, rule) for table, counts in zip(directions, outliers, strict=True)]
    )


def _row(table: pd.DataFrame, outliers: pd.DataFrame, rule: str) -> dict[str, object]:
    about = table.attrs
    num_classes = about["num_classes"]
    found = outliers[
        (outliers["step"] == about["step"])
        & (outliers["matrix"] == "hessian")
        & (outliers["rule"] == rule)
    ]
    row: dict[str, object] = {
        key: about[key] for key in ("experiment", "seed", "step", "num_parameters", "num_classes")
    }
    row["num_outliers"] = int(found["num_outliers"].iloc[0])
    for span, rank in about["ranks"].items():
        overlaps = table[span].to_numpy()
        row |= {
            f"{span}_rank": rank,
            f"{span}_chance": rank / about["num_parameters"],
            f"{span}_first": overlaps[: num_classes - 1].mean(),
            f"{span}_last": overlaps[num_classes - 1],
            f"{span}_after": overlaps[num_classes:].mean(),
        }
    return row

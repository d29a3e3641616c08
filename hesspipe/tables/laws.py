"""Linear models against the laws that predict their spectra: Figure 10 as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate linear models: sizes, distances from the laws, outliers.

    Parameters
    ----------
    results : sequence of Result
        "law" and "law_outliers" of each model, in the same order, from
        `hesspipe.experiments.laws.compare_with_laws`.
    settings : mapping
        The table's entry in config.yaml; not used.

    Returns
    -------
    DataFrame
        One row per model; outliers as text, in ascending order.
    """
    pairs = zip(of_kind(results, "law"), of_kind(results, "law_outliers"), strict=True)
    return pd.DataFrame([_row(law.provenance, outliers.table) for law, outliers in pairs])


def _row(about: Mapping[str, Any], outliers: pd.DataFrame) -> dict[str, object]:
    return {
        "name": about["name"],
        "model": about["entry"]["model"],
        "num_steps": about["entry"]["num_steps"],
        "alpha": about["num_parameters"] / about["num_samples"],
        **{key: about[key] for key in _COLUMNS},
        "outliers_predicted": _joined(outliers["predicted"]),
        "outliers_measured": _joined(outliers["measured"]),
        "outlier_error": float(
            np.abs(outliers["measured"] / outliers["predicted"] - 1).max() if len(outliers) else 0.0
        ),
    }


_COLUMNS = (
    "num_parameters", "num_samples", "num_zero_predicted", "num_zero", "accuracy",
    "distance", "plain_distance", "lower_edge", "smallest", "upper_edge", "largest",
)  # fmt: skip


def _joined(values: pd.Series) -> str:
    return " ".join(f"{value:.5g}" for value in values)

"""Whole spectra of spiked models against Theorem 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate zeros, edges and outliers with what Theorem 2 predicts.

    Parameters
    ----------
    results : sequence of Result
        "parts" of each spiked model, from
        `hesspipe.experiments.spiked_models.sample_spiked_spectra`.
    settings : mapping
        The table's entry in config.yaml; not used.

    Returns
    -------
    DataFrame
        One row per part; for its columns see
        `hesspipe.experiments.spiked_models.compare_parts`.
    """
    return pd.concat([result.table for result in of_kind(results, "parts")], ignore_index=True)

"""The largest eigenvalue of a spiked model against Theorem 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate positions, fluctuations and overlaps with what Theorem 1 predicts.

    Parameters
    ----------
    results : sequence of Result
        "positions" of one spiked model, from
        `hesspipe.experiments.spiked_models.sample_spikes`.
    settings : mapping
        The table's entry in config.yaml; not used.

    Returns
    -------
    DataFrame
        One row per size and strength; for its columns see
        `hesspipe.experiments.spiked_models.compare_positions`.
    """
    (positions,) = of_kind(results, "positions")
    return positions.table

"""Loss barriers on lines between solutions, in the training and in the test loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hesspipe.landscape.barriers import find_barrier
from hesspipe.tables.queries import of_kind
from hesspipe.tables.store import Result


def make_table(results: Sequence[Result], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulate the barriers of several lines.

    Parameters
    ----------
    results : sequence of Result
        Lines.
    settings : mapping
        The table's entry in config.yaml; nothing of it is needed.

    Returns
    -------
    DataFrame
        from, to (experiment, seed, and whether its units were aligned), loss ("train" or "test"),
        at_start, at_end (the loss there, nats), barrier, place, rise (see
        `hesspipe.landscape.barriers.Barrier`), accuracy_at_start, accuracy_at_end (None
        without class labels); in the order of the lines. Data without a held-out part have no
        row for it.
    """
    lines = of_kind(results, "line")
    return pd.DataFrame(
        [
            _row(line, half)
            for line in lines
            for half in ("train", "test")
            if line.table[f"{half}_loss"].notna().all()
        ]
    )


def _row(line: Result, half: str) -> dict[str, object]:
    table = line.table
    barrier = find_barrier(table["coefficient"].tolist(), table[f"{half}_loss"].tolist())
    start, end = (table[table["coefficient"] == place].iloc[0] for place in (0.0, 1.0))
    return {
        "from": _name(line.provenance["first"]),
        "to": _name(line.provenance["second"]),
        "loss": half,
        "at_start": start[f"{half}_loss"],
        "at_end": end[f"{half}_loss"],
        "barrier": barrier.height,
        "place": barrier.place,
        "rise": barrier.rise,
        "accuracy_at_start": start[f"{half}_accuracy"],
        "accuracy_at_end": end[f"{half}_accuracy"],
    }


def _name(end: Mapping[str, Any]) -> str:
    """One end of a line: its run, and whether its hidden units were reordered."""
    aligned = " aligned" if "aligned_to" in end else ""
    return f"{end['experiment']} seed {end['seed']}{aligned}"

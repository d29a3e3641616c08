"""The file of a monitor, which one of several processes reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hesspipe.objective.distributed import together
from hesspipe.ranks.ranks import Ranks

if TYPE_CHECKING:
    from hesspipe.tables.store import Result

Rows = list[dict[str, Any]]


def read_rows(path: str | Path | None, provenance: Mapping[str, Any], ranks: Ranks | None) -> Rows:
    """Read the rows of a file that a monitor continues, if there is one.

    Parameters
    ----------
    path : path or None
    provenance : mapping
        Of the monitor.
    ranks : Ranks or None
        Rank 0 reads for all of them.

    Raises
    ------
    ValueError
        If the file is of another monitor.
    """
    if ranks is None:
        return _rows_of_file(path, provenance)
    with ranks.raise_together("reading the records"):
        rows = _rows_of_file(path, provenance) if ranks.is_first else []
    found: Rows = ranks.decide(rows)
    return found


def write_rows(result: Result, path: str | Path, ranks: Ranks | None) -> None:
    """Write the records, in rank 0 of several processes."""
    from hesspipe.tables.store import write_result

    with together(ranks, "writing the records"):
        if ranks is None or ranks.is_first:
            write_result(result, path)


def _rows_of_file(path: str | Path | None, provenance: Mapping[str, Any]) -> Rows:
    if path is None or not Path(path).exists():
        return []
    from hesspipe.tables.store import read_result

    found = read_result(path, "monitor")
    for key, value in provenance.items():
        if found.provenance.get(key) != value:
            raise ValueError(
                f"path must be a file of the same monitor, got {path} with {key} "
                f"{found.provenance.get(key)!r} instead of {value!r}; pass another path"
            )
    table = found.table.astype(object).where(found.table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]

"""Results: tables in Parquet files with checked columns, units and provenance.

Only this module writes or reads them, and it refuses a file that differs from its own SHA-256. The
provenance holds what decides the numbers and nothing that changes from run to run (no wall times,
no dates), so that equal results are equal bytes: what depends on them then need not run again.
Wall time and peak memory are in Snakemake's benchmark files.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hesspipe.errors import DamagedFileError
from hesspipe.files import reading, write_sealed
from hesspipe.plots.plotted import Plotted
from hesspipe.seals import BLANK, check_seal
from hesspipe.summaries import summary
from hesspipe.tables.schemas import REQUIRED_PROVENANCE, SCHEMAS, schema_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the provenance, in a summary.
_SHOWN = ("experiment", "seed", "step", "matrix", "num_parameters")


@dataclass(frozen=True, eq=False)
class Result(Plotted):
    """A table and its provenance.

    `plot` draws the table as the result of the library that it holds, or the records of a monitor,
    and raises TypeError if only a figure of the pipeline, of several tables, shows it.

    Attributes
    ----------
    kind : str
        A key of `hesspipe.tables.schemas.SCHEMAS`.
    table : DataFrame
        With exactly the columns of its kind; see `hesspipe.tables.schemas.schema_of`.
    provenance : mapping
        What decided the numbers, JSON-like; of a result that was read, also the versions of the
        packages that computed them.
    """

    kind: str
    table: pd.DataFrame
    provenance: Mapping[str, Any]

    def __repr__(self) -> str:
        about = {key: self.provenance.get(key) for key in _SHOWN}
        return summary(
            "Result",
            kind=self.kind,
            num_rows=len(self.table),
            num_columns=len(self.table.columns),
            **about,
        )

    def _draw(self, ax: Axes | None) -> Axes:
        # By name, as the library is loaded only where it is needed.
        axes: Axes = importlib.import_module("hesspipe.saving.files").plot_result(self, ax)
        return axes


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers, for the provenance."""
    names = ("hesspipe", "numpy", "scikit-learn", "scipy", "torch")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


def write_result(result: Result, path: str | Path) -> None:
    """Write a result as Parquet, atomically, with the SHA-256 of the file in its metadata.

    Parameters
    ----------
    result : Result
        Its provenance is stored with the kind and the present package versions.
    path : str or Path

    Raises
    ------
    ValueError
        If the kind is unknown, a column is missing, unknown, of another type or has a missing
        value or one that is not finite, or the provenance lacks what readers of this kind need.
    """
    kind, table = result.kind, result.table
    schema = schema_of(kind, result.provenance)
    if list(table.columns) != schema.names:
        raise ValueError(
            f"a {kind} table must have the columns {schema.names}, got {list(table.columns)}"
        )
    missing = [key for key in REQUIRED_PROVENANCE.get(kind, ()) if key not in result.provenance]
    if missing:
        raise ValueError(
            f"the provenance of a {kind} table must have {', '.join(missing)}, got "
            f"{', '.join(sorted(result.provenance))}"
        )
    provenance = {**result.provenance, "kind": kind, "versions": package_versions()}
    _require_finite(result)
    metadata = {"hesspipe": json.dumps(provenance, sort_keys=True)}
    try:
        content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"the columns of a {kind} table must fit its schema: {error}") from None
    content = content.replace_schema_metadata(metadata)
    file = pa.BufferOutputStream()
    with pq.ParquetWriter(
        file, content.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        writer.write_table(content)
        writer.add_key_value_metadata({"digest": BLANK})
    write_sealed(file.getvalue().to_pybytes(), path)


def _other_version(provenance: Mapping[str, Any]) -> str:
    """Name the version that wrote a file, if it is not the present one."""
    written, present = provenance["versions"]["hesspipe"], package_versions()["hesspipe"]
    return "" if written == present else f"; hesspipe {written} wrote it, and this is {present}"


def _require_finite(result: Result) -> None:
    """Refuse infinite numbers in a table or its provenance; nan is a missing value."""
    for name, column in result.table.select_dtypes("float").items():
        rows = np.flatnonzero(np.isinf(column.to_numpy()))
        if len(rows):
            raise ValueError(
                f"the column {name} of a {result.kind} table must be finite, got "
                f"{column.iloc[rows[0]]} in row {rows[0]}; choose settings of ordinary size"
            )
    for key, value in result.provenance.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(
                f"{key} of a {result.kind} table must be finite, got {value}; choose settings of "
                "ordinary size"
            )


def read_result(path: str | Path, kind: str | Sequence[str] | None = None) -> Result:
    """Read a result and check its columns.

    Parameters
    ----------
    path : str or Path
    kind : str, sequence of str or None
        Which kind it must be, or one of which; None is any.

    Raises
    ------
    DamagedFileError
        If the content does not match its SHA-256 or there is none, it is not a result, of another
        kind, or has other columns.
    FileNotFoundError
        If it does not exist.
    UnreadableFileError
        If it cannot be read, e.g. for lack of permission.
    """
    kinds = sorted(SCHEMAS) if kind is None else [kind] if isinstance(kind, str) else list(kind)
    try:
        with reading(path):
            check_seal(path)
            content = pq.read_table(path, page_checksum_verification=True)
        provenance = json.loads((content.schema.metadata or {})[b"hesspipe"])
        found = provenance.pop("kind")
        if found not in SCHEMAS:
            raise ValueError(f"it is of the unknown kind {found}{_other_version(provenance)}")
        if found not in kinds:
            raise ValueError(f"it is of kind {found}, not {' or '.join(kinds)}")
        if not content.schema.equals(schema_of(found, provenance)):
            columns = ", ".join(f"{field.name}: {field.type}" for field in content.schema)
            raise ValueError(
                f"its columns are {columns}, not those of a {found} table"
                f"{_other_version(provenance)}"
            )
        return Result(found, content.to_pandas(), provenance)
    except DamagedFileError:
        raise
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DamagedFileError(path, error) from None

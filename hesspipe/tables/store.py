"""Results: tables in Parquet files with checked columns, units and provenance.

Only this module writes or reads them. The provenance holds what decides the numbers and
nothing that changes from run to run (no wall times, no dates), so that equal results are
equal bytes: what depends on them then need not run again. Wall time and peak memory are in
Snakemake's benchmark files.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hesspipe.errors import DamagedFileError
from hesspipe.files import atomic_path, write_text
from hesspipe.tables.schemas import REQUIRED_PROVENANCE, SCHEMAS


@dataclass(frozen=True)
class Result:
    """A table and its provenance.

    Attributes
    ----------
    kind : str
        A key of `hesspipe.tables.schemas.SCHEMAS`.
    table : DataFrame
        With exactly the columns of its kind.
    provenance : mapping
        What decided the numbers, JSON-like; of a result that was read, also the versions of the
        packages that computed them.
    """

    kind: str
    table: pd.DataFrame
    provenance: Mapping[str, Any]


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers, for the provenance."""
    names = ("hesspipe", "numpy", "scikit-learn", "scipy", "torch")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


def write_result(result: Result, path: str | Path) -> None:
    """Write a result as Parquet, atomically.

    Parameters
    ----------
    result : Result
        Its provenance is stored with the kind and the present package versions.
    path : str or Path

    Raises
    ------
    ValueError
        If the kind is unknown, a column is missing, unknown, of another type or has a missing
        value, or the provenance lacks what readers of this kind need.
    """
    kind, table = result.kind, result.table
    if kind not in SCHEMAS:
        raise ValueError(f"kind must be one of {sorted(SCHEMAS)}, got {kind!r}")
    schema = SCHEMAS[kind]
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
    metadata = {"hesspipe": json.dumps(provenance, sort_keys=True)}
    try:
        content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"the columns of a {kind} table must fit its schema: {error}") from None
    with atomic_path(path) as temporary:
        pq.write_table(
            content.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            write_page_checksum=True,
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
        If the file is truncated, not a result, of another kind, or has other columns.
    FileNotFoundError
        If it does not exist.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; build it with: snakemake {path}")
    kinds = sorted(SCHEMAS) if kind is None else [kind] if isinstance(kind, str) else list(kind)
    try:
        content = pq.read_table(path, page_checksum_verification=True)
        provenance = json.loads((content.schema.metadata or {})[b"hesspipe"])
        found = provenance.pop("kind")
        if found not in kinds:
            raise ValueError(f"a {found} table, not {' or '.join(kinds)}")
        if not content.schema.equals(SCHEMAS[found]):
            columns = ", ".join(f"{field.name}: {field.type}" for field in content.schema)
            raise ValueError(f"its columns are {columns}, not those of a {found} table")
        return Result(found, content.to_pandas(), provenance)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedFileError(path, error) from None


def write_table(
    table: pd.DataFrame, path: str | Path, kind: str, provenance: Mapping[str, Any]
) -> None:
    """Write a result table as Parquet, atomically.

    Parameters
    ----------
    table : DataFrame
        With exactly the columns of its kind.
    path : str or Path
    kind : str
        A key of `SCHEMAS`.
    provenance : mapping
        JSON-like; package versions are added.

    Raises
    ------
    ValueError
        If a column is missing, unknown, of another type, or has no value somewhere.
    """
    schema = SCHEMAS[kind]
    if list(table.columns) != schema.names:
        raise ValueError(
            f"a {kind} table must have the columns {schema.names}, got {list(table.columns)}"
        )
    about = {"kind": kind, "versions": package_versions(), **provenance}
    metadata = {"hesspipe": json.dumps(about, sort_keys=True)}
    try:
        content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"the columns of a {kind} table must fit its schema: {error}") from None
    with atomic_path(path) as temporary:
        pq.write_table(
            content.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            write_page_checksum=True,
        )


def read_table(path: str | Path, kind: str) -> pd.DataFrame:
    """Read a result table and check its columns.

    Returns
    -------
    DataFrame
        With the provenance in `attrs`.

    Raises
    ------
    DamagedFileError
        If the file is truncated, no Parquet, or has other columns.
    FileNotFoundError
        If there is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; build it with: snakemake {path}")
    try:
        content = pq.read_table(path, page_checksum_verification=True)
        about = json.loads((content.schema.metadata or {})[b"hesspipe"])
        if not content.schema.equals(SCHEMAS[kind]):
            columns = ", ".join(f"{field.name}: {field.type}" for field in content.schema)
            raise ValueError(f"its columns are {columns}, not those of a {kind} table")
        table: pd.DataFrame = content.to_pandas()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedFileError(path, error) from None
    table.attrs = about
    return table


def read_either(path: str | Path, kinds: Sequence[str]) -> pd.DataFrame:
    """Read a result table that may be of several kinds; which it is stands in its provenance.

    Raises
    ------
    DamagedFileError
        If the file is damaged, or a table of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; build it with: snakemake {path}")
    try:
        kind = json.loads((pq.read_schema(path).metadata or {})[b"hesspipe"])["kind"]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedFileError(path, error) from None
    if kind not in kinds:
        raise DamagedFileError(path, f"a table of kind {kind}, not {' or '.join(kinds)}")
    return read_table(path, kind)


def read_tables(paths: Sequence[str | Path]) -> list[pd.DataFrame]:
    """Read result tables of any kind, each with its `path` among the provenance."""
    tables = []
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist; build it with: snakemake {path}")
        try:
            kind = json.loads((pq.read_schema(path).metadata or {})[b"hesspipe"])["kind"]
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise DamagedFileError(path, error) from None
        table = read_table(path, kind)
        table.attrs["path"] = str(path)
        tables.append(table)
    return tables


def read_spectra(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Read several spectra into one table.

    Returns
    -------
    DataFrame
        experiment, seed, num_classes, num_parameters, num_negative, num_zero, step, matrix, rank,
        eigenvalue; in the order of the paths.
    """
    keys = (
        "experiment", "seed", "num_classes", "num_parameters", "num_negative", "num_zero", "step",
        "matrix",
    )  # fmt: skip
    return pd.concat([_labeled(read_table(path, "spectrum"), keys) for path in paths])


def read_outliers(paths: Sequence[str | Path], step: int, matrix: str, rule: str) -> pd.DataFrame:
    """Read one row of several outlier tables.

    Returns
    -------
    DataFrame
        experiment, num_classes and the columns of an outlier table; in the order of the paths.
    """
    keys = ("experiment", "num_classes")
    table = pd.concat([_labeled(read_table(path, "outliers"), keys) for path in paths])
    return table[(table["step"] == step) & (table["matrix"] == matrix) & (table["rule"] == rule)]


def read_parts(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Read the histories of trainings that go on from each other into one.

    Returns
    -------
    DataFrame
        part (1, 2, ...) and the columns of a history, with the steps counted on; the step at
        which a part ends is there twice, as the next one's first.
    """
    parts, last = [], 0
    for number, path in enumerate(paths, 1):
        history = read_table(path, "history")
        history.attrs = {}
        parts.append(history.assign(part=number, step=history["step"] + last))
        last = int(parts[-1]["step"].iloc[-1])
    return pd.concat(parts, ignore_index=True)


def read_cutoffs(path: str | Path, step: int, matrix: str) -> pd.DataFrame:
    """Read what every rule says of one spectrum: the rows of one step and matrix."""
    table = read_table(path, "outliers")
    return table[(table["step"] == step) & (table["matrix"] == matrix)]


def _labeled(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The table behind columns of its provenance."""
    labels = {key: table.attrs[key] for key in keys}
    table.attrs = {}
    return table.assign(**labels)[[*labels, *table.columns]]


def write_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a metric as JSON, atomically, in the order given."""
    write_text(json.dumps(content, indent=2) + "\n", path)

"""Result tables: Parquet files with checked columns, units and provenance.

Only this module writes or reads them. The provenance holds what decides the numbers and
nothing that changes from run to run (no wall times, no dates), so that equal results are
equal bytes: what depends on them then need not run again. Wall time and peak memory are in
Snakemake's benchmark files, beside the results.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hesspipe.files import DamagedFileError, atomic_path, write_text


def _field(name: str, dtype: pa.DataType, unit: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"unit": unit})


SCHEMAS: dict[str, pa.Schema] = {
    "history": pa.schema(
        [
            _field("step", pa.int64(), "updates"),
            _field("train_loss", pa.float64(), "nats, mean over samples"),
            _field("train_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            _field("test_loss", pa.float64(), "nats, mean over samples", nullable=True),
            _field("test_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            _field("gradient_norm", pa.float64(), "nats per unit of the parameters"),
        ]
    ),
    "line": pa.schema(
        [
            _field("coefficient", pa.float64(), "0 = first point, 1 = second point"),
            _field("train_loss", pa.float64(), "nats, mean over samples"),
            _field("train_accuracy", pa.float64(), "share of samples, 0 to 1"),
            _field("test_loss", pa.float64(), "nats, mean over samples"),
            _field("test_accuracy", pa.float64(), "share of samples, 0 to 1"),
        ]
    ),
    "plane": pa.schema(
        [
            _field("first", pa.float64(), "units of the parameters"),
            _field("second", pa.float64(), "units of the parameters"),
            _field("train_loss", pa.float64(), "nats, mean over samples"),
        ]
    ),
    "plane_points": pa.schema(
        [
            _field("point", pa.string(), "large batch, small batch, other seed or path"),
            _field("step", pa.int64(), "updates since the start of Part I"),
            _field("first", pa.float64(), "units of the parameters"),
            _field("second", pa.float64(), "units of the parameters"),
            _field("distance", pa.float64(), "from the plane, units of the parameters"),
        ]
    ),
    "spectrum": pa.schema(
        [
            _field("rank", pa.int64(), "0 = smallest"),
            _field("eigenvalue", pa.float64(), "nats per squared unit of the parameters"),
        ]
    ),
    "eigenpairs": pa.schema(
        [
            _field("end", pa.string(), "smallest or largest"),
            _field("rank", pa.int64(), "0 = smallest"),
            _field("eigenvalue", pa.float64(), "of the loss, per squared unit of the parameters"),
            _field("residual_norm", pa.float64(), "|A v - eigenvalue v| of the unit vector v"),
        ]
    ),
    "density": pa.schema(
        [
            _field("probe", pa.int64(), "0 = first"),
            _field("node", pa.float64(), "of the loss, per squared unit of the parameters"),
            _field("weight", pa.float64(), "share of the spectrum; of a probe they add up to 1"),
        ]
    ),
    "outliers": pa.schema(
        [
            _field("step", pa.int64(), "updates"),
            _field("matrix", pa.string(), "hessian, ggn or residual"),
            _field("rule", pa.string(), "gap, ratio or elbow"),
            _field("num_outliers", pa.int64(), "eigenvalues above the cutoff"),
            _field("cutoff", pa.float64(), "nats per squared unit of the parameters"),
        ]
    ),
    "directions": pa.schema(
        [
            _field("order", pa.int64(), "1 = largest"),
            _field("eigenvalue", pa.float64(), "nats per squared unit of the parameters"),
            _field("own", pa.float64(), "squared cosine, 0 to 1"),
            _field("every", pa.float64(), "squared cosine, 0 to 1"),
            _field("shared", pa.float64(), "squared cosine, 0 to 1"),
            _field("flat", pa.float64(), "squared cosine, 0 to 1"),
        ]
    ),
    "samples": pa.schema(
        [
            _field("curvature", pa.float64(), "nats per squared unit of the outputs"),
            _field("along_data", pa.float64(), "units of the inputs"),
            _field("along_weights", pa.float64(), "units of the inputs"),
        ]
    ),
    "law": pa.schema(
        [
            _field("position", pa.float64(), "nats per squared unit of the parameters"),
            _field("density", pa.float64(), "inverse unit of the position"),
            _field("cdf", pa.float64(), "share of the eigenvalues, 0 to 1"),
            _field("plain_density", pa.float64(), "inverse unit of the position"),
            _field("plain_cdf", pa.float64(), "share of the eigenvalues, 0 to 1"),
        ]
    ),
    "law_outliers": pa.schema(
        [
            _field("side", pa.string(), "left or right of the bulk"),
            _field("predicted", pa.float64(), "nats per squared unit of the parameters"),
            _field("measured", pa.float64(), "nats per squared unit of the parameters"),
        ]
    ),
    "spikes": pa.schema(
        [
            _field("num_parameters", pa.int64(), "P"),
            _field("num_samples", pa.int64(), "N"),
            _field("strength", pa.float64(), "population eigenvalue, the others are 1"),
            _field("repeat", pa.int64(), "0 = first"),
            _field("eigenvalue", pa.float64(), "the largest of the sample covariance"),
            _field("overlap", pa.float64(), "squared cosine with the population's direction"),
        ]
    ),
    "spiked_spectra": pa.schema(
        [
            _field("repeat", pa.int64(), "0 = first"),
            _field("rank", pa.int64(), "0 = smallest"),
            _field("eigenvalue", pa.float64(), "of the sample covariance"),
        ]
    ),
}


def package_versions() -> dict[str, str]:
    """Versions of what computes the numbers, for the provenance."""
    names = ("hesspipe", "numpy", "scikit-learn", "scipy", "torch")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


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


def read_result(path: str | Path, kinds: Sequence[str]) -> pd.DataFrame:
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

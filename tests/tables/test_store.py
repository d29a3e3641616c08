"""Result tables keep values, units and provenance, and refuse anything else."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hesspipe.errors import DamagedFileError
from hesspipe.tables.store import (
    SCHEMAS,
    read_either,
    read_outliers,
    read_spectra,
    read_table,
    write_json,
    write_table,
)

REBUILD = "delete it and run the same command again to rebuild it"
ABOUT = {
    "experiment": "slow", "num_classes": 3, "seed": 1, "step": 20, "matrix": "hessian",
    "num_parameters": 3, "num_negative": 1, "num_zero": 0,
}  # fmt: skip
SPECTRUM = pd.DataFrame({"rank": [0, 1, 2], "eigenvalue": [-1e-3, 1 / 3, 2.0]})
OUTLIERS = pd.DataFrame(
    {
        "step": [0, 20, 20, 20],
        "matrix": ["hessian", "hessian", "hessian", "ggn"],
        "rule": ["gap", "gap", "ratio", "gap"],
        "num_outliers": [1, 2, 3, 4],
        "cutoff": [0.5, 0.25, 0.125, 0.0625],
    }
)
HISTORY = pd.DataFrame(
    {
        "step": [0, 10],
        "train_loss": [0.7, 0.1],
        "train_accuracy": [0.5, 1.0],
        "test_loss": [0.7, 0.2],
        "test_accuracy": [0.5, 0.9],
        "gradient_norm": [0.3, 0.01],
    }
)
EIGENPAIRS = pd.DataFrame(
    {
        "end": ["smallest", "largest", "largest"],
        "rank": [0, 7, 8],
        "eigenvalue": [-0.5, 1 / 3, 2.0],
        "residual_norm": [1e-9, 2e-9, 3e-9],
    }
)
DENSITY = pd.DataFrame({"probe": [0, 0, 1], "node": [-0.5, 1 / 3, 2.0], "weight": [0.75, 0.25, 1]})
BY_HAND = {"spectrum": SPECTRUM, "outliers": OUTLIERS, "history": HISTORY, "eigenpairs": EIGENPAIRS,
           "density": DENSITY}  # fmt: skip
TABLES = BY_HAND | {
    kind: pd.DataFrame(
        {
            field.name: ["left", "right"] if field.type == "string" else [0, 1]
            for field in SCHEMAS[kind]
        }
    ).astype({field.name: "float64" for field in SCHEMAS[kind] if field.type == "double"})
    for kind in SCHEMAS.keys() - BY_HAND.keys()
}


@pytest.fixture
def spectrum_file(tmp_path):
    path = tmp_path / "step20_hessian.parquet"
    write_table(SPECTRUM, path, "spectrum", ABOUT)
    return path


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_read_table_gives_what_was_written(tmp_path, kind):
    write_table(TABLES[kind], tmp_path / "table.parquet", kind, ABOUT)
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "table.parquet", kind), TABLES[kind], check_exact=True
    )


def test_read_table_gives_the_provenance(spectrum_file):
    attrs = read_table(spectrum_file, "spectrum").attrs
    assert {key: attrs[key] for key in ABOUT} == ABOUT
    assert attrs["kind"] == "spectrum"
    assert attrs["versions"]["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("kind", "column", "unit"),
    [
        ("spectrum", "rank", "0 = smallest"),
        ("spectrum", "eigenvalue", "nats per squared unit of the parameters"),
        ("outliers", "cutoff", "nats per squared unit of the parameters"),
        ("history", "train_loss", "nats, mean over samples"),
        ("history", "step", "updates"),
    ],
)
def test_write_table_puts_units_into_the_file(tmp_path, kind, column, unit):
    write_table(TABLES[kind], tmp_path / "table.parquet", kind, ABOUT)
    field = pq.read_schema(tmp_path / "table.parquet").field(column)
    assert field.metadata[b"unit"].decode() == unit


def test_write_table_gives_equal_bytes_for_equal_tables(tmp_path, spectrum_file):
    again = tmp_path / "again.parquet"
    shuffled_index = SPECTRUM.set_index(pd.Index([7, 5, 6]))
    write_table(shuffled_index, again, "spectrum", dict(reversed(ABOUT.items())))
    assert again.read_bytes() == spectrum_file.read_bytes()


def test_write_table_gives_other_bytes_for_another_provenance(tmp_path, spectrum_file):
    write_table(SPECTRUM, tmp_path / "other.parquet", "spectrum", ABOUT | {"seed": 2})
    assert (tmp_path / "other.parquet").read_bytes() != spectrum_file.read_bytes()


@pytest.mark.parametrize(
    "table",
    [
        SPECTRUM[["eigenvalue"]],
        SPECTRUM.assign(note="x"),
        SPECTRUM.rename(columns={"eigenvalue": "eigenvalues"}),
        SPECTRUM[["eigenvalue", "rank"]],
    ],
    ids=["missing", "unknown", "misspelled", "another order"],
)
def test_write_table_refuses_other_columns(tmp_path, table):
    with pytest.raises(ValueError, match="must have the columns") as caught:
        write_table(table, tmp_path / "table.parquet", "spectrum", ABOUT)
    assert f"got {list(table.columns)}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "column", "values"),
    [
        ("spectrum", "rank", [0.5, 1.5, 2.5]),
        ("spectrum", "rank", ["zero", "one", "two"]),
        ("spectrum", "rank", [0, 1, None]),
        ("spectrum", "eigenvalue", ["small", "large", "larger"]),
        ("spectrum", "eigenvalue", [0.0, np.nan, 1.0]),
        ("spectrum", "eigenvalue", [0.0, None, 1.0]),
        ("outliers", "matrix", [1, 2, 3, 4]),
        ("outliers", "rule", ["gap", None, "ratio", "gap"]),
        ("outliers", "cutoff", [0.5, 0.25, np.nan, 0.1]),
    ],
)
def test_write_table_refuses_wrong_types_and_missing_values(tmp_path, kind, column, values):
    table = TABLES[kind].assign(**{column: values})
    with pytest.raises(ValueError, match="must fit its schema") as caught:
        write_table(table, tmp_path / "table.parquet", kind, ABOUT)
    assert column in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_write_table_keeps_the_old_file_when_it_refuses(spectrum_file):
    before = spectrum_file.read_bytes()
    with pytest.raises(ValueError, match="must fit its schema"):
        write_table(SPECTRUM.assign(eigenvalue=np.nan), spectrum_file, "spectrum", ABOUT)
    assert spectrum_file.read_bytes() == before


def assert_is_named_damaged(path, kind: str) -> str:
    with pytest.raises(DamagedFileError) as caught:
        read_table(path, kind)
    assert str(caught.value).startswith(f"{path} is damaged or incomplete (")
    assert str(caught.value).endswith(REBUILD)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99, 0.999])
def test_read_table_refuses_a_truncated_file(spectrum_file, share):
    content = spectrum_file.read_bytes()
    spectrum_file.write_bytes(content[: int(share * len(content))])
    assert_is_named_damaged(spectrum_file, "spectrum")


@pytest.mark.parametrize("kind", ["outliers", "history"])
def test_read_table_refuses_another_kind_of_table(spectrum_file, kind):
    said = assert_is_named_damaged(spectrum_file, kind)
    assert f"rank: int64, eigenvalue: double, not those of a {kind} table" in said


def test_read_table_refuses_parquet_without_provenance(tmp_path):
    SPECTRUM.to_parquet(tmp_path / "plain.parquet")
    assert_is_named_damaged(tmp_path / "plain.parquet", "spectrum")


def test_read_table_refuses_columns_of_another_type(spectrum_file):
    content = pq.read_table(spectrum_file)
    narrow = content.cast(content.schema.set(0, content.schema.field(0).with_type(pa.int32())))
    pq.write_table(narrow, spectrum_file)
    assert_is_named_damaged(spectrum_file, "spectrum")


def test_read_table_says_how_to_build_a_missing_file(tmp_path):
    path = tmp_path / "absent.parquet"
    with pytest.raises(FileNotFoundError) as caught:
        read_table(path, "spectrum")
    assert str(caught.value) == f"{path} does not exist; build it with: snakemake {path}"


def write_two(folder, kind: str):
    """Two tables of one kind; the second experiment sorts before the first."""
    paths = [folder / "a.parquet", folder / "b.parquet"]
    write_table(TABLES[kind], paths[0], kind, ABOUT | {"experiment": "late", "num_classes": 9})
    write_table(TABLES[kind], paths[1], kind, ABOUT | {"experiment": "early", "step": 0})
    return paths


def test_read_spectra_labels_each_eigenvalue_in_the_order_of_the_paths(tmp_path):
    table = read_spectra(write_two(tmp_path, "spectrum"))
    expected = {
        "experiment": ["late"] * 3 + ["early"] * 3,
        "seed": [1] * 6,
        "num_classes": [9] * 3 + [3] * 3,
        "num_parameters": [3] * 6,
        "num_negative": [1] * 6,
        "num_zero": [0] * 6,
        "step": [20] * 3 + [0] * 3,
        "matrix": ["hessian"] * 6,
        "rank": [0, 1, 2] * 2,
        "eigenvalue": [-1e-3, 1 / 3, 2.0] * 2,
    }
    assert table.to_dict("list") == expected
    assert list(table.columns) == list(expected)


def test_read_outliers_keeps_the_asked_row_of_each_path(tmp_path):
    table = read_outliers(write_two(tmp_path, "outliers"), 20, "hessian", "ratio")
    assert table.to_dict("list") == {
        "experiment": ["late", "early"],
        "num_classes": [9, 3],
        "step": [20, 20],
        "matrix": ["hessian"] * 2,
        "rule": ["ratio"] * 2,
        "num_outliers": [3, 3],
        "cutoff": [0.125, 0.125],
    }


@pytest.mark.parametrize(
    ("step", "matrix", "rule", "expected"),
    [(0, "hessian", "gap", 1), (20, "hessian", "gap", 2), (20, "ggn", "gap", 4)],
)
def test_read_outliers_picks_by_step_matrix_and_rule(tmp_path, step, matrix, rule, expected):
    table = read_outliers(write_two(tmp_path, "outliers")[:1], step, matrix, rule)
    assert table["num_outliers"].tolist() == [expected]


def test_write_json_keeps_the_order_and_every_digit(tmp_path):
    content = {"zeta": 1 / 3, "alpha": {"gap": 2, "elbow": [1, 5e-324]}}
    write_json(content, tmp_path / "metrics.json")
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text) == content
    assert list(json.loads(text)) == ["zeta", "alpha"]
    assert text.endswith("}\n")


def test_read_either_reads_each_of_the_kinds_that_it_may_be(tmp_path):
    for kind in ("spectrum", "eigenpairs"):
        write_table(TABLES[kind], tmp_path / f"{kind}.parquet", kind, ABOUT)
        table = read_either(tmp_path / f"{kind}.parquet", ["spectrum", "eigenpairs"])
        pd.testing.assert_frame_equal(table, TABLES[kind])
        assert table.attrs["kind"] == kind


def test_read_either_refuses_another_kind_and_a_damaged_file(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(OUTLIERS, path, "outliers", ABOUT)
    with pytest.raises(DamagedFileError, match="of kind outliers, not spectrum or eigenpairs"):
        read_either(path, ["spectrum", "eigenpairs"])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DamagedFileError, match=REBUILD):
        read_either(path, ["outliers"])
    with pytest.raises(FileNotFoundError, match="build it with: snakemake"):
        read_either(tmp_path / "absent.parquet", ["outliers"])


def test_history_may_lack_what_does_not_exist(tmp_path):
    table = HISTORY.assign(test_loss=None, test_accuracy=None, train_accuracy=None)
    write_table(table, tmp_path / "history.parquet", "history", ABOUT)
    again = read_table(tmp_path / "history.parquet", "history")
    assert again["test_loss"].isna().all()
    with pytest.raises(ValueError, match="must fit its schema"):
        write_table(HISTORY.assign(train_loss=None), tmp_path / "x.parquet", "history", ABOUT)

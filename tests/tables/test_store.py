"""Results keep values, units and provenance; wrong tables and damaged files are refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hesspipe.errors import DamagedFileError
from hesspipe.files import write_sealed
from hesspipe.seals import BLANK
from hesspipe.tables.schemas import REQUIRED_PROVENANCE, SCHEMAS
from hesspipe.tables.store import Result, read_result, write_result

REBUILD = "delete it and rebuild it with: snakemake --cores all "
RUN = {
    "experiment": "slow", "num_classes": 3, "seed": 1, "step": 20, "matrix": "hessian",
    "num_parameters": 3, "num_negative": 1, "num_zero": 0,
}  # fmt: skip
# What the other kinds need, so that one provenance serves all of them.
ABOUT = RUN | {
    "num_samples": 9, "group": "network", "name": "slow", "entry": {}, "strengths": [4.0],
    "ranks": {"own": 3}, "first": {}, "second": {}, "upper_edge": 2.0,
    "squared_lengths": [3.0, 2.5], "eps": 2.0**-52, "asymmetry": 0.0,
    "unit": 1.0, "num_products": 90, "names": {}, "sizes": {}, "groups": {}, "failures": {},
    "height": 1.0, "place": 0.5, "rise": 1.0, "quantity": "Count", "confidence": 0.9,
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
DENSITY = pd.DataFrame({"probe": [0, 0, 1], "node": [-0.5, 1 / 3, 2.0], "weight": [0.75, 0.25, 1],
                        "coupling": [0.1, -0.2, 0.0]})  # fmt: skip
BY_HAND = {"spectrum": SPECTRUM, "outliers": OUTLIERS, "history": HISTORY, "eigenpairs": EIGENPAIRS,
           "density": DENSITY}  # fmt: skip
COLUMNS = {
    "string": pd.Series(["left", "right"]),
    "int64": pd.Series([0, 1]),
    "double": pd.Series([0.0, 1.0]),
    "bool": pd.Series([True, False]),
}
TABLES = BY_HAND | {
    kind: pd.DataFrame({field.name: COLUMNS[str(field.type)] for field in SCHEMAS[kind]})
    for kind in SCHEMAS.keys() - BY_HAND.keys()
}


@pytest.fixture
def spectrum_file(tmp_path):
    path = tmp_path / "step20_hessian.parquet"
    write_result(Result("spectrum", SPECTRUM, ABOUT), path)
    return path


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_read_result_gives_what_was_written(tmp_path, kind):
    write_result(Result(kind, TABLES[kind], ABOUT), tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(
        read_result(tmp_path / "table.parquet", kind).table, TABLES[kind], check_exact=True
    )


def test_read_result_gives_the_provenance(spectrum_file):
    result = read_result(spectrum_file)
    provenance = dict(result.provenance)
    assert result.kind == "spectrum"
    assert provenance.pop("versions")["numpy"] == np.__version__
    assert provenance == ABOUT


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
def test_write_result_puts_units_into_the_file(tmp_path, kind, column, unit):
    write_result(Result(kind, TABLES[kind], ABOUT), tmp_path / "table.parquet")
    field = pq.read_schema(tmp_path / "table.parquet").field(column)
    assert field.metadata[b"unit"].decode() == unit


def test_write_result_gives_equal_bytes_for_equal_tables(tmp_path, spectrum_file):
    again = tmp_path / "again.parquet"
    shuffled_index = SPECTRUM.set_index(pd.Index([7, 5, 6]))
    write_result(Result("spectrum", shuffled_index, dict(reversed(ABOUT.items()))), again)
    assert again.read_bytes() == spectrum_file.read_bytes()


def test_write_result_gives_other_bytes_for_another_provenance(tmp_path, spectrum_file):
    write_result(Result("spectrum", SPECTRUM, ABOUT | {"seed": 2}), tmp_path / "other.parquet")
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
def test_write_result_refuses_other_columns(tmp_path, table):
    with pytest.raises(ValueError, match="must have the columns") as caught:
        write_result(Result("spectrum", table, ABOUT), tmp_path / "table.parquet")
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
def test_write_result_refuses_wrong_types_and_missing_values(tmp_path, kind, column, values):
    table = TABLES[kind].assign(**{column: values})
    with pytest.raises(ValueError, match="must fit its schema") as caught:
        write_result(Result(kind, table, ABOUT), tmp_path / "table.parquet")
    assert column in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_write_result_keeps_the_old_file_when_it_refuses(spectrum_file):
    before = spectrum_file.read_bytes()
    with pytest.raises(ValueError, match="must fit its schema"):
        write_result(Result("spectrum", SPECTRUM.assign(eigenvalue=np.nan), ABOUT), spectrum_file)
    assert spectrum_file.read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, keys in REQUIRED_PROVENANCE.items() for key in keys]
)
def test_write_result_refuses_a_provenance_that_lacks_what_readers_need(tmp_path, kind, key):
    provenance = {name: ABOUT[name] for name in ABOUT if name != key}
    with pytest.raises(ValueError, match=f"of a {kind} table must have {key}, got "):
        write_result(Result(kind, TABLES[kind], provenance), tmp_path / "table.parquet")
    assert list(tmp_path.iterdir()) == []


def test_write_result_refuses_an_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match=r"kind must be one of .*, got 'spectra'"):
        write_result(Result("spectra", SPECTRUM, ABOUT), tmp_path / "table.parquet")


def test_write_result_stores_the_present_versions_of_a_result_that_was_read(spectrum_file):
    before = spectrum_file.read_bytes()
    result = read_result(spectrum_file)
    old = Result(result.kind, result.table, result.provenance | {"versions": {"numpy": "1.0"}})
    write_result(old, spectrum_file)
    assert spectrum_file.read_bytes() == before


def assert_is_named_damaged(path, kind: str) -> str:
    with pytest.raises(DamagedFileError) as caught:
        read_result(path, kind)
    assert str(caught.value).startswith(f"{path} is damaged or incomplete (")
    assert str(caught.value).endswith(f"{REBUILD}{path}")
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99, 0.999])
def test_read_result_refuses_a_truncated_file(spectrum_file, share):
    content = spectrum_file.read_bytes()
    spectrum_file.write_bytes(content[: int(share * len(content))])
    assert_is_named_damaged(spectrum_file, "spectrum")


@pytest.mark.parametrize("kind", ["outliers", "history"])
def test_read_result_refuses_another_kind(spectrum_file, kind):
    said = assert_is_named_damaged(spectrum_file, kind)
    assert f"it is of kind spectrum, not {kind}" in said


def test_read_result_refuses_parquet_without_provenance(tmp_path):
    SPECTRUM.to_parquet(tmp_path / "plain.parquet")
    assert_is_named_damaged(tmp_path / "plain.parquet", "spectrum")


def test_read_result_refuses_columns_of_another_type(spectrum_file):
    content = pq.read_table(spectrum_file)
    narrow = content.cast(content.schema.set(0, content.schema.field(0).with_type(pa.int32())))
    metadata = {**narrow.schema.metadata, "digest": BLANK}
    pq.write_table(narrow.replace_schema_metadata(metadata), spectrum_file)
    write_sealed(spectrum_file.read_bytes(), spectrum_file)
    said = assert_is_named_damaged(spectrum_file, "spectrum")
    assert "rank: int32, eigenvalue: double, not those of a spectrum table" in said


def test_read_result_says_how_to_build_a_missing_file(tmp_path):
    path = tmp_path / "absent.parquet"
    with pytest.raises(FileNotFoundError) as caught:
        read_result(path, "spectrum")
    assert (
        str(caught.value) == f"{path} does not exist; build it with: snakemake --cores all {path}"
    )


def test_read_result_reads_each_of_the_kinds_that_it_may_be(tmp_path):
    for kind in ("spectrum", "eigenpairs"):
        write_result(Result(kind, TABLES[kind], ABOUT), tmp_path / f"{kind}.parquet")
        result = read_result(tmp_path / f"{kind}.parquet", ["spectrum", "eigenpairs"])
        pd.testing.assert_frame_equal(result.table, TABLES[kind])
        assert result.kind == kind


def test_read_result_refuses_another_kind_and_a_damaged_file(tmp_path):
    path = tmp_path / "table.parquet"
    write_result(Result("outliers", OUTLIERS, ABOUT), path)
    with pytest.raises(DamagedFileError, match="of kind outliers, not spectrum or eigenpairs"):
        read_result(path, ["spectrum", "eigenpairs"])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DamagedFileError, match=REBUILD):
        read_result(path, ["outliers"])
    with pytest.raises(FileNotFoundError, match="build it with: snakemake"):
        read_result(tmp_path / "absent.parquet", ["outliers"])


def test_history_may_lack_what_does_not_exist(tmp_path):
    table = HISTORY.assign(test_loss=None, test_accuracy=None, train_accuracy=None)
    write_result(Result("history", table, ABOUT), tmp_path / "history.parquet")
    again = read_result(tmp_path / "history.parquet", "history").table
    assert again["test_loss"].isna().all()
    with pytest.raises(ValueError, match="must fit its schema"):
        write_result(
            Result("history", HISTORY.assign(train_loss=None), ABOUT), tmp_path / "x.parquet"
        )

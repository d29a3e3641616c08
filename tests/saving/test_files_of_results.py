"""Saved results come back to the last bit, as equal bytes, and the pipeline's figures take them."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

import hesspipe
from hesspipe.errors import DamagedFileError, UnreadableFileError, UnwritableFileError
from hesspipe.experiments.curves import smooth_densities
from hesspipe.experiments.outliers import count_outliers
from hesspipe.figures import (
    densities,
    endpoints,
    layers,
    negative_part,
    ordered,
    outliers,
    over_training,
    overlay,
    right_edge,
)
from hesspipe.files import write_sealed
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.spectral_density import Density
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.linalg.trace import Estimate, NormEstimates
from hesspipe.seals import BLANK
from hesspipe.tables.store import Result, read_result

OFTEN = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(0, 1e300)


def vectors(size: int) -> st.SearchStrategy[Tensor]:
    return arrays(np.float64, size, elements=NUMBERS).map(torch.from_numpy)


@st.composite
def spectra(draw: st.DrawFn) -> Spectrum:
    size = draw(st.integers(1, 9))
    values = draw(vectors(size)).sort().values
    num_negative = draw(st.integers(0, size))
    num_zero = draw(st.integers(0, size - num_negative))
    return Spectrum(values, num_negative, num_zero, size - num_negative - num_zero, draw(POSITIVE),
                    draw(POSITIVE), draw(st.sampled_from(["hessian", "ggn", "operator"])),
                    "layers", draw(st.text()), {"num_data": 3})  # fmt: skip


@st.composite
def eigenpairs(draw: st.DrawFn) -> Eigenpairs:
    size, num_smallest, num_largest = draw(st.tuples(*[st.integers(1, 6)] * 3))
    num_smallest, num_largest = num_smallest - 1, num_largest - 1
    count = num_smallest + num_largest
    size += count
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = 8 * np.dtype(dtype).itemsize
    entries = st.floats(allow_nan=False, allow_infinity=False, width=width)
    matrix = torch.from_numpy(draw(arrays(dtype, (size, count), elements=entries)))
    return Eigenpairs(draw(vectors(count)).sort().values, matrix, draw(vectors(count)), 17, "ggn",
                      num_smallest, num_largest)  # fmt: skip


@st.composite
def density_results(draw: st.DrawFn) -> Density:
    num_probes, num_steps = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    shape = (num_probes, num_steps)
    nodes, weights, couplings = (
        draw(vectors(num_probes * num_steps)).view(shape) for _ in range(3)
    )
    overlaps = draw(vectors((num_probes - 1) * num_steps)).view(num_probes - 1, num_steps)
    return Density(nodes.sort(dim=1).values, weights, couplings, draw(vectors(num_probes)),
                   overlaps, 50, "residual", 21, draw(POSITIVE), draw(POSITIVE))  # fmt: skip


@st.composite
def norms(draw: st.DrawFn) -> NormEstimates:
    estimates = [Estimate(draw(NUMBERS), draw(POSITIVE)) for _ in range(2)]
    return NormEstimates(*estimates, 2.0 ** draw(st.integers(-300, 300)), 90, "hessian", 12)


def require_equal(found: Any, expected: Any) -> None:
    """Compare all fields but the provenance, tensors bit by bit, dtypes and strides aside."""
    assert type(found) is type(expected)
    for each in fields(expected):
        mine, other = getattr(found, each.name), getattr(expected, each.name)
        if isinstance(other, Tensor):
            assert mine.dtype == other.dtype
            assert mine.shape == other.shape, each.name
            assert mine.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
        elif each.name != "provenance":
            assert mine == other, each.name
            assert type(mine) is type(other)


@OFTEN
@given(result=st.one_of(spectra(), eigenpairs(), density_results(), norms()))
def test_load_returns_what_was_saved_to_the_last_bit(tmp_path: Path, result: Any) -> None:
    path = tmp_path / "result.parquet"
    hesspipe.save(result, path)
    found = hesspipe.load(path)
    require_equal(found, result)
    assert result.provenance.items() <= found.provenance.items()
    first = path.read_bytes()
    hesspipe.save(result, path)
    assert path.read_bytes() == first
    hesspipe.save(found, path)
    assert path.read_bytes() == first


@pytest.fixture(scope="module")
def objective() -> hesspipe.Objective:
    generator = torch.Generator().manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    inputs = torch.randn(20, 3, generator=generator)
    targets = torch.randint(3, (20,), generator=generator)
    return hesspipe.Objective(model, torch.nn.CrossEntropyLoss(), (inputs, targets))


@pytest.fixture(scope="module")
def results(objective: hesspipe.Objective) -> dict[str, Any]:
    return {
        "spectrum": hesspipe.spectrum(objective),
        "eigenpairs": hesspipe.eigenpairs(objective, "ggn", 2, 3),
        "density": hesspipe.density(objective, num_steps=20, seed=5),
        "norms": hesspipe.estimate_norms(objective, num_products=30, seed=6),
    }


@pytest.fixture(scope="module")
def paths(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    for kind, result in results.items():
        hesspipe.save(result, folder / f"{kind}.parquet", experiment="mine", step=7, num_classes=3)
    return {kind: folder / f"{kind}.parquet" for kind in results}


def test_saved_file_says_what_decided_the_numbers(paths: dict[str, Path]) -> None:
    for kind, path in paths.items():
        about = read_result(path, kind).provenance
        assert (about["experiment"], about["step"], about["num_classes"]) == ("mine", 7, 3)
        assert about["matrix"] == ("ggn" if kind == "eigenpairs" else "hessian")
        assert (about["num_parameters"], about["num_data"]) == (31, 20)
        assert about["versions"]["torch"] == torch.__version__
        assert about["dtype"] == "float64"
    for kind, seed in (("density", 5), ("norms", 6), ("eigenpairs", 0)):
        assert read_result(paths[kind]).provenance[kind]["seed"] == seed


def test_loaded_density_counts_as_exactly_as_before(
    results: dict[str, Any], paths: dict[str, Path]
) -> None:
    found = hesspipe.load(paths["density"])
    assert found.count(low=0.05) == results["density"].count(low=0.05)
    assert found.moment(2) == results["density"].moment(2)


def test_pandas_reads_what_was_saved(results: dict[str, Any], paths: dict[str, Path]) -> None:
    table = pd.read_parquet(paths["spectrum"])
    assert table["eigenvalue"].tolist() == results["spectrum"].eigenvalues.tolist()
    assert table["rank"].tolist() == list(range(31))
    vectors = np.stack(pd.read_parquet(paths["eigenpairs"])["eigenvector"].tolist())
    assert (vectors == results["eigenpairs"].eigenvectors.T.numpy()).all()


@pytest.mark.parametrize("is_loaded", [True, False])
def test_figures_take_what_was_saved_and_what_was_loaded(
    paths: dict[str, Path], is_loaded: bool, tmp_path: Path
) -> None:
    read: Any = hesspipe.load if is_loaded else read_result
    spectrum, pairs = read(paths["spectrum"]), read(paths["eigenpairs"])
    curves = smooth_densities(
        [paths["density"]], kind="densities", relative_width=0.05, num_points=30
    )
    ends = {"num_largest": 3, "num_smallest": 2}
    counts = count_outliers([paths["spectrum"]], rules=["gap", "ratio"], num_candidates=9)
    drawn = [
        ordered.make_figure([spectrum], {}),
        endpoints.make_figure([spectrum], {"num_largest": 3}),
        right_edge.make_figure([spectrum], {"num_largest": 3, "labels": ["mine"]}),
        negative_part.make_figure([spectrum], {"labels": ["mine"]}),
        overlay.make_figure([spectrum, pairs], ends),
        over_training.make_figure([spectrum, spectrum], ends),
        densities.make_figure([curves], {}),
        layers.make_figure([curves], {"titles": {"network": "network"}}),
        outliers.make_figure(
            [spectrum, counts], {"step": 7, "matrix": "hessian", "num_largest": 9}
        ),
    ]
    assert all(any(axes.lines for axes in figure.axes) for figure in drawn)


def test_load_gives_tables_of_other_kinds_as_they_are(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    counts = count_outliers([paths["spectrum"]], rules=["gap"], num_candidates=9)
    hesspipe.save(counts, tmp_path / "counts.parquet")
    found = hesspipe.load(tmp_path / "counts.parquet")
    assert isinstance(found, Result)
    pd.testing.assert_frame_equal(found.table, counts.table)
    assert "num_rows=1" in repr(found)


@st.composite
def layers_of_any_kind(draw: st.DrawFn) -> hesspipe.LayerSpectra:
    found = draw(st.lists(st.one_of(spectra(), eigenpairs(), density_results()), max_size=4))
    precisions = {str(each.eigenvectors.dtype) for each in found if isinstance(each, Eigenpairs)}
    if len(precisions) > 1:  # the layers of an objective have one
        found = [each for each in found if not isinstance(each, Eigenpairs)]
    results = {f"layer {number}": each for number, each in enumerate(found)}
    failures = {"last": hesspipe.TooLargeError("too large")} if draw(st.booleans()) else {}
    groups = [*results, *failures]
    return hesspipe.LayerSpectra("ggn", {group: [f"{group}.weight"] for group in groups},
                                 dict.fromkeys(groups, 5), results, failures)  # fmt: skip


@OFTEN
@given(found=layers_of_any_kind())
def test_load_returns_the_spectra_of_layers_to_the_last_bit(
    tmp_path: Path, found: hesspipe.LayerSpectra
) -> None:
    path = tmp_path / "layers.parquet"
    hesspipe.save(found, path)
    again = hesspipe.load(path)
    assert (again.names, again.num_parameters) == (found.names, found.num_parameters)
    assert list(again) == list(found)
    for group in found:
        require_equal(again[group], found[group])
    assert list(again.failures) == list(found.failures)
    for group, error in found.failures.items():
        assert type(again.failures[group]) is type(error)
        assert str(again.failures[group]) == str(error)
    first = path.read_bytes()
    hesspipe.save(again, path)
    assert path.read_bytes() == first


def test_save_takes_an_object_that_has_a_result(paths: dict[str, Path], tmp_path: Path) -> None:
    class Monitor:
        result = read_result(paths["spectrum"])

    hesspipe.save(Monitor(), tmp_path / "monitor.parquet")
    assert (tmp_path / "monitor.parquet").read_bytes() == paths["spectrum"].read_bytes()


def test_eigenpairs_without_vectors_are_loaded_without(
    results: dict[str, Any], tmp_path: Path
) -> None:
    found = results["eigenpairs"]
    values = replace(found, eigenvectors=found.eigenvectors[:, :0])
    hesspipe.save(values, tmp_path / "values.parquet")
    require_equal(hesspipe.load(tmp_path / "values.parquet"), values)


@pytest.mark.parametrize("kind", ["spectrum", "eigenpairs", "density", "norms"])
def test_results_are_copied_and_pickled(results: dict[str, Any], kind: str) -> None:
    result = results[kind]
    require_equal(copy.deepcopy(result), result)
    require_equal(pickle.loads(pickle.dumps(result)), result)


def rewritten(path: Path, to: Path, **changes: Any) -> Path:
    """Copy a file with other provenance, sealed as another version would write it."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"hesspipe"]) | changes
    for key in [key for key, value in changes.items() if value is None]:
        del about[key]
    table = table.replace_schema_metadata({"hesspipe": json.dumps(about)})
    with pq.ParquetWriter(to, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"digest": BLANK})
    write_sealed(to.read_bytes(), to)
    return to


def test_load_names_the_version_that_wrote_an_unknown_table(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    newer = {"hesspipe": "99.0"}
    path = rewritten(paths["spectrum"], tmp_path / "new.parquet", kind="fisher", versions=newer)
    with pytest.raises(DamagedFileError, match=r"unknown kind fisher; hesspipe 99\.0 wrote it"):
        hesspipe.load(path)
    rewritten(paths["spectrum"], path, kind="density", versions=newer)
    with pytest.raises(DamagedFileError, match=r"not those of a density table; hesspipe 99\.0"):
        hesspipe.load(path)


def test_load_names_what_a_provenance_lacks(paths: dict[str, Path], tmp_path: Path) -> None:
    path = rewritten(paths["spectrum"], tmp_path / "less.parquet", certificate=None)
    with pytest.raises(DamagedFileError, match="its provenance lacks 'certificate'"):
        hesspipe.load(path)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_load_refuses_a_changed_byte_in_one_line(
    paths: dict[str, Path], tmp_path: Path, place: float
) -> None:
    content = bytearray(paths["eigenpairs"].read_bytes())
    content[int(place * len(content))] ^= 1
    path = tmp_path / "changed.parquet"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"does not match the SHA-256|no SHA-256") as caught:
        hesspipe.load(path)
    assert str(caught.value).count("damaged") == 1
    assert "take it from a backup, or compute it and save it again" in str(caught.value)


def test_load_refuses_other_files(tmp_path: Path) -> None:
    pd.DataFrame({"rank": [0]}).to_parquet(tmp_path / "foreign.parquet")
    (tmp_path / "empty.parquet").touch()
    for name, reason in (("foreign", "no SHA-256"), ("empty", "it is empty")):
        with pytest.raises(DamagedFileError, match=reason):
            hesspipe.load(tmp_path / f"{name}.parquet")
    with pytest.raises(FileNotFoundError, match="does not exist; save a result to it first"):
        hesspipe.load(tmp_path / "missing.parquet")


def test_folder_in_place_of_the_file_is_named(results: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    with pytest.raises(UnwritableFileError, match="it is a folder, and must be a file"):
        hesspipe.save(results["norms"], folder)
    with pytest.raises(UnreadableFileError, match="it is a folder, and must be a file"):
        hesspipe.load(folder)


def test_save_refuses_other_suffixes_objects_and_numbers(
    results: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"path must end in \.parquet, got 'spectrum.pt'"):
        hesspipe.save(results["spectrum"], "spectrum.pt")
    with pytest.raises(ValueError, match=r"path must end in \.parquet"):
        hesspipe.load(tmp_path)
    with pytest.raises(TypeError, match="path must be a str or Path, got int"):
        hesspipe.save(results["spectrum"], 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"result must be one of Spectrum, .* got Tensor"):
        hesspipe.save(torch.zeros(3), tmp_path / "tensor.parquet")
    unbounded = replace(results["spectrum"], error_bound=math.inf)
    with pytest.raises(ValueError, match="error_bound of a spectrum table must be finite"):
        hesspipe.save(unbounded, tmp_path / "unbounded.parquet")
    assert not list(tmp_path.iterdir())


def test_save_names_missing_packages(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match="save needs pyarrow, not installed here"):
        hesspipe.save(results["spectrum"], tmp_path / "result.parquet")
    with pytest.raises(ModuleNotFoundError, match="load needs pyarrow, not installed here"):
        hesspipe.load(tmp_path / "result.parquet")

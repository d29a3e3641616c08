"""Densities and eigenpairs of a network and of its parts, against dense matrices."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hesspipe.curvature.dense import hessian_matrix
from hesspipe.data.dataset import write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.experiments.loading import load_objective
from hesspipe.experiments.matrix_free import estimate_density, find_eigenpairs
from hesspipe.experiments.outliers import count_by_rules
from hesspipe.experiments.spectra import extract_spectrum
from hesspipe.experiments.training import TrainingRun
from hesspipe.tables.store import Result, read_result, write_result

NETS = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))

def points():
    inputs = torch.randn(30, 3)
    return inputs, (inputs[:, 0] > 0).long()
"""
MODEL: dict[str, Any] = {
    "kind": "user", "function": "my_free_nets:build", "arguments": {},
    "loss": "torch.nn:CrossEntropyLoss", "loss_arguments": {},
}  # fmt: skip
TRAINING = {
    "algorithm": "sgd", "batch_size": 10, "step_size": 0.5, "num_steps": 30, "record_every": 30,
    "checkpoint_every": 30, "dtype": "float64",
}  # fmt: skip
PRECISION: dict[str, Any] = {"dtype": "float64", "batch_size": 7}
DENSITY = {"num_probes": 3, "num_steps": 80, "seed": 0}
EIGENPAIRS = {
    "num_smallest": 3, "num_largest": 8, "tolerance": 1e-10, "max_products": 2000, "seed": 0,
}  # fmt: skip
NETWORK: dict[str, Any] = {
    "path_to_dataset": "data.safetensors", "path_to_checkpoint": "step30.safetensors",
    "model": MODEL,
}  # fmt: skip
EPS = np.finfo(np.float64).eps


@pytest.fixture(autouse=True)
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_free_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    data = make_dataset(kind="user", function="my_free_nets:points", arguments={})
    write_dataset(data, NETWORK["path_to_dataset"])
    run = TrainingRun(
        path_to_dataset=NETWORK["path_to_dataset"], experiment="mine", seed=0, model=MODEL,
        training=TRAINING,
    )  # fmt: skip
    run.train(progress=False)
    run.collect_checkpoints([NETWORK["path_to_checkpoint"]])
    yield
    sys.modules.pop("my_free_nets", None)


def density(matrix: str, patterns: list[str] | None, **changes: Any) -> Result:
    return estimate_density(
        **NETWORK, **PRECISION | changes, matrix=matrix, group="any", patterns=patterns,
        density=DENSITY,
    )  # fmt: skip


def pairs(matrix: str, user_code: Sequence[str] = (), **changes: Any) -> Result:
    with find_eigenpairs(
        **NETWORK, **PRECISION | changes, matrix=matrix, eigenpairs=EIGENPAIRS, user_code=user_code
    ) as result:
        return result


def spectrum(matrix: str) -> Result:
    return extract_spectrum(**NETWORK, matrix=matrix, zero_tolerance=1.0)


@pytest.mark.parametrize(
    ("patterns", "num_parameters"), [(None, 38), (["0.*"], 24), (["2.weight", "0.bias"], 18)]
)
def test_density_of_a_part_is_that_of_its_diagonal_block(
    patterns: list[str] | None, num_parameters: int
) -> None:
    result = density("hessian", patterns)
    table = result.table
    objective, _ = load_objective(**NETWORK, parameters=patterns)
    kept = objective.is_varied
    block = hessian_matrix(objective)[kept][:, kept]
    exact = torch.linalg.eigvalsh(block).numpy()
    assert result.provenance["num_parameters"] == len(exact) == num_parameters
    # With as many steps as rows, the nodes that have weight are the eigenvalues themselves.
    seen = table[table["weight"] > 1e-6]
    distances = np.abs(seen["node"].to_numpy()[:, None] - exact).min(1)
    assert distances.max() <= 1e-7 * np.abs(exact).max()
    sums = table.groupby("probe")["weight"].sum()
    np.testing.assert_allclose(sums, 1.0, rtol=0, atol=1e-12)
    # v^T B v of each probe is its first moment: on average the trace divided by the size.
    moments = (table["node"] * table["weight"]).groupby(table["probe"]).sum()
    error = moments.std() / len(moments) ** 0.5
    assert abs(moments.mean() - float(block.trace()) / len(block)) <= 4 * error


def test_density_is_stored_as_it_is(tmp_path: Path) -> None:
    result = density("ggn", None)
    write_result(result, tmp_path / "d.parquet")
    again = read_result(tmp_path / "d.parquet", "density")
    nodes = result.table["node"]
    assert (again.table["node"] == nodes).all()
    assert again.provenance["matrix"] == "ggn"
    assert nodes.min() >= -1e3 * EPS * nodes.max()


def test_eigenpairs_are_the_ends_of_the_exact_spectrum() -> None:
    result = pairs("hessian")
    table, exact = result.table, spectrum("hessian").table
    expected = exact.set_index("rank").loc[table["rank"], "eigenvalue"].to_numpy()
    largest = np.abs(expected).max()
    assert np.abs(table["eigenvalue"].to_numpy() - expected).max() <= 1e-9 * largest
    assert table["residual_norm"].max() <= 1e-9 * largest
    assert table["end"].value_counts().to_dict() == {"largest": 8, "smallest": 3}
    assert result.provenance["num_products"] > 0
    assert not list(Path(".hesspipe/eigenpairs").iterdir())


def test_eigenpairs_of_the_ggn_are_its_largest() -> None:
    table = pairs("ggn").table  # most of its other eigenvalues are zeros
    exact = spectrum("ggn").table["eigenvalue"].sort_values().to_numpy()
    assert set(table["end"]) == {"largest"}
    found = table["eigenvalue"].sort_values().to_numpy()
    np.testing.assert_allclose(found, exact[-8:], rtol=0, atol=1e-9 * exact[-1])


def test_unfinished_search_is_known_by_all_that_decides_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states: list[Path] = []

    def stop(*_: Any, state: Path, **__: Any) -> None:
        states.append(state)
        raise InterruptedError

    monkeypatch.setattr("hesspipe.experiments.matrix_free.find", stop)

    def search(matrix: str = "hessian", **changes: Any) -> None:
        with pytest.raises(InterruptedError):
            pairs(matrix, ["my_free_nets.py"], **changes)

    search()
    search()
    assert states[0] == states[1]
    search("ggn")
    search(batch_size=5)
    Path("my_free_nets.py").write_text(NETS + "# edited\n")
    search()
    assert len(set(states)) == 4


def test_outliers_are_the_same_from_the_ends_as_from_all_eigenvalues() -> None:
    ends, whole = pairs("hessian"), spectrum("hessian")
    rules = ["gap", "ratio", "elbow"]
    counts, expected = (count_by_rules(found, rules, 8) for found in (ends, whole))
    assert counts["num_outliers"].tolist() == expected["num_outliers"].tolist()
    np.testing.assert_allclose(counts["cutoff"], expected["cutoff"], rtol=1e-8)
    with pytest.raises(ValueError, match="num_candidates must be at most 8"):
        count_by_rules(ends, rules, 9)


def test_precision_is_what_the_settings_say() -> None:
    assert density("hessian", None, dtype="float32").provenance["dtype"] == "float32"


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("0.weigh", "0.weight"), ("3.*", "2."), ("2.biases", "2.bias"), ("layer", "0.weight")],
)
def test_pattern_that_matches_no_parameter_is_refused_with_the_nearest_names(
    pattern: str, nearest: str
) -> None:
    message = rf"parameters must match the model's, got '{re.escape(pattern)}'; .*are .*{nearest}"
    with pytest.raises(ValueError, match=message):
        density("hessian", ["0.bias", pattern])

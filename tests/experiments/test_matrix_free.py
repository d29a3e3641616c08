"""What is found without the matrix is what the matrix has, of a network and of its parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hesspipe.curvature.dense import hessian_matrix
from hesspipe.experiments.matrix_free import density_table, eigenpairs_table
from hesspipe.experiments.spectra import load_objective, spectrum_table
from hesspipe.experiments.training import TrainingRun
from hesspipe.networks.build import make_own_dataset
from hesspipe.tables.outliers import count_by_rules
from hesspipe.tables.store import read_table, write_table

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
    "kind": "own", "function": "my_free_nets:build", "arguments": {},
    "loss": "torch.nn:CrossEntropyLoss", "loss_arguments": {},
}  # fmt: skip
TRAINING = {
    "algorithm": "sgd", "batch_size": 10, "step_size": 0.5, "num_steps": 30, "record_every": 30,
    "checkpoint_every": 30, "dtype": "float64",
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "dtype": "float64", "batch_size": 7,
    "density": {"num_probes": 3, "num_steps": 80, "seed": 0},
    "eigenpairs": {
        "num_smallest": 3, "num_largest": 8, "tolerance": 1e-10, "max_products": 2000, "seed": 0,
    },
}  # fmt: skip
NETWORK = Path("data.safetensors"), Path("step30.safetensors")
EPS = np.finfo(np.float64).eps


@pytest.fixture(autouse=True)
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_free_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    from hesspipe.data.dataset import write_dataset

    settings = {"kind": "own", "function": "my_free_nets:points", "arguments": {}}
    write_dataset(make_own_dataset(settings), NETWORK[0])
    run = TrainingRun(NETWORK[0], "mine", 0, MODEL, TRAINING)
    run.train(progress=False)
    run.collect_checkpoints([NETWORK[1]])
    yield
    sys.modules.pop("my_free_nets", None)


@pytest.mark.parametrize(
    ("patterns", "num_parameters"), [(None, 38), (["0.*"], 24), (["2.weight", "0.bias"], 18)]
)
def test_density_of_a_part_is_that_of_its_diagonal_block(
    patterns: list[str] | None, num_parameters: int
) -> None:
    table, about = density_table(*NETWORK, "hessian", patterns, MODEL, SETTINGS)
    objective, _ = load_objective(*NETWORK, MODEL, parameters=patterns)
    kept = objective.is_varied
    block = hessian_matrix(objective)[kept][:, kept]
    exact = torch.linalg.eigvalsh(block).numpy()
    assert about["num_parameters"] == len(exact) == num_parameters
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
    table, about = density_table(*NETWORK, "ggn", None, MODEL, SETTINGS)
    write_table(table, tmp_path / "d.parquet", "density", about | {"group": "network"})
    again = read_table(tmp_path / "d.parquet", "density")
    assert (again["node"] == table["node"]).all()
    assert again.attrs["matrix"] == "ggn"
    assert table["node"].min() >= -1e3 * EPS * table["node"].max()


def test_eigenpairs_are_the_ends_of_the_exact_spectrum() -> None:
    table, about = eigenpairs_table(*NETWORK, "hessian", MODEL, SETTINGS)
    exact, _ = spectrum_table(*NETWORK, "hessian", MODEL, zero_tolerance=1.0)
    expected = exact.set_index("rank").loc[table["rank"], "eigenvalue"].to_numpy()
    largest = np.abs(expected).max()
    assert np.abs(table["eigenvalue"].to_numpy() - expected).max() <= 1e-9 * largest
    assert table["residual_norm"].max() <= 1e-9 * largest
    assert table["end"].value_counts().to_dict() == {"largest": 8, "smallest": 3}
    assert about["num_products"] > 0
    assert not list(Path(".hesspipe/eigenpairs").iterdir())


def test_unfinished_search_is_known_by_all_that_decides_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states: list[Path] = []

    def stop(*_: Any, state: Path, **__: Any) -> None:
        states.append(state)
        raise InterruptedError

    monkeypatch.setattr("hesspipe.experiments.matrix_free.eigenpairs", stop)

    def search(matrix: str = "hessian", **changes: Any) -> None:
        with pytest.raises(InterruptedError):
            eigenpairs_table(*NETWORK, matrix, MODEL, SETTINGS | changes, ["my_free_nets.py"])

    search()
    search()
    assert states[0] == states[1]
    search("ggn")
    search(batch_size=5)
    Path("my_free_nets.py").write_text(NETS + "# edited\n")
    search()
    assert len(set(states)) == 4


def test_outliers_are_the_same_from_the_ends_as_from_all_eigenvalues() -> None:
    ends, about = eigenpairs_table(*NETWORK, "hessian", MODEL, SETTINGS)
    whole, about_whole = spectrum_table(*NETWORK, "hessian", MODEL, zero_tolerance=1.0)
    ends.attrs, whole.attrs = about, about_whole
    rules = ["gap", "ratio", "elbow"]
    counts, expected = (count_by_rules(table, rules, 8) for table in (ends, whole))
    assert counts["num_outliers"].tolist() == expected["num_outliers"].tolist()
    np.testing.assert_allclose(counts["cutoff"], expected["cutoff"], rtol=1e-8)
    with pytest.raises(ValueError, match="num_candidates must be at most 8"):
        count_by_rules(ends, rules, 9)


def test_precision_is_what_the_settings_say() -> None:
    _, about = density_table(*NETWORK, "hessian", None, MODEL, SETTINGS | {"dtype": "float32"})
    assert about["dtype"] == "float32"

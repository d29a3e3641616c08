"""What does not fit into memory is refused before it is allocated; what is not finite, also."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import hesspipe
from hesspipe import hardware
from hesspipe.data.clusters import gaussian_clusters
from hesspipe.data.dataset import Dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.errors import TooLargeError
from hesspipe.experiments.curves import smooth
from hesspipe.experiments.linear_models import linear_model
from hesspipe.experiments.loading import load_data
from hesspipe.experiments.training import TrainingRun
from hesspipe.random_matrices.sampling import sample_largest, sample_spectra
from hesspipe.tables.schemas import REQUIRED_PROVENANCE
from hesspipe.tables.store import Result, write_result

CLUSTERS: dict[str, Any] = {
    "num_clusters": 2, "cluster_std": 1.0, "num_features": 100, "center_low": -1.0,
    "center_high": 1.0, "num_train": 1000, "num_test": 1000, "seed": 0,
}  # fmt: skip
LINEAR: dict[str, Any] = {
    "model": "logistic", "num_features": 300, "num_samples": 300, "signal": 1.0,
    "initial_norm": 1.0, "step_size": 0.1, "num_steps": 0, "seed": 0,
}  # fmt: skip


def stored(folder: Path) -> Path:
    inputs = torch.zeros(50, 1000, dtype=torch.float64)
    targets = torch.arange(50) % 2
    write_dataset(Dataset(inputs, targets, inputs[:0], targets[:0], 2), folder / "data")
    return folder / "data"


def train(folder: Path) -> None:
    TrainingRun(
        path_to_dataset=stored(folder),
        experiment="wide",
        seed=0,
        model={
            "kind": "mlp", "hidden_widths": [300], "activation": "relu", "initial_std": 0.1
        },
        training={
            "algorithm": "gd", "step_size": 0.1, "num_steps": 1, "record_every": 1,
            "checkpoint_every": 1, "dtype": "float64",
        },
    ).train(progress=False)  # fmt: skip


def smooth_one(folder: Path) -> None:
    nodes = np.arange(100.0)
    table = pd.DataFrame({"probe": 0, "node": nodes, "weight": 0.01, "coupling": 0.0})
    smooth([Result("density", table, {})], 0.1, 10_000)


# What is computed, the memory that there is, and a part of the message.
ALLOCATIONS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "points": (lambda _: gaussian_clusters(**CLUSTERS), 10**6, "2,000 points of 100 features"),
    "a training": (train, 10**6, r"training P = 300,9\d\d parameters in batches of 50"),
    "data": (lambda folder: load_data(stored(folder), torch.float64), 10**5, "reading .*data"),
    "a linear model": (lambda _: linear_model(**LINEAR), 10**6, "300 samples of 300 features"),
    "spectra": (
        lambda _: sample_spectra(
            strengths=[4.0], num_parameters=300, num_samples=9, num_repeats=2, seed=0
        ),
        10**6,
        "2 spectra of 300 parameters",
    ),
    "draws": (
        lambda _: sample_largest(
            strengths=[4.0], num_samples=[9], aspect_ratio=1.0, num_repeats=9999, seed=0
        ),
        10**6,
        "a table of 9,999 draws",
    ),
    "a curve": (smooth_one, 10**6, "a curve of 10,000 points from 100 nodes"),
}


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_allocations_are_refused_before_they_are_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, available, message = ALLOCATIONS[name]
    monkeypatch.chdir(tmp_path)
    if name in ("a training", "data"):
        stored(tmp_path)
    monkeypatch.setattr(hardware, "available_bytes", lambda: available)
    with pytest.raises(TooLargeError, match=rf"{message}.* needs .* available; use "):
        compute(tmp_path)


class Greedy(nn.Linear):
    """A network that may ask for more than any machine has."""

    is_greedy = False

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.is_greedy:
            torch.empty(2**57)
        return super().forward(inputs)


@pytest.mark.parametrize("name", ["Objective", "spectrum", "density", "eigenpairs"])
def test_public_functions_name_what_ran_out_of_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = torch.ones(4, 99), torch.ones(4, 1)

    def construct() -> hesspipe.Objective:
        return hesspipe.Objective(Greedy(99, 1), nn.MSELoss(), data, dtype=torch.float64)

    compute: Callable[[], object] = construct
    if name != "Objective":
        objective = construct()
        compute = lambda: getattr(hesspipe, name)(objective, "hessian")  # noqa: E731
    monkeypatch.setattr(Greedy, "is_greedy", True)
    with pytest.raises(TooLargeError, match=r"^the .* needs more memory than is available .*; use"):
        compute()


def test_make_dataset_names_the_part_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets = torch.tensor([[1.0], [torch.inf]]), torch.tensor([0, 1])
    monkeypatch.setitem(
        make_dataset.__globals__["_MAKERS"],
        "file",
        lambda path: Dataset(inputs[:1], targets[:1], inputs, targets, 2),
    )
    with pytest.raises(ValueError, match=r"data of kind file must be finite, got .* test_inputs"):
        make_dataset("file", path="x")


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("place", ["eigenvalue", "error_bound"])
def test_write_result_refuses_infinite_numbers(value: float, place: str, tmp_path: Path) -> None:
    numbers = {"eigenvalue": 1.0, "error_bound": 0.5} | {place: value}
    table = pd.DataFrame({"rank": [0, 1], "eigenvalue": [0.0, numbers["eigenvalue"]]})
    required = REQUIRED_PROVENANCE.get("spectrum", ())
    provenance = dict.fromkeys(required, 1) | {"error_bound": numbers["error_bound"]}
    with pytest.raises(ValueError, match=rf"{place} of a spectrum table must be finite, got -?inf"):
        write_result(Result("spectrum", table, provenance), tmp_path / "a.parquet")
    assert not [*tmp_path.iterdir()]

"""Jobs of the pipeline in several processes, started by torchrun, against the same job in one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from problems import labels, normal
from process_groups import run_in_ranks

from hesspipe.data.dataset import Dataset, write_dataset
from hesspipe.errors import RankError
from hesspipe.experiments.matrix_free import compute, estimate_density, find_eigenpairs
from hesspipe.experiments.training import TrainingRun
from hesspipe.tables.store import read_result, write_result

MODEL = {"kind": "mlp", "hidden_widths": [4], "activation": "tanh", "initial_std": 0.5}
TRAINING = {
    "algorithm": "gd", "step_size": 0.1, "num_steps": 1, "record_every": 1, "checkpoint_every": 1,
    "dtype": "float64",
}  # fmt: skip
NETWORK: dict[str, Any] = {
    "path_to_dataset": "data.safetensors", "path_to_checkpoint": "step1.safetensors",
    "model": MODEL, "matrix": "hessian", "dtype": "float64", "batch_size": 4,
}  # fmt: skip
DENSITY = {
    "group": "all",
    "patterns": None,
    "density": {"num_probes": 2, "num_steps": 6, "seed": 0},
}
SEARCH: dict[str, Any] = {
    "eigenpairs": {
        "num_smallest": 1, "num_largest": 2, "basis_size": 8, "tolerance": 1e-10,
        "max_products": 500, "seed": 0,
    },
}  # fmt: skip
STATES = Path(".hesspipe/eigenpairs")
JOB = f"""
from hesspipe.experiments.matrix_free import find_eigenpairs
from hesspipe.tables.store import write_result
with find_eigenpairs(**{NETWORK | SEARCH!r}, processes=2) as result:
    write_result(result, "killed.parquet")
"""


@pytest.fixture(autouse=True)
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = Dataset(normal(13, 3), labels(13, 2), normal(4, 3), labels(4, 2), 2, {"kind": "mine"})
    write_dataset(data, "data.safetensors")
    run = TrainingRun(
        path_to_dataset="data.safetensors", experiment="example", seed=0, model=MODEL,
        training=TRAINING,
    )  # fmt: skip
    run.train(progress=False)
    run.collect_checkpoints(["step1.safetensors"])


def in_a_group(rank: int, folder: str) -> None:
    os.chdir(folder)
    group = dist.group.WORLD
    found = compute("eigenpairs", group, **NETWORK | SEARCH, state="undisturbed.safetensors")
    if rank == 0:
        write_result(found, "undisturbed.parquet")


def test_density_of_processes_agrees_with_one_and_says_how_many_they_were() -> None:
    one = estimate_density(**NETWORK, **DENSITY)
    several = estimate_density(**NETWORK, **DENSITY, processes=2)
    assert several.provenance.pop("processes") == 2
    assert "processes" not in one.provenance
    assert set(several.provenance) == set(one.provenance)
    size = one.table["node"].abs().max()
    differences = (several.table - one.table).abs().max()
    assert differences["node"] <= 1e-12 * size
    assert differences["weight"] <= 1e-10
    assert not any(Path(".hesspipe/processes").iterdir())


def test_error_in_a_process_ends_the_job_with_the_same_message() -> None:
    with pytest.raises(
        RankError, match=r"parameters must match the model's, got '7\.\*'"
    ) as raised:
        estimate_density(**NETWORK, **DENSITY | {"patterns": ["7.*"]}, processes=2)
    assert isinstance(raised.value, ValueError)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_killed_search_of_processes_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    run_in_ranks(in_a_group, 2, tmp_path / "ranks", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", JOB], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    while process.poll() is None and not list(STATES.glob("*.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with find_eigenpairs(**NETWORK, **SEARCH, processes=2) as result:
        write_result(result, "resumed.parquet")
    found, expected = (read_result(f"{name}.parquet") for name in ("resumed", "undisturbed"))
    assert found.table.equals(expected.table)
    assert found.provenance == expected.provenance
    assert not list(STATES.glob("*.safetensors"))
    with find_eigenpairs(**NETWORK, **SEARCH) as one:
        difference = one.table["eigenvalue"] - found.table["eigenvalue"]
        assert np.abs(difference).max() <= 1e-10 * one.table["eigenvalue"].abs().max()

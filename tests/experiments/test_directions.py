"""The stored overlaps against eigenvectors and gradients of dense matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hesspipe.curvature.dense import hessian_matrix
from hesspipe.data.dataset import write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.experiments.directions import measure_directions
from hesspipe.experiments.loading import load_objective
from hesspipe.networks.build import build_network
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.tables.store import read_result, write_result

MODEL: dict[str, Any] = {
    "kind": "mlp", "hidden_widths": [4], "activation": "tanh", "initial_std": 0.5,
}  # fmt: skip


def test_measure_directions_projects_the_leading_eigenvectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_dataset(
        kind="gaussian_clusters", num_clusters=3, cluster_std=1.0, num_features=5,
        center_low=-10.0, center_high=10.0, num_train=40, num_test=20, seed=0,
    )  # fmt: skip
    write_dataset(data, "data.safetensors")
    network = build_network(data.train_inputs, 3, 1, MODEL, torch.float64)
    provenance = {"experiment": "example", "seed": 1, "num_classes": 3}
    Checkpoint.of(network, 5, provenance).write("step5.safetensors")
    files = {"path_to_dataset": "data.safetensors", "path_to_checkpoint": "step5.safetensors"}
    result = measure_directions(**files, model=MODEL, num_beyond=2, tolerance=1e-12)
    write_result(result, "directions.parquet")
    table = read_result("directions.parquet", "directions").table
    objective, _ = load_objective(**files, model=MODEL)
    values, vectors = torch.linalg.eigh(hessian_matrix(objective))
    values, vectors = values.flip(0)[:5], vectors.flip(1)[:, :5]
    assert list(table["order"]) == [1, 2, 3, 4, 5]
    assert np.abs(table["eigenvalue"] - values.numpy()).max() <= 1e-10 * float(values[0])
    # Gradients of the mean outputs of each class, one backward pass each.
    rows = []
    for label in range(3):
        means = network(data.train_inputs[data.train_targets == label]).mean(0)
        for output in range(3):
            relative = means[output] - means.mean()
            parts = torch.autograd.grad(relative, list(network.parameters()), retain_graph=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
    basis = torch.linalg.svd(torch.stack(rows).T, full_matrices=False).U[:, :6]
    expected = (basis.T @ vectors).square().sum(0)
    assert table["every"].to_numpy() == pytest.approx(expected.numpy(), abs=1e-8)
    assert result.provenance["ranks"]["every"] == 6
    assert result.provenance["directions"] == {"num_beyond": 2, "tolerance": 1e-12}

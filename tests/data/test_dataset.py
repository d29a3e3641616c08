"""Gaussian clusters against their formula, and datasets as files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch import Tensor, nn

from hesspipe.config.loading import load_config
from hesspipe.data.clusters import gaussian_clusters
from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.data.make import make_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.files import write_tensors
from hesspipe.seeding import derive_seed

DATASETS = load_config(Path(__file__).parents[2] / "config.yaml").datasets
CLUSTERS = sorted(name for name, data in DATASETS.items() if data.kind == "gaussian_clusters")
EPS = torch.finfo(torch.float64).eps
SMALL = {
    "num_clusters": 3,
    "cluster_std": 2.0,
    "num_features": 4,
    "center_low": -10.0,
    "center_high": 10.0,
    "num_train": 90,
    "num_test": 30,
    "seed": 5,
}


def every_input(data: Dataset) -> Tensor:
    return torch.cat([data.train_inputs, data.test_inputs])


def every_target(data: Dataset) -> Tensor:
    return torch.cat([data.train_targets, data.test_targets])


def same(first: Dataset, second: Dataset) -> bool:
    return all(
        torch.equal(value, getattr(second, name)) if isinstance(value, Tensor) else True
        for name, value in vars(first).items()
    )


@pytest.fixture(scope="module")
def small():
    return gaussian_clusters(**SMALL)


def test_gaussian_clusters_standardizes_both_halves_together(small):
    inputs = every_input(small)
    assert inputs.mean(0).abs().max() <= 20 * EPS
    assert (inputs.std(0, correction=0) - 1).abs().max() <= 20 * EPS
    assert small.train_inputs.mean(0).abs().min() > 1e-4
    assert small.test_inputs.mean(0).abs().min() > 1e-4


def test_gaussian_clusters_equals_its_formula(small):
    inputs, targets = make_blobs(
        n_samples=120,
        n_features=4,
        centers=3,
        cluster_std=2.0,
        center_box=(-10.0, 10.0),
        random_state=derive_seed(5, "gaussian clusters", num_bits=32),
    )
    expected = (inputs - inputs.mean(0)) / inputs.std(0)
    error = np.abs(every_input(small).numpy() - expected).max()
    assert error <= 20 * EPS * np.abs(expected).max()
    assert every_target(small).tolist() == targets.tolist()


@pytest.mark.parametrize(
    ("half_width", "cluster_std"), [(10.0, 1.0), (10.0, 10.0), (5.0, 1.0), (30.0, 10.0)]
)
def test_gaussian_clusters_has_the_spread_that_its_settings_promise(half_width, cluster_std):
    num_clusters, num_points = 50, 4_000
    data = gaussian_clusters(
        **SMALL
        | {
            "num_clusters": num_clusters,
            "num_features": 100,
            "cluster_std": cluster_std,
            "center_low": -half_width,
            "center_high": half_width,
            "num_train": num_points // 2,
            "num_test": num_points // 2,
        }
    )
    inputs, targets = every_input(data), every_target(data)
    classes = [inputs[targets == c] for c in range(num_clusters)]
    within = torch.stack([points.var(0) for points in classes]).mean(0)
    means = torch.stack([points.mean(0) for points in classes])
    # A class mean of n points scatters around its center by the variance within over n.
    between = means.var(0) - within * num_clusters / num_points
    # The variance of uniform centers, relative to that within a cluster: without a unit.
    expected = half_width**2 / 3 / cluster_std**2
    # Var of a sample variance of n uniform numbers: (9/5 - 1) sigma^4 / n.
    standard_error = (0.8 / (num_clusters * 100)) ** 0.5
    assert abs((between / within).mean().item() / expected - 1) < 4 * standard_error


def test_gaussian_clusters_does_not_depend_on_where_the_box_lies(small):
    moved = gaussian_clusters(**SMALL | {"center_low": 0.0, "center_high": 20.0})
    # The box's position is at most 20 deviations away, which is what rounding is relative to.
    assert (every_input(moved) - every_input(small)).abs().max() <= 100 * EPS * 20


def test_gaussian_clusters_puts_no_point_into_both_halves(small):
    assert small.train_inputs.shape == (90, 4)
    assert small.test_inputs.shape == (30, 4)
    assert torch.cdist(small.train_inputs, small.test_inputs).min() > 0
    assert len(every_input(small).unique(dim=0)) == 120


@pytest.mark.parametrize("name", CLUSTERS)
def test_make_dataset_has_every_class_in_both_halves(name):
    data = make_dataset(**DATASETS[name].model_dump())
    num_classes = DATASETS[name].num_clusters
    assert data.num_classes == num_classes
    for targets in (data.train_targets, data.test_targets):
        assert targets.unique().tolist() == list(range(num_classes))
    assert (every_target(data).bincount() == 2000 // num_classes).all()


def test_gaussian_clusters_gives_equal_data_for_equal_seeds(small):
    assert same(gaussian_clusters(**SMALL), small)


def test_gaussian_clusters_gives_other_data_for_another_seed(small):
    other = gaussian_clusters(**SMALL | {"seed": 6})
    assert (other.train_inputs - small.train_inputs).abs().min() > 0


def test_gaussian_clusters_touches_no_global_random_state():
    # The legacy global state, which must not change.
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    gaussian_clusters(**SMALL)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_dataset_to_casts_inputs_and_keeps_labels(small):
    cast = small.to(torch.float32, torch.device("cpu"))
    assert torch.equal(cast.train_inputs, small.train_inputs.float())
    assert torch.equal(cast.test_inputs, small.test_inputs.float())
    assert cast.train_targets.dtype == cast.test_targets.dtype == torch.int64
    assert small.train_inputs.dtype == torch.float64


def test_dataset_to_moves_every_tensor():
    moved = make_dataset(kind="gaussian_clusters", **SMALL).to(torch.float64, torch.device("meta"))
    tensors = [value for value in vars(moved).values() if isinstance(value, Tensor)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 4
    assert moved.settings == {"kind": "gaussian_clusters", **SMALL}


def test_read_dataset_gives_what_was_written(tmp_path):
    data = make_dataset(kind="gaussian_clusters", **SMALL)
    write_dataset(data, tmp_path / "data.safetensors")
    again = read_dataset(tmp_path / "data.safetensors")
    assert same(again, data)
    assert again.num_classes == 3
    assert again.settings == {"kind": "gaussian_clusters", **SMALL}
    assert again.train_inputs.dtype == torch.float64
    assert again.train_targets.dtype == torch.int64


def test_read_dataset_refuses_a_checkpoint(tmp_path):
    path = tmp_path / "step0.safetensors"
    write_tensors(nn.Linear(2, 3).state_dict(), path, {"step": "0"})
    with pytest.raises(DamagedFileError, match="not a dataset") as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("missing", ["num_classes", "settings", "test_targets"])
def test_read_dataset_refuses_a_file_that_lacks_a_part(tmp_path, small, missing):
    path = tmp_path / "data.safetensors"
    tensors = {name: value for name, value in vars(small).items() if isinstance(value, Tensor)}
    header = {"num_classes": "3", "settings": "{}"}
    tensors.pop(missing, None)
    header.pop(missing, None)
    write_tensors(tensors, path, header)
    with pytest.raises(DamagedFileError, match=f"not a dataset: .*{missing}"):
        read_dataset(path)

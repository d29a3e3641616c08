"""Grids, names, groups and included files against the configuration written out by hand."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from hesspipe.config.expansion import expand
from hesspipe.config.loading import load_config, validate_config
from hesspipe.errors import ConfigError

SHORT = """
models:
  tanh: {kind: mlp, hidden_widths: [4], activation: tanh, initial_std: 0.1}
  relu: {like: tanh, activation: relu}
trainings:
  gd: {algorithm: gd, step_size: 0.1, num_steps: 10, record_every: 2, checkpoint_every: 4,
    dtype: float64}
datasets:
  blobs_k{k}_std{std}:
    for: {std: [1, 2.5], k: [2, 3]}
    kind: gaussian_clusters
    num_clusters: "{k}"
    cluster_std: "{std}"
    num_features: 3
    center_low: -1.0
    center_high: 1.0
    num_train: 8
    num_test: 4
    seed: 0
  more: {like: blobs_k2_std1, num_train: 9}
experiments:
  gd_{name}_k{k}:
    for: {name: [tanh, relu], k: [2, 3]}
    dataset: blobs_k{k}_std1
    seeds: [0]
    model: "{name}"
    training: gd
    spectra: {steps: ends, matrices: [hessian]}
  gd_relu_k3:
    like: gd_relu_k3
    seeds: [0, 1]
  wide:
    like: gd_tanh_k2
    dataset: more
    model: {like: relu, hidden_widths: [9]}
    training: {like: gd, num_steps: 8}
groups:
  tanh_rows: [gd_tanh_k2, gd_tanh_k3]
  relu_rows: [gd_relu_k2, gd_relu_k3]
  rows: [tanh_rows, wide, relu_rows]
spectrum: {zero_tolerance: 1.0}
outliers: {rules: [gap, ratio, elbow], num_candidates: 5}
figures:
  one: {kind: negative_part, experiments: tanh_rows, labels: [a, b], seeds: [0], step: 10}
  other: {like: one, kind: right_edge, experiments: [wide, gd_relu_k2], step: 0, num_largest: 2}
tables:
  signs: {kind: inertia, experiments: [relu_rows, gd_tanh_k2], seeds: [0], step: 0,
    matrices: [hessian]}
claims: claims.yaml
"""
CLAIMS = """
claims:
  flat: {kind: flatness, section: "1", experiments: rows, seed: 0, step: 0, max_magnitude: 0.1,
    min_share: 0.5}
  more: {kind: counts_grow, section: "2", groups: [tanh_rows, [gd_relu_k3, wide]], seed: 0,
    step: 0, rule: gap}
"""
TANH = {"kind": "mlp", "hidden_widths": [4], "activation": "tanh", "initial_std": 0.1}
GD = {"algorithm": "gd", "step_size": 0.1, "num_steps": 10, "record_every": 2,
      "checkpoint_every": 4, "dtype": "float64"}  # fmt: skip
BLOBS = "blobs_k{k}_std{std}"
ABSENT = object()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.yaml").write_text(SHORT)
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def short(**changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(SHORT)
    for place, value in changes.items():
        *parents, last = place.split(".")
        section = raw
        for parent in parents:
            section = section[parent]
        if value is ABSENT:
            del section[last]
        else:
            section[last] = value
    return raw


def written_out() -> dict[str, Any]:
    """Write the same configuration without any shorthand."""
    blobs = {"kind": "gaussian_clusters", "num_features": 3, "center_low": -1.0,
             "center_high": 1.0, "num_train": 8, "num_test": 4, "seed": 0}  # fmt: skip
    datasets = {
        f"blobs_k{k}_std{std}": blobs | {"num_clusters": k, "cluster_std": std}
        for std in (1, 2.5)
        for k in (2, 3)
    }
    datasets["more"] = datasets["blobs_k2_std1"] | {"num_train": 9}
    experiments: dict[str, Any] = {
        f"gd_{name}_k{k}": {
            "dataset": f"blobs_k{k}_std1",
            "seeds": [0, 1] if (name, k) == ("relu", 3) else [0],
            "model": TANH | {"activation": name},
            "training": GD,
            "spectra": {"steps": "ends", "matrices": ["hessian"]},
        }
        for name in ("tanh", "relu")
        for k in (2, 3)
    }
    experiments["wide"] = experiments["gd_tanh_k2"] | {
        "dataset": "more",
        "model": TANH | {"activation": "relu", "hidden_widths": [9]},
        "training": GD | {"num_steps": 8},
    }
    raw = short() | {"datasets": datasets, "experiments": experiments}
    del raw["groups"]
    raw["models"]["relu"] = TANH | {"activation": "relu"}
    raw["figures"]["one"]["experiments"] = ["gd_tanh_k2", "gd_tanh_k3"]
    raw["figures"]["other"] = raw["figures"]["one"] | {
        "kind": "right_edge", "experiments": ["wide", "gd_relu_k2"], "step": 0, "num_largest": 2,
    }  # fmt: skip
    raw["tables"]["signs"]["experiments"] = ["gd_relu_k2", "gd_relu_k3", "gd_tanh_k2"]
    raw["claims"] = yaml.safe_load(CLAIMS)["claims"]
    raw["claims"]["flat"]["experiments"] = [
        "gd_tanh_k2", "gd_tanh_k3", "wide", "gd_relu_k2", "gd_relu_k3",
    ]  # fmt: skip
    raw["claims"]["more"]["groups"] = [["gd_tanh_k2", "gd_tanh_k3"], ["gd_relu_k3", "wide"]]
    return raw


def names(raw: dict[str, Any]) -> dict[str, list[str]]:
    """List the entries of each section in order."""
    return {section: [*entries] for section, entries in raw.items() if isinstance(entries, dict)}


def test_shorthand_means_what_is_written_out() -> None:
    expansion = expand(short(), Path())
    assert expansion.mistakes == []
    assert expansion.raw == written_out()
    assert names(expansion.raw) == names(written_out())  # in the same order


def test_expansion_leaves_its_argument_unchanged() -> None:
    raw = short()
    before = copy.deepcopy(raw)
    expand(raw, Path())
    assert raw == before


def test_configuration_without_shorthand_stays_what_it_is() -> None:
    assert expand(written_out(), Path()).raw == written_out()


def test_included_file_is_looked_for_next_to_the_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    raw = SHORT.replace("2.5", "2")
    (folder / "config.yaml").write_text(raw)
    assert set(load_config(folder / "config.yaml").claims) == {"flat", "more"}


def message(**changes: Any) -> str:
    raw = short(**changes)
    values = raw["datasets"][BLOBS]["for"]
    if isinstance(values, dict):
        values["std"] = [1, 2]  # the name that 2.5 would give is no name of a file
    with pytest.raises(ConfigError) as caught:
        validate_config(raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (f"datasets.{BLOBS}.for", ["k"], "{0} must be a mapping from placeholders to lists, "
         "got ['k']"),
        ("experiments.gd_{name}_k{k}.for", {"k": [2]}, "{0} must have the placeholders of the "
         "name, ['k', 'name'], got ['k']"),
        ("experiments.gd_{name}_k{k}.for.k", [], "{0} must be a list of at least 1, got []"),
        ("experiments.gd_{name}_k{k}.for.k", [2, 2], "experiments.gd_{{name}}_k{{k}} must make new "
         "names, got 'gd_tanh_k2' twice"),
        ("experiments.wide.like", "gd_tanh_k4", "{0} must be one of gd_relu_k2, gd_relu_k3, "
         "gd_tanh_k2, gd_tanh_k3, got 'gd_tanh_k4'"),
        ("experiments.wide.like", "wide", "{0} must be one of gd_relu_k2, gd_relu_k3, gd_tanh_k2, "
         "gd_tanh_k3, got 'wide'"),
        ("models.tanh", {"like": "relu"}, "models.relu.like must not lead back to itself, "
         "got 'tanh'"),
        ("experiments.wide.model", "sigmoid", "{0} must be a mapping or one of relu, tanh, "
         "got 'sigmoid'"),
        ("experiments.wide.training.like", "sgd", "experiments.wide.training must be a mapping or "
         "one of gd, got 'sgd'"),
        ("figures.one.experiments", "columns", "{0} must be a list or a group, one of "
         "relu_rows, rows, tanh_rows, got 'columns'"),
        ("groups.tanh_rows", "gd_tanh_k2", "{0} must be a list of at least 1, got 'gd_tanh_k2'"),
        ("groups.tanh_rows", ["gd_tanh_k4"], "{0} must hold names of experiments, random_matrices "
         "or groups, got 'gd_tanh_k4'"),
        ("groups.tanh_rows", ["rows"], "groups.rows must not contain itself, got 'tanh_rows'"),
        ("groups.wide", ["gd_tanh_k2"], "{0} must not have the name of an experiment or of random "
         "matrices; rename it"),
        ("groups", ["wide"], "{0} must be a mapping, got ['wide']"),
        ("claims", "nowhere.yaml", "{0} must be a mapping or the name of a file, got "
         "'nowhere.yaml', which does not exist"),
        ("claims", "config.yaml", "config.yaml must hold the key 'claims' and no other, got "
         "['claims', 'datasets', 'experiments', 'figures', 'groups', 'models', 'outliers', "
         "'spectrum', 'tables', 'trainings']"),
    ],
)  # fmt: skip
def test_mistake_in_shorthand_is_reported_where_it_is_written(
    place: str, value: Any, expected: str
) -> None:
    line = f"config.yaml: {expected}".replace("{0}", place).replace("{{", "{").replace("}}", "}")
    assert line in message(**{place: value}).splitlines()


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("models.tanh.initial_std", -1.0, "models.tanh.initial_std must be greater than 0.0, "
         "got -1.0"),
        ("models.tanh.activation", ABSENT, "models.tanh.activation is missing"),
        ("trainings.gd.step_sise", 1, "trainings.gd.step_sise is not a known key; did you mean "
         "step_size?"),
        ("experiments.gd_{name}_k{k}.seeds", [], "experiments.gd_tanh_k2.seeds must be a list of "
         "at least 1, got []"),
        ("figures.one.seeds", [-1], "figures.one.seeds.0 must be at least 0, got -1"),
    ],
)  # fmt: skip
def test_mistake_in_a_copied_value_is_reported_once_where_it_is_written(
    place: str, value: Any, expected: str
) -> None:
    lines = message(**{place: value}).splitlines()
    assert lines.count(f"config.yaml: {expected}") == 1
    keys = [line.split()[1] for line in lines]
    assert len(set(keys)) == len(keys)
    if place.startswith(("models", "trainings", "figures")):
        assert len(lines) == 1


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [{}], {"like": 3}, {"for": None}])
@pytest.mark.parametrize(
    "place",
    ["models", "datasets", "experiments", "groups", "figures", "models.relu", "experiments.wide",
     "experiments.wide.model", "figures.one", "figures.one.experiments", "claims",
     "groups.rows", "experiments.wide.like"],
)  # fmt: skip
def test_value_of_any_type_is_reported_not_raised(place: str, value: Any) -> None:
    with contextlib.suppress(ConfigError):
        validate_config(short(**{place: value}))

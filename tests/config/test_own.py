"""Mistakes in an experiment of one's own are one line each, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hesspipe.config.schema import Config, validate_config
from hesspipe.errors import ConfigError

VALID = """
datasets:
  mine: {kind: own, function: "my_data:passages", arguments: {length: 8}}
  stored: {kind: file, path: data.safetensors}
  blobs: {kind: gaussian_clusters, num_clusters: 2, cluster_std: 1.0, num_features: 3,
    center_low: -1.0, center_high: 1.0, num_train: 8, num_test: 4, seed: 0}
experiments:
  trained:
    dataset: mine
    seeds: [0, 1]
    model: &model {kind: own, function: "my_nets:build", arguments: {width: 3},
      loss: "torch.nn:MSELoss", loss_arguments: {}}
    training: {algorithm: sgd, batch_size: 4, step_size: 0.1, num_steps: 10, record_every: 2,
      checkpoint_every: 4, dtype: float64}
    spectra: {steps: all, matrices: [hessian, ggn]}
  saved:
    dataset: stored
    seeds: [0]
    model: *model
    training: {algorithm: saved, path: state.safetensors}
    matrix_free:
      steps: ends
      matrices: [hessian]
      dtype: float32
      batch_size: 16
      groups: {embedding: ["embedding.*"]}
      group_matrices: [hessian]
      density: {num_probes: 2, num_steps: 10, seed: 0}
      eigenpairs: {num_smallest: 2, num_largest: 5, tolerance: 1.0e-6, max_products: 100, seed: 0}
spectrum: {zero_tolerance: 1.0}
outliers: {rules: [gap, ratio, elbow], num_candidates: 5}
figures:
  all: {kind: ordered, experiment: trained, seed: 0, steps: [0, 10], matrix: ggn}
  ends: {kind: overlay, experiment: trained, seed: 0, step: 4, matrices: [hessian, ggn],
    num_largest: 9, num_smallest: 9}
  moves: {kind: over_training, experiment: trained, seed: 0, steps: [0, 4], matrix: hessian,
    num_largest: 9, num_smallest: 9}
  apart: {kind: outliers, experiment: saved, seed: 0, step: 0, matrix: hessian, num_largest: 5}
  smooth: {kind: densities, experiment: saved, seed: 0, step: 0, matrices: [hessian],
    relative_width: 0.01, num_points: 100}
  parts: {kind: layers, experiment: saved, seed: 0, step: 0, matrix: hessian,
    titles: {network: Whole, embedding: Embedding}, relative_width: 0.01, num_points: 100}
"""
ABSENT = object()
TRAINED, SAVED = "experiments.trained", "experiments.saved"
FREE = f"{SAVED}.matrix_free"
MISTAKES: list[tuple[str, Any, str]] = [
    ("datasets.mine.function", "my_data.passages", "{0} must be a name of the form "
     "package.module:function, got 'my_data.passages'"),
    ("datasets.mine.function", "my_date:passages", "{0} must name a module in this folder or an "
     "installed one, got 'my_date:passages'; there is no my_date.py here"),
    ("datasets.mine.function", "my_data:passage", "{0} must name a function of my_data.py, which "
     "has passages; got 'my_data:passage'"),
    ("datasets.mine.arguments", ABSENT, "{0} is missing"),
    ("datasets.stored.path", "date.safetensors", "{0} must be a file, and there is none, got "
     "'date.safetensors'"),
    (f"{TRAINED}.model.function", "my_nets:bild", "{0} must name a function of my_nets.py, which "
     "has build; got 'my_nets:bild'"),
    (f"{TRAINED}.model.loss", "losses:mine", "{0} must name a module in this folder or an "
     "installed one, got 'losses:mine'; there is no losses.py here"),
    (f"{TRAINED}.model.loss", ABSENT, "{0} is missing"),
    (f"{TRAINED}.model.hidden_widths", [3], "{0} is not a key of this section"),
    (f"{SAVED}.training.path", "nowhere", "{0} must be a file, and there is none, got 'nowhere'"),
    (f"{SAVED}.seeds", [0, 1], "{0} must be one seed for one saved state, got [0, 1]"),
    (f"{FREE}.steps", [0, 3], f"{FREE}.steps must have a checkpoint (0), got 3"),
    (f"{FREE}.groups", {"network": ["*"], "embedding": ["*"]},
     "{0} must not be named network: that is all of them"),
    (f"{FREE}.density.num_probes", 1, "{0} must be at least 2, got 1"),
    (f"{FREE}.batch_size", 0, "{0} must be at least 1, got 0"),
    ("outliers.num_candidates", 6, f"{{0}} must be at most {FREE}.eigenpairs.num_largest (5), "
     "got 6"),
    ("figures.all.experiment", "saved", "figures.all must name an experiment with spectra, got "
     "'saved'"),
    ("figures.smooth.experiment", "trained", "figures.smooth must name an experiment with "
     "densities, got 'trained'"),
    ("figures.moves.steps", [0, 3], "figures.moves must name a step at which trained has "
     "eigenvalues [0, 4, 8, 10], got 3"),
    ("figures.ends.matrices", ["residual"], "figures.ends reads the residual of trained, whose "
     "spectra.matrices leave it out"),
    ("figures.parts.matrix", "ggn", "figures.parts reads the ggn of saved, whose "
     "matrix_free.matrices leave it out"),
    ("figures.parts.titles.head", "Head", "figures.parts.titles must be of saved's groups "
     "['network', 'embedding'], got 'head'"),
    (f"{FREE}.group_matrices", [], "figures.parts reads the hessian of embedding, which saved "
     "does not compute"),
    (f"{TRAINED}.starts_from", "saved", "{0} must join two trainings, got a saved state"),
    ("figures.apart.num_largest", 6, "{0} must be at most that of saved's eigenpairs (5), got 6"),
    ("figures.smooth.relative_width", 0, "{0} must be greater than 0.0, got 0"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text("def passages(length): ...\n")
    (tmp_path / "my_nets.py").write_text("def build(width): ...\n")
    for name in ("data", "state"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.chdir(tmp_path)


def valid() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(VALID)))
    return raw


def check(**changes: Any) -> Config:
    raw = valid()
    for place, value in changes.items():
        *path, last = place.split(".")
        part = raw
        for key in path:
            part = part[key]
        if value is ABSENT:
            del part[last]
        else:
            part[last] = value
    return validate_config(raw, "some.yaml")


@pytest.mark.parametrize(("place", "value", "expected"), MISTAKES)
def test_validate_config_says_a_mistake_in_ones_own_in_one_line(
    place: str, value: Any, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(**{place: value})
    assert str(caught.value) == f"some.yaml: {expected.format(place)}"


def test_saved_state_has_one_checkpoint_and_its_results_stand_at_step_0() -> None:
    plan = check().experiments["saved"]
    assert plan.checkpoint_steps == plan.matrix_free_steps == [0]
    assert plan.spectrum_steps == []
    assert plan.ends is plan.matrix_free
    assert plan.matrix_free is not None
    assert plan.matrix_free.all_groups == ["network", "embedding"]
    assert plan.matrix_free.densities == [("hessian", "network"), ("hessian", "embedding")]


def test_ends_are_taken_from_the_whole_spectrum_where_it_is_known() -> None:
    free = valid()["experiments"]["saved"]["matrix_free"]
    plan = check(**{f"{TRAINED}.matrix_free": free}).experiments["trained"]
    assert plan.ends is plan.spectra
    assert (plan.spectrum_steps, plan.matrix_free_steps) == ([0, 4, 8, 10], [0, 10])


def test_network_of_the_paper_is_refused_on_data_of_ones_own() -> None:
    model = {"kind": "mlp", "hidden_widths": [3], "activation": "relu", "initial_std": 0.1}
    with pytest.raises(ConfigError, match=r"model\.kind must be 'own' for data of one's own, got"):
        check(**{f"{TRAINED}.model": model})


def test_figure_that_needs_classes_is_refused_on_data_of_ones_own() -> None:
    figure = {"kind": "gaps", "experiments": ["trained"], "seed": 0, "step": 4, "rule": "gap",
              "num_largest": 3}  # fmt: skip
    with pytest.raises(ConfigError, match=r"figures\.gap must name experiments on data with known"):
        check(**{"figures.gap": figure})


def test_network_of_ones_own_may_be_trained_on_the_papers_data() -> None:
    assert check(**{f"{TRAINED}.dataset": "blobs"})


def test_experiment_must_have_something_computed() -> None:
    with pytest.raises(ConfigError) as caught:
        check(**{f"{TRAINED}.spectra": ABSENT})
    expected = f"some.yaml: {TRAINED} must have spectra, matrix_free or both, got neither"
    assert expected in str(caught.value).splitlines()

"""Errors of a configuration are reported in one line each before any job starts."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hesspipe.config.figures import Figure
from hesspipe.config.loading import load_config, validate_config
from hesspipe.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
VALID = """
datasets:
  blobs: {kind: gaussian_clusters, num_clusters: 2, cluster_std: 1.0, num_features: 3,
    center_low: -1.0, center_high: 1.0, num_train: 8, num_test: 4, seed: 0}
  digits: {kind: mnist_digits, source: folder, folder: somewhere/mnist, num_train: 6, seed: 0}
  photographs: &photographs {kind: cifar10_images, source: download, folder: there, num_train: 9,
    seed: 0}
  more_photographs: {<<: *photographs, seed: 1}
experiments:
  slow:
    dataset: blobs
    seeds: [0, 3]
    model: {kind: mlp, hidden_widths: [4], activation: tanh, initial_std: 0.1}
    training: {algorithm: gd, step_size: 0.1, num_steps: 10, record_every: 2,
      checkpoint_every: 4, dtype: float64}
    spectra: {steps: ends, matrices: [hessian]}
  noisy:
    dataset: blobs
    seeds: [0]
    model: {kind: mlp, hidden_widths: [4], activation: relu, initial_std: 0.1}
    training: {algorithm: sgd, batch_size: 4, step_size: 0.1, num_steps: 10, record_every: 2,
      checkpoint_every: 4, dtype: float32}
    spectra: {steps: all, matrices: [hessian, ggn]}
  images:
    dataset: digits
    seeds: [0]
    model: {kind: convnet, channels: [2, 3], kernel_size: 5, hidden_width: 4, initial_std: 0.1}
    training: {algorithm: gd, step_size: 0.1, num_steps: 10, record_every: 2,
      checkpoint_every: 4, dtype: float64}
    spectra: {steps: ends, matrices: [hessian]}
  part_one: &part
    matrix_free: {steps: [], matrices: [hessian], dtype: float32, batch_size: 4, groups: {},
      group_matrices: [hessian],
      density: {num_probes: 2, num_steps: 2, seed: 0}, eigenpairs: {num_smallest: 0,
      num_largest: 3, tolerance: 0.001, max_products: 9, seed: 0}}
    dataset: photographs
    seeds: [0, 1]
    model: {kind: alexnet, channels: [2, 3, 3, 3, 2], kernel_sizes: [5, 3, 3, 3, 3],
      first_stride: 2, pool_after: [1, 2, 5], initial_gain: 2.0}
    training: {algorithm: sgd, batch_size: 4, step_size: 0.1, num_steps: 10, record_every: 2,
      checkpoint_every: 4, num_recorded: 5, dtype: float32}
    spectra: {steps: [], matrices: [hessian]}
  part_two: {<<: *part, starts_from: part_one}
random_matrices:
  example: {kind: linear_model, model: logistic, num_features: 4, num_samples: 8, signal: 1.0,
    initial_norm: 1.0, step_size: 0.1, num_steps: 0, seed: 0, num_groups: 4, num_positions: 10,
    num_bins: 4}
  edge: {kind: spikes, aspect_ratio: 1.0, strengths: [1.0, 3.0], num_samples: [10],
    num_repeats: 10, seed: 0}
spectrum: {zero_tolerance: 1.0}
outliers: {rules: [gap, ratio, elbow], num_candidates: 5}
directions: {num_beyond: 2, tolerance: 0.001}
lines: {num_between: 4, num_beyond: 2}
planes: {num_points: 3, margin: 0.5}
figures:
  ends: {kind: endpoints, experiment: slow, seed: 0, steps: [0, 10], num_largest: 2}
  tops: {kind: gaps, experiments: [slow], seed: 3, step: 10, rule: gap, num_largest: 2}
  parts: {kind: basins, experiment: part_two, seed: 1}
  between: {kind: line, experiment: part_two, seed: 0}
  around: {kind: plane, experiment: part_two, seed: 0, other_seed: 1}
  bulk: {kind: bulks, sources: [example], num_columns: 1}
  spike: {kind: spikes, sources: [edge], below: 1.0, above: 3.0}
tables:
  counts: {kind: outlier_counts, published: published.csv, experiments: [slow, noisy], seed: 0,
    step: 10}
  walls: {kind: barriers, experiment: part_two, seeds: [0, 1]}
  curvature: {kind: sharpness, experiment: part_two, seeds: [0], num_largest: 3}
claims:
  flat: {kind: flatness, section: "1", experiments: [slow], seed: 0, step: 10,
    max_magnitude: 0.1, min_share: 0.5}
  more: {kind: counts_grow, section: "2", groups: [[slow, noisy]], seed: 0, step: 10, rule: gap}
"""
ABSENT = object()
FIGURE_KINDS = ", ".join(
    repr(get_args(model.model_fields["kind"].annotation)[0])
    for model in get_args(get_args(Figure)[0])
)
SLOW, NOISY, IMAGES = "experiments.slow", "experiments.noisy", "experiments.images"
PART = "experiments.part_two"
# The place, the new value, and the message without the file name.
MISTAKES: list[tuple[str, Any, str]] = [
    # Keys.
    (f"{SLOW}.training.step_sise", 0.1, "is not a known key; did you mean step_size?"),
    (f"{SLOW}.model.qqqq", 1, "is not a known key"),
    ("figure", {}, "is not a known key; did you mean figures?"),
    (f"{SLOW}.training.step_size", ABSENT, "is missing"),
    (f"{SLOW}.training.algorithm", ABSENT, "is missing"),
    (f"{NOISY}.training.batch_size", ABSENT, "is missing"),
    ("figures.ends.kind", ABSENT, "is missing"),
    ("outliers", ABSENT, "is missing"),
    (f"{SLOW}.model.kind", ABSENT, "is missing"),
    (f"{IMAGES}.model.kernel_size", ABSENT, "is missing"),
    (f"{IMAGES}.model.kernel_sise", 3, "is not a known key; did you mean kernel_size?"),
    (f"{IMAGES}.model.activation", "relu", "is not a key of this section"),
    ("datasets.blobs.kind", ABSENT, "is missing"),
    ("datasets.digits.folder", ABSENT, "is missing"),
    ("datasets.digits.source", ABSENT, "is missing"),
    ("datasets.digits.num_test", 4, "is not a key of this section"),
    # Numbers.
    (f"{SLOW}.training.step_size", -0.1, "must be greater than 0.0, got -0.1"),
    (f"{SLOW}.training.step_size", 0, "must be greater than 0.0, got 0"),
    (f"{SLOW}.training.step_size", math.nan, "must be a finite number, got nan"),
    (f"{SLOW}.training.step_size", math.inf, "must be a finite number, got inf"),
    (f"{SLOW}.training.step_size", None, "must be a number, got None"),
    (f"{SLOW}.training.step_size", True, "must be a number, got True"),
    (f"{SLOW}.training.step_size", "fast", "must be a number, got 'fast'"),
    (
        f"{SLOW}.training.step_size",
        "1e-1",
        "must be a number, got '1e-1' (YAML reads this as text; write 0.1)",
    ),
    (
        "spectrum.zero_tolerance",
        "1e-3",
        "must be a number, got '1e-3' (YAML reads this as text; write 0.001)",
    ),
    (f"{SLOW}.training.num_steps", 10.5, "must be a whole number, got 10.5"),
    (f"{SLOW}.training.num_steps", True, "must be a whole number, got True"),
    (
        f"{SLOW}.training.num_steps",
        "10",
        "must be a whole number, got '10' (YAML reads this as text; write 10)",
    ),
    (f"{SLOW}.model.hidden_widths.0", 0, "must be at least 1, got 0"),
    ("datasets.blobs.num_clusters", 1, "must be at least 2, got 1"),
    ("datasets.blobs.center_low", -math.inf, "must be a finite number, got -inf"),
    ("datasets.blobs.seed", -1, "must be at least 0, got -1"),
    ("datasets.digits.num_train", 0, "must be at least 1, got 0"),
    (f"{IMAGES}.model.kernel_size", 0, "must be at least 1, got 0"),
    (f"{IMAGES}.model.channels.1", 0, "must be at least 1, got 0"),
    (f"{IMAGES}.model.initial_std", 0.0, "must be greater than 0.0, got 0.0"),
    ("outliers.num_candidates", 1, "must be at least 2, got 1"),
    ("claims.flat.min_share", 1.5, "must be at most 1.0, got 1.5"),
    # Random matrices.
    ("random_matrices.example.num_groups", 3, "must divide num_samples (8), got 3"),
    (
        "random_matrices.example.model",
        "probit",
        "must be 'logistic' or 'softmax', got 'probit'",
    ),
    (
        "random_matrices.edge.strengths",
        [1.0, 1.0, 3.0],
        "must be a list without repeated entries, got [1.0, 1.0, 3.0]",
    ),
    ("figures.spike.above", 2.0, "must be one of edge's strengths [1.0, 3.0], got 2.0"),
    # Choices and names.
    (f"{SLOW}.model.activation", "sigmoid", "must be 'relu' or 'tanh', got 'sigmoid'"),
    (
        f"{SLOW}.training.algorithm",
        "adam",
        "must be one of 'gd', 'sgd', 'saved', got 'adam'; train with any other algorithm in your "
        "own code, and give its state dict with {algorithm: saved, path: state.pt}",
    ),
    (
        f"{SLOW}.training.algorithm",
        "SGD",
        "must be one of 'gd', 'sgd', 'saved', got 'SGD'; did you mean sgd?",
    ),
    (f"{SLOW}.training.dtype", "float16", "must be 'float32' or 'float64', got 'float16'"),
    (f"{SLOW}.model.kind", "cnn", "must be one of 'mlp', 'convnet', 'alexnet', 'user', got 'cnn'"),
    (
        "datasets.digits.kind",
        "mnist",
        "must be one of 'gaussian_clusters', 'mnist_digits', 'cifar10_images', 'user', "
        "'file', got 'mnist'",
    ),
    (
        "datasets.digits.source",
        "file",
        "must be 'embedded', 'folder', 'download' or 'own_files', got 'file'",
    ),
    ("datasets.digits.folder", 3, "must be text, got 3"),
    (
        f"{SLOW}.dataset",
        "blob",
        "must be one of blobs, digits, more_photographs, photographs, got 'blob'",
    ),
    (
        "figures.ends.kind",
        "pie",
        f"must be one of {FIGURE_KINDS}, got 'pie'",
    ),
    ("outliers.rules.0", "gaps", "must be 'gap', 'ratio' or 'elbow', got 'gaps'"),
    # Lists and mappings.
    (f"{SLOW}.seeds", [], "must be a list of at least 1, got []"),
    (f"{SLOW}.seeds", 0, "must be a list, got 0; write [0]"),
    (f"{SLOW}.seeds.1", -1, "must be at least 0, got -1"),
    (f"{SLOW}.model", None, "must be a mapping, got None"),
    ("claims", None, "must be a mapping, got None"),
    ("claims", [], "must be a mapping, got []"),
    ("claims.more.groups.0", ["slow"], "must be a list of at least 2, got ['slow']"),
    (f"{IMAGES}.model.channels", [2], "must be a list of at least 2, got [2]"),
    (f"{IMAGES}.model.channels", [2, 3, 4], "must be a list of at most 2, got [2, 3, 4]"),
    (f"{PART}.model.channels", [2, 3], "must be a list of at least 5, got [2, 3]"),
    (f"{PART}.model.pool_after.0", 6, "must be at most 5, got 6"),
    (f"{PART}.model.initial_std", 0.1, "is not a key of this section"),
    (
        "datasets.photographs.source",
        "embedded",
        "must be 'folder', 'download' or 'own_files', got 'embedded'",
    ),
    ("lines.num_between", 1, "must be at least 2, got 1"),
    ("planes.margin", 1.5, "must be at most 1.0, got 1.5"),
    # Conditions on several parts.
    (f"{PART}.training.num_recorded", 10, "must be at most the dataset's num_train (9), got 10"),
    (f"{PART}.training.batch_size", 10, "must be at most the dataset's num_train (9), got 10"),
    (
        f"{PART}.starts_from",
        "nothing",
        "must be one of images, noisy, part_one, part_two, slow, got 'nothing'",
    ),
    (
        f"{PART}.starts_from",
        "part_two",
        "must lead to a random starting point, got a circle at part_two",
    ),
    (f"{PART}.training.dtype", "float64", "must be that of part_one, from which it starts"),
    (f"{PART}.seeds", [0, 1, 2], "must be some of part_one's seeds [0, 1], got 2"),
    ("figures.around.other_seed", 0, "must be another than seed, got 0"),
    ("datasets.digits.folder", None, "must be the name of a folder with source: folder, got None"),
    ("datasets.digits.folder", "", "must be the name of a folder with source: folder, got ''"),
    (
        f"{IMAGES}.model.kernel_size",
        10,
        "must leave at least one pixel of 28 x 28 after two convolutions and poolings, got 10",
    ),
    ("datasets.blobs.center_low", 1.0, "must be less than center_high, got 1.0 and 1.0"),
    (
        f"{SLOW}.training.checkpoint_every",
        3,
        "must be a multiple of record_every (2), got 3",
    ),
    (
        f"{NOISY}.spectra.steps",
        [0, 5, 10],
        "must have a checkpoint (0, every 4, 10), got 5",
    ),
    (
        f"{NOISY}.training.batch_size",
        9,
        "must be at most the dataset's num_train (8), got 9",
    ),
]
# The same, with messages that name the entry and not the key.
MISTAKEN_ENTRIES: list[tuple[str, Any, str]] = [
    (
        f"{PART}.dataset",
        "more_photographs",
        f"{PART}.dataset must be that of part_one, from which it starts",
    ),
    (
        f"{PART}.model.first_stride",
        1,
        f"{PART}.model must be that of part_one, from which it starts",
    ),
    (
        "figures.between.experiment",
        "part_one",
        "figures.between must read experiments with starts_from, one of part_two, got 'part_one'",
    ),
    (
        "figures.ends.experiment",
        "nothing",
        "figures.ends must read experiments, one of images, noisy, part_one, part_two, slow, "
        "got 'nothing'",
    ),
    (
        "claims.more.groups.0.1",
        "nothing",
        "claims.more must read experiments, one of images, noisy, part_one, part_two, slow, "
        "got 'nothing'",
    ),
    (
        "figures.ends.steps",
        [0, 4],
        "figures.ends reads spectra of slow (hessian, step 4, seed 0); "
        "experiments.slow.spectra.steps must include 4, got [0, 10]",
    ),
    (
        "figures.tops.step",
        5,
        "figures.tops reads spectra of slow (hessian, step 5, seed 3); "
        "experiments.slow.spectra.steps must include 5, got [0, 10]",
    ),
    (
        f"{NOISY}.spectra.matrices",
        ["ggn"],
        "tables.counts reads spectra of noisy (hessian, step 10, seed 0); "
        "experiments.noisy.spectra.matrices must include 'hessian', got ['ggn']",
    ),
    (
        "figures.ends.seed",
        1,
        "figures.ends reads spectra of slow (hessian, step 0, seed 1); "
        "experiments.slow.seeds must include 1, got [0, 3]",
    ),
    (
        "claims.flat.seed",
        2,
        "claims.flat reads spectra of slow (hessian, step 10, seed 2); "
        "experiments.slow.seeds must include 2, got [0, 3]",
    ),
    (
        "tables.walls.seeds",
        [0, 3],
        "tables.walls reads landscape of part_two (line, seed 3); "
        "experiments.part_two.seeds must include 3, got [0, 1]",
    ),
    (
        "figures.around.other_seed",
        2,
        "figures.around reads landscape of part_two (plane_to_seed2, seed 0); "
        "experiments.part_two.seeds must include 2, got [0, 1]",
    ),
]
BAD_NAMES = ["Slow", "2slow", "slow-er", "slow er", ""]
JARGON = ["type=", "input_value", "Input should", "http", "pydantic", "ValidationError", "\n"]


def valid() -> dict[str, Any]:
    # Through JSON, so that no two places of the file are one object by an anchor.
    return json.loads(json.dumps(yaml.safe_load(VALID)))


def edit(raw: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Change one place of a configuration, in place."""
    section: Any = raw
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in parents:
        section = section[part]
    if value is ABSENT:
        del section[last]
    else:
        section[last] = value
    return raw


def message(raw: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_config(raw, "some.yaml")
    return str(caught.value)


def leaves(value: Any, place: str = "") -> list[str]:
    """Every place that holds a number, a text or a list."""
    if not isinstance(value, dict):
        return [place]
    return [leaf for key, part in value.items() for leaf in leaves(part, f"{place}.{key}")]


@pytest.mark.parametrize(("place", "value", "expected"), MISTAKES)
def test_validate_config_reports_a_mistake_in_one_line(place, value, expected):
    assert message(edit(valid(), place, value)) == f"some.yaml: {place} {expected}"


@pytest.mark.parametrize(("place", "value", "expected"), MISTAKEN_ENTRIES)
def test_validate_config_reports_a_broken_reference_in_one_line(place, value, expected):
    raw = valid()
    if place == f"{NOISY}.spectra.matrices":
        del raw["claims"]["more"]
    assert message(edit(raw, place, value)) == f"some.yaml: {expected}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"source": "embedded"},
            "folder must be null with source: embedded, got 'somewhere/mnist'",
        ),
        (
            {"source": "download", "folder": None},
            "folder must be the name of a folder with source: download",
        ),
        (
            {"source": "embedded", "folder": None, "num_train": 5000},
            "num_train must be less than 5000, the number of embedded digits, got 5000",
        ),
    ],
)
def test_validate_config_reports_which_keys_of_a_source_do_not_fit(changes, expected):
    raw = valid()
    raw["datasets"]["digits"].update(changes)
    (line,) = message(raw).splitlines()
    assert line.startswith(f"some.yaml: datasets.digits.{expected}")


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "embedded", "folder": None, "num_train": 4999},
        {"source": "download"},
        {"source": "folder", "num_train": 60000},
    ],
)
def test_validate_config_accepts_every_source_of_digits(changes):
    raw = valid()
    raw["datasets"]["digits"].update(changes)
    assert validate_config(raw).datasets["digits"].model_dump() == raw["datasets"]["digits"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("kernel_sizes", [5, 3, 4, 3, 3], "must be odd numbers, got [5, 3, 4, 3, 3]"),
        (
            "pool_after",
            [1, 2, 3, 4, 5],
            "must leave at least one pixel of 32 x 32 with a first stride of 2, "
            "got [1, 2, 3, 4, 5]",
        ),
    ],
)
def test_validate_config_refuses_an_alexnet_that_does_not_fit(key, value, expected):
    raw = edit(valid(), f"experiments.part_one.model.{key}", value)
    edit(raw, f"{PART}.model.{key}", value)
    assert message(raw).splitlines() == [
        f"some.yaml: experiments.{name}.model.{key} {expected}" for name in ("part_one", "part_two")
    ]


@pytest.mark.parametrize(
    ("section", "readers"),
    [
        ("lines", {"figures.between": "line, seed 0", "tables.walls": "line, seed 0"}),
        ("planes", {"figures.around": "plane_to_seed1, seed 0"}),
    ],
)
def test_validate_config_requires_the_settings_of_what_is_read(section, readers):
    raw = valid()
    del raw[section]
    assert message(raw).splitlines() == [
        f"some.yaml: {reader} reads landscape of part_two ({what}); {section} must be set, got "
        "nothing"
        for reader, what in readers.items()
    ]


def test_validate_config_requires_the_eigenvalues_of_a_table_of_sharpness():
    raw = edit(valid(), f"{PART}.matrix_free.eigenpairs.num_largest", 2)
    del raw["experiments"]["part_one"]["matrix_free"]
    assert message(raw).splitlines() == [
        "some.yaml: tables.curvature.num_largest must be at most "
        f"{PART}.matrix_free.eigenpairs.num_largest (2), got 3",
        "some.yaml: tables.curvature reads eigenpairs of part_one (hessian, step 10, seed 0); "
        "experiments.part_one.matrix_free must be set, got nothing",
    ]


@pytest.mark.parametrize("name", ["part_one", "part_two"])
def test_validate_config_refuses_to_continue_from_or_with_a_saved_state(name, tmp_path):
    save_file({"weight": np.zeros(1)}, tmp_path / "state.safetensors")
    saved = {"algorithm": "saved", "path": str(tmp_path / "state.safetensors")}
    raw = edit(valid(), f"experiments.{name}.training", saved)
    edit(raw, f"experiments.{name}.seeds", [0])
    expected = f"some.yaml: {PART}.starts_from must join two trainings, got a saved state"
    assert expected in message(raw).splitlines()


def test_validate_config_refuses_an_alexnet_on_inputs_that_are_not_images():
    raw = edit(valid(), f"{SLOW}.model", valid()["experiments"]["part_one"]["model"])
    lines = message(raw).splitlines()
    expected = f"{SLOW}.model.kind must be 'mlp' for inputs that are not images, got 'alexnet'"
    assert lines[0] == f"some.yaml: {expected}"


def test_validate_config_refuses_a_convnet_on_inputs_that_are_not_images():
    assert message(edit(valid(), f"{IMAGES}.dataset", "blobs")) == (
        f"some.yaml: {IMAGES}.model.kind must be 'mlp' for inputs that are not images, "
        "got 'convnet'"
    )


@pytest.mark.parametrize(("dataset", "model"), [("digits", "mlp"), ("digits", "convnet")])
def test_validate_config_refuses_a_table_of_experiments_without_clusters(dataset, model):
    raw = edit(valid(), f"{IMAGES}.dataset", dataset)
    if model == "mlp":
        edit(raw, f"{IMAGES}.model", raw["experiments"]["slow"]["model"])
    assert message(edit(raw, "tables.counts.experiments", ["slow", "images"])) == (
        "some.yaml: tables.counts must read experiments with an mlp on gaussian_clusters, "
        "got 'images'"
    )


@pytest.mark.parametrize("rule", ["ratio", "elbow"])
@pytest.mark.parametrize("place", ["figures.tops", "claims.more"])
def test_validate_config_refuses_a_rule_that_is_not_counted(place, rule):
    raw = edit(valid(), f"{place}.rule", rule)
    raw["outliers"]["rules"] = ["gap"]
    expected = f"some.yaml: {place}.rule must be one of outliers.rules ['gap'], got {rule!r}"
    assert expected in message(raw).splitlines()


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("section", ["datasets", "experiments", "figures", "tables", "claims"])
def test_validate_config_refuses_a_name_that_is_not_a_file_name(section, name):
    raw = valid()
    raw[section][name] = next(iter(raw[section].values()))
    assert message(raw) == (
        f"some.yaml: {section}.{name} must be a name of lower-case letters, digits and _ that "
        f"starts with a letter, got {name!r}"
    )


def test_validate_config_reports_each_of_several_mistakes():
    raw = edit(valid(), f"{SLOW}.training.step_size", -1.0)
    edit(raw, f"{NOISY}.seeds", [])
    edit(raw, "figures.tops.rule", "knee")
    assert message(raw).splitlines() == [
        f"some.yaml: {SLOW}.training.step_size must be greater than 0.0, got -1.0",
        f"some.yaml: {NOISY}.seeds must be a list of at least 1, got []",
        "some.yaml: figures.tops.rule must be 'gap', 'ratio' or 'elbow', got 'knee'",
    ]


def test_validate_config_reports_each_of_several_broken_references():
    raw = edit(valid(), f"{SLOW}.dataset", "nowhere")
    edit(raw, "figures.ends.experiment", "nothing")
    edit(raw, "claims.flat.seed", 9)
    assert message(raw).splitlines() == [
        f"some.yaml: {SLOW}.dataset must be one of blobs, digits, more_photographs, photographs, "
        "got 'nowhere'",
        "some.yaml: figures.ends must read experiments, one of images, noisy, part_one, part_two, "
        "slow, got 'nothing'",
        "some.yaml: claims.flat reads spectra of slow (hessian, step 10, seed 9); "
        f"{SLOW}.seeds must include 9, got [0, 3]",
    ]


@pytest.mark.parametrize("value", [None, {"qq": 1}, -7, 2.5, math.nan, True])
def test_validate_config_uses_no_jargon_wherever_the_mistake_is(value):
    for place in leaves(valid()):
        key = place.removeprefix(".")
        try:
            validate_config(edit(valid(), key, value), "some.yaml")
        except ConfigError as error:
            for line in str(error).splitlines():
                assert line.startswith("some.yaml: ")
                assert not [word for word in JARGON if word in line]


@pytest.mark.parametrize("value", [None, {"qq": 1}])
def test_validate_config_refuses_null_and_mapping_wherever_neither_belongs(value):
    for place in leaves(valid()):
        key = place.removeprefix(".")
        if value is None and key.endswith(
            (".starts_from", ".num_recorded", ".matrix_free.batch_size")
        ):
            continue  # null is a value there
        assert f"some.yaml: {key} must be " in message(edit(valid(), key, value))


def test_validate_config_does_not_take_a_checkpoint_step_for_a_spectrum_step():
    raw = edit(valid(), f"{NOISY}.spectra.steps", "ends")
    edit(raw, "claims.flat.experiments", ["noisy"])
    assert message(edit(raw, "claims.flat.step", 4)) == (
        "some.yaml: claims.flat reads spectra of noisy (hessian, step 4, seed 0); "
        f"{NOISY}.spectra.steps must include 4, got [0, 10]"
    )


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (f"{NOISY}.training.batch_size", 8),
        (f"{SLOW}.training.checkpoint_every", 2),
        (f"{SLOW}.training.step_size", 1),
        (f"{SLOW}.model.hidden_widths", []),
        (f"{IMAGES}.model.kernel_size", 9),
        (f"{IMAGES}.model.kernel_size", 1),
        ("datasets.digits.num_train", 1),
        ("outliers.num_candidates", 2),
        ("claims.flat.min_share", 1.0),
        ("claims.flat.max_magnitude", 0.0),
        ("claims", {}),
    ],
)
def test_validate_config_accepts_the_bounds_themselves(place, value):
    section = validate_config(edit(valid(), place, value)).model_dump()
    for part in place.split("."):
        section = section[part]
    assert section == value


def test_validate_config_gives_a_frozen_configuration():
    config = validate_config(valid())
    with pytest.raises(ValueError, match="frozen"):
        config.outliers.num_candidates = 3


@pytest.mark.parametrize(
    ("num_steps", "every", "expected"),
    [(10, 4, [0, 4, 8, 10]), (8, 4, [0, 4, 8]), (3, 4, [0, 3]), (4, 2, [0, 2, 4])],
)
def test_checkpoint_steps_have_the_last_step_once(num_steps, every, expected):
    raw = edit(valid(), f"{NOISY}.training.num_steps", num_steps)
    edit(raw, f"{NOISY}.training.checkpoint_every", every)
    for section in ("figures", "tables", "claims"):
        raw[section] = {}
    assert validate_config(raw).experiments["noisy"].checkpoint_steps == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [("ends", [0, 10]), ("all", [0, 4, 8, 10]), ([10, 0, 4], [0, 4, 10]), ([10], [10])],
)
def test_spectrum_steps_are_ascending_and_no_step_comes_twice(steps, expected):
    config = validate_config(edit(valid(), f"{NOISY}.spectra.steps", steps))
    assert config.experiments["noisy"].spectrum_steps == expected


def test_validate_config_names_the_nearest_of_many(repository_config):
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    raw["figures"]["fig1"]["experiment"] = "mnist_width20"
    raw["figures"]["fig2"]["experiments"] = "sdg_relu"
    assert len(repository_config.experiments) == 32
    with pytest.raises(ConfigError) as caught:
        validate_config(raw, str(REPOSITORY / "config.yaml"))
    assert str(caught.value) == (
        f"{REPOSITORY}/config.yaml: figures.fig2.experiments must be a list or a group, one of 11 "
        "names, got 'sdg_relu'; the nearest are sgd_relu, gd_relu, relu"
    )
    raw["figures"]["fig2"]["experiments"] = "sgd_relu"
    with pytest.raises(ConfigError) as caught:
        validate_config(raw, str(REPOSITORY / "config.yaml"))
    assert str(caught.value) == (
        f"{REPOSITORY}/config.yaml: figures.fig1 must read experiments, one of 32 names, got "
        "'mnist_width20'; the nearest are mnist_width70, mnist_width50, mnist_width30"
    )


@given(number=st.floats(1e-30, 1e30, exclude_min=True), form=st.sampled_from(["{!r}", "{:e}"]))
def test_number_that_the_message_says_to_write_is_read_as_that_number(number, form):
    text = form.format(number)  # 1e-06 and 1.5e+20: some are numbers in YAML 1.1, some are text
    if isinstance(yaml.safe_load(text), float):
        text = text.replace(".", "", 1) if "e" in text else f"{text}e0"
    told = message(edit(valid(), f"{SLOW}.training.step_size", text))
    written = told.rpartition("write ")[2].removesuffix(")")
    assert yaml.safe_load(written) == float(text)
    assert isinstance(yaml.safe_load(written), float)


@given(number=st.integers(1, 10**6), exponent=st.integers(0, 3))
def test_whole_number_that_the_message_says_to_write_is_read_as_that_number(number, exponent):
    text = f"{number}e{exponent}"
    told = message(edit(valid(), f"{SLOW}.training.num_steps", text))
    assert yaml.safe_load(told.rpartition("write ")[2].removesuffix(")")) == int(float(text))


def test_load_config_names_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(VALID.replace("step_size: 0.1", "step_size: 1e-1", 1))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == (
        f"{path}: {SLOW}.training.step_size must be a number, got '1e-1' "
        "(YAML reads this as text; write 0.1)"
    )


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b\n", "list"), ("", "NoneType"), ("just text", "str"), ("3", "int")]
)
def test_load_config_refuses_what_is_not_a_mapping(tmp_path, text, kind):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path} must hold a mapping, got {kind}"


def test_load_config_reports_where_yaml_breaks(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("datasets:\n  a: 1\n  b: [1, 2\nfigures: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}, line 4: ")


@pytest.fixture(scope="module")
def repository_config():
    return load_config(REPOSITORY / "config.yaml")


def on_clusters(config):
    return {name: plan for name, plan in config.experiments.items() if name.startswith("clusters")}


def test_load_config_gives_the_twenty_rows_of_table_1(repository_config):
    clusters = on_clusters(repository_config)
    rows = Counter(
        (plan.training.algorithm, plan.model.activation, data.cluster_std)
        for plan in clusters.values()
        for data in [repository_config.datasets[plan.dataset]]
    )
    groups = [("gd", "tanh", 1.0), ("gd", "relu", 1.0), ("sgd", "relu", 1.0), ("sgd", "relu", 10.0)]
    assert rows == dict.fromkeys(groups, 5)
    assert repository_config.tables["table1"].experiments == list(clusters)


def test_load_config_names_each_experiment_for_what_it_is(repository_config):
    for name, plan in on_clusters(repository_config).items():
        data = repository_config.datasets[plan.dataset]
        algorithm, activation = plan.training.algorithm, plan.model.activation
        dataset = f"k{data.num_clusters}_cov{data.cluster_std:g}"
        assert name == f"clusters_{algorithm}_{activation}_{dataset}"
        assert plan.dataset == f"clusters_{dataset}"


def test_load_config_has_the_data_of_the_paper(repository_config):
    datasets = dict(repository_config.datasets)
    digits = datasets.pop("mnist_1000")
    assert (digits.kind, digits.source, digits.num_train) == ("mnist_digits", "embedded", 1000)
    twin, photographs = datasets.pop("mnist_4000"), datasets.pop("cifar10")
    assert (twin.kind, twin.source, twin.num_train) == ("mnist_digits", "embedded", 4000)
    assert (photographs.kind, photographs.num_train) == ("cifar10_images", 50_000)
    for data in datasets.values():
        assert (data.num_features, data.num_train, data.num_test) == (100, 1000, 1000)
        assert (data.center_low, data.center_high) == (-10.0, 10.0)


def test_load_config_has_the_networks_and_steps_of_the_paper(repository_config):
    for plan in on_clusters(repository_config).values():
        assert plan.model.hidden_widths == [30, 30]
        assert (plan.model.initial_std, plan.training.step_size) == (0.1, 0.1)
        assert (plan.training.num_steps, plan.training.dtype) == (5000, "float64")
        assert getattr(plan.training, "batch_size", 1000) == (
            100 if plan.training.algorithm == "sgd" else 1000
        )


def test_load_config_decomposes_the_network_of_figure_1_at_every_checkpoint(repository_config):
    plan = repository_config.experiments[repository_config.figures["fig1"].experiment]
    assert plan.spectrum_steps == list(range(0, 5001, 500))
    assert plan.spectra.matrices == ["hessian", "ggn", "residual"]


def test_load_config_names_published_numbers_that_are_there(repository_config):
    assert (REPOSITORY / repository_config.tables["table1"].published).is_file()


def test_load_config_changes_nothing_but_the_width_in_figure_3(repository_config):
    names = repository_config.figures["fig3"].experiments
    plans = [repository_config.experiments[name].model_dump() for name in names]
    widths = [plan["model"].pop("hidden_widths") for plan in plans]
    assert widths == [[10], [30], [50], [70]]
    assert all(plan == plans[0] for plan in plans)
    assert len(plans[0]["seeds"]) >= 2


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (f"{NOISY}.training", None, "must be a mapping, got None"),
        (f"{NOISY}.spectra.steps", "ens", "must be 'ends' or 'all' or a list, got 'ens'"),
        (f"{NOISY}.spectra.steps", [0, 0], "must be 'ends' or 'all' or a list without repeated"),
        ("outliers.rules", ["gap", "ratio", "elbow", "gap"], "must be a list without repeated"),
        (f"{SLOW}.training.batch_sise", 3, "is not a known key; did you mean batch_size?"),
        ("figures.ends.rule", "gap", "is not a key of this section"),
        ("experiments", {}, "must be a mapping of at least 1, got {}"),
    ],
)
def test_validate_config_reports_each_key_once(place, value, what):
    (line,) = message(edit(valid(), place, value)).splitlines()
    assert line.startswith(f"some.yaml: {place} {what}")


def test_validate_config_refuses_a_table_whose_rules_are_not_counted():
    raw = edit(valid(), "outliers.rules", ["gap", "ratio"])
    assert (
        "some.yaml: outliers.rules must be gap, ratio and elbow for tables.counts, "
        "got ['gap', 'ratio']"
    ) in message(raw).splitlines()


def test_load_config_refuses_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"mine.yaml, line 1: the file must be UTF-8"):
        load_config(path)


def test_validate_config_refuses_sources_of_another_kind() -> None:
    raw = yaml.safe_load(VALID)
    raw["figures"]["bulk"]["sources"] = ["edge"]
    with pytest.raises(
        ConfigError,
        match=r"figures.bulk must read random_matrices, one of example, got 'edge'",
    ):
        validate_config(raw)


def test_validate_config_requires_the_settings_of_directions_where_they_are_read() -> None:
    raw = yaml.safe_load(VALID)
    del raw["directions"]
    validate_config(raw)
    raw["figures"]["what"] = {
        "kind": "directions", "experiments": ["slow"], "labels": ["one"], "seed": 0,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"figures\.what reads .*; directions must be set, got"):
        validate_config(raw)

"""The published JSON schema accepts the configurations of the repository, and refuses errors."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hesspipe.config.json_schema import FILE, schema_text

REPOSITORY = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft7Validator(json.loads(schema_text()))
FILES = ["config.yaml", "statements.yaml", "examples/cifar10_scaled.yaml",
         "examples/transformer/config.yaml"]  # fmt: skip
ABSENT = object()


def read(path: str) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8"))
    return raw


def errors(raw: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(raw)]


def test_published_schema_is_up_to_date() -> None:
    published = (REPOSITORY / FILE).read_text(encoding="utf-8")
    assert published == schema_text(), "run python -m hesspipe.config.json_schema"


def test_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("path", FILES)
def test_schema_takes_the_configurations_as_they_are_written(path: str) -> None:
    assert errors(read(path)) == []


@pytest.mark.parametrize("path", FILES)
def test_configurations_name_the_schema_for_editors(path: str) -> None:
    first = (REPOSITORY / path).read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (REPOSITORY / path).parent.joinpath(first.removeprefix(prefix)).resolve() == (
        REPOSITORY / FILE
    )


def test_schema_takes_groups_names_and_grids_wherever_the_loader_does() -> None:
    raw = read("config.yaml")
    raw["experiments"]["width_{width}"] = {
        "for": {"width": [3, 5]},
        "like": "mnist_lb",
        "model": {"like": "clusters_relu", "hidden_widths": ["{width}", 4]},
        "seeds": ["{width}"],
    }
    raw["tables"]["table1"]["experiments"] = ["gd_relu", "mnist_lb"]
    assert errors(raw) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("figure", {}),
        ("experiments.mnist_lb.seeds", 0),
        ("experiments.mnist_lb.seed", [0]),
        ("experiments.mnist_lb.dataset", ABSENT),
        ("experiments.mnist_lb.spectra.matrices", ["hesian"]),
        ("experiments.mnist_lb.model", {"kind": "mlp"}),
        ("experiments.mnist_lb.model", {"like": "clusters_tanh", "initial_sdt": 0.1}),
        ("experiments.mnist_sb.training", {"like": "large_batches", "batch_size": 0}),
        ("experiments.Mnist", {"like": "mnist_lb"}),
        ("experiments.mnist_width{h}.spectra.steps", [0.5]),
        ("experiments.mnist_width{h}.for", ABSENT),
        ("experiments.mnist_width{h}.for.h", 10),
        ("experiments.mnist_width{h}.modl", "clusters_relu"),
        ("experiments.mnist_sb.trainings", "clusters_gd"),
        ("datasets.clusters_k{k}_cov{cov}.num_train", -1),
        ("models.alexnet.channels", [64, 192]),
        ("models.clusters_relu.activation", "sigmoid"),
        ("trainings.clusters_gd.step_size", "1e-1"),
        ("trainings.clusters_gd.algorithm", "adam"),
        ("random_matrices.spikes.strengths", [1.0]),
        ("groups.widths", "mnist_width10"),
        ("outliers.rules", ["gaps"]),
        ("figures.fig1.kind", "pie"),
        ("figures.fig1.rule", "ratio"),
        ("figures.fig2.experiments", {"sgd_relu": 1}),
        ("tables.sharpness_mnist.experiment", ["mnist_basins_sb"]),
        ("claims", 3),
        ("claims", {"flat": {"kind": "flatness"}}),
    ],
)
def test_schema_refuses_a_mistake(place: str, value: Any) -> None:
    raw = copy.deepcopy(read("config.yaml"))
    *parents, last = place.split(".")
    section = raw
    for parent in parents:
        section = section[parent]
    if value is ABSENT:
        del section[last]
    else:
        section[last] = value
    assert errors(raw)

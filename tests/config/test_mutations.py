"""Whatever a configuration is changed to, its check ends soon, with one line for each mistake.

The seed is printed; another one is set by $HESSPIPE_MUTATION_SEED.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from config_mutations import mutated_mappings, mutated_texts
from small_project import SMALL, small_config

from hesspipe.config.loading import load_config, validate_config
from hesspipe.errors import ConfigError

SEED = int(os.environ.get("HESSPIPE_MUTATION_SEED", "0"))
LONGEST = 2.0  # seconds


def refused_in_lines(check: Callable[[], object], source: str, what: str) -> bool:
    """Run a check, which may only end soon and, if at all, with errors of one line each."""
    start = time.process_time()
    try:
        check()
    except ConfigError as error:
        text = str(error)
    else:
        text = ""
    context = f"seed {SEED}: {what}"
    assert time.process_time() - start < LONGEST, context
    for line in filter(None, text.split("\n")):
        assert line.startswith(source), context
        assert line.isprintable(), context
        assert len(line) < 1500, context
    return bool(text)


@pytest.fixture
def in_the_small_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SMALL)


def project() -> dict[str, Any]:
    """The small project without the network whose check builds it, which needs torch."""
    raw = small_config()
    raw["experiments"]["user"]["matrix_free"]["groups"] = {}
    raw["figures"].pop("layers")
    return raw


@pytest.mark.usefixtures("in_the_small_project")
def test_validate_config_ends_in_lines_for_any_mapping() -> None:
    print(f"seed {SEED}")
    refused = [
        refused_in_lines(lambda raw=raw: validate_config(raw), "config.yaml: ", what)  # type: ignore[misc]
        for what, raw in islice(mutated_mappings(project(), SEED), 110)
    ]
    assert sum(refused) > 55


@pytest.mark.usefixtures("in_the_small_project")
def test_load_config_ends_in_lines_for_any_text(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    path = tmp_path / "config.yaml"
    text = Path("config.yaml").read_text(encoding="utf-8")
    refused = []
    for what, content in islice(mutated_texts(text, SEED), 40):
        path.write_bytes(content)
        refused.append(refused_in_lines(lambda: load_config(path), str(path), what))
    assert sum(refused) > 20


def with_chain_of_likes(raw: dict[str, Any]) -> None:
    raw["experiments"] |= {f"e{number}": {"like": f"e{number + 1}"} for number in range(2000)}
    raw["experiments"]["e2000"] = raw["experiments"]["clusters_gd_k2"]


def with_chain_of_starts(raw: dict[str, Any]) -> None:
    start = "digits_sb"
    for number in range(200):
        raw["experiments"][f"e{number}"] = raw["experiments"]["digits_sb"] | {"starts_from": start}
        start = f"e{number}"


def with_bomb_of_groups(raw: dict[str, Any]) -> None:
    raw["groups"] = {"g0": ["clusters_gd_k2", "clusters_sgd_k3"]}
    raw["groups"] |= {f"g{number + 1}": [f"g{number}"] * 2 for number in range(60)}


def with_chain_of_groups(raw: dict[str, Any]) -> None:
    raw["groups"] = {f"g{number}": [f"g{number - 1}"] for number in range(2000, 0, -1)}
    raw["groups"]["g0"] = ["clusters_gd_k2"]


def with_huge_grid(raw: dict[str, Any]) -> None:
    values = {name: [*range(1000)] for name in "abc"}
    raw["datasets"]["x{a}_{b}_{c}"] = {"for": values, "like": "digits"}


def with_large_grid_of_arguments(raw: dict[str, Any]) -> None:
    arguments = {"values": [*range(5000)]}
    entry = {"kind": "user", "function": "networks:points", "arguments": arguments}
    raw["datasets"]["x{a}"] = {"for": {"a": [*range(5000)]}, **entry}


def with_many_checkpoints(raw: dict[str, Any]) -> None:
    raw["trainings"]["gd"] |= {"num_steps": 4 * 10**8, "record_every": 2, "checkpoint_every": 2}


def with_many_seeds(raw: dict[str, Any]) -> None:
    for name in ("digits_lb", "digits_sb"):
        raw["experiments"][name]["seeds"] = [*range(900)]


def with_names_that_look_like_places(raw: dict[str, Any]) -> None:
    raw["experiments"]["a"] = {"like": "a.b"}
    raw["experiments"]["a.b"] = {"b": 1, "like": "saved"}


def with_itself(raw: dict[str, Any]) -> None:
    raw["datasets"]["points"]["arguments"]["again"] = raw


def with_itself_in_a_list(raw: dict[str, Any]) -> None:
    values: list[Any] = [1]
    values.append(values)
    raw["datasets"]["points"]["arguments"]["again"] = values


def with_shared_lists(raw: dict[str, Any]) -> None:
    values: list[Any] = ["x"]
    for _ in range(40):
        values = [values] * 9
    raw["datasets"]["points"]["arguments"]["again"] = values


EXPLOSIONS = [found for name, found in sorted(globals().items()) if name.startswith("with_")]


@pytest.mark.usefixtures("in_the_small_project")
@pytest.mark.parametrize("explode", EXPLOSIONS, ids=lambda explode: explode.__name__)
def test_validate_config_bounds_what_it_expands(explode: Callable[[Any], None]) -> None:
    raw = project()
    explode(raw)
    assert refused_in_lines(lambda: validate_config(raw), "config.yaml: ", explode.__name__)


@pytest.mark.usefixtures("in_the_small_project")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("trainings.gd.step_size", 1e308, "must be at most 1e+30, got 1e+308"),
        ("trainings.gd.step_size", 5e-324, "must be at least 1e-30, got 5e-324"),
        ("datasets.clusters_k2.num_train", 10**12, "must be at most 1000000000, got 10"),
        ("datasets.clusters_k2.seed", 2**63, "must be at most 9223372036854775807, got 9"),
        ("datasets.clusters_k2.center_low", -1e308, "must be at least -1e+30, got -1e+308"),
        ("models.relu.hidden_widths", [3] * 1001, "must be a list of at most 1000, got [3, 3"),
        ("models.relu.hidden_widths", [10**8], ".0 must be at most 10000000, got 100000000"),
        ("experiments.saved.training.path", "a" * 999, "must be a path whose parts have at most"),
        ("experiments.user.model.function", "__main__:x", "must name a module in this folder or"),
        ("experiments.user.model.function", "a" * 101 + ":x", "must be a name whose parts have"),
        ("experiments.user.matrix_free.density.num_probes", 10**9, "must be at most 10000, got"),
        ("experiments.user.matrix_free.eigenpairs.tolerance", 1.0, "must be at most 0.1, got 1.0"),
        ("experiments.user.matrix_free.eigenpairs.tolerance", 1e-15, "must be at least 2.2e-15 in"),
        ("datasets.points.arguments", {"x": float("nan")}, "must be a mapping of texts, finite"),
        ("spectrum.zero_tolerance", 1e300, "must be at most 1000000.0, got 1e+300"),
        ("planes.num_points", 10**6, "must be at most 1000, got 1000000"),
        ("random_matrices.spikes.num_repeats", 10**9, "must be at most 1000000, got 1000000000"),
        ("figures." + "f" * 101, {}, "must be a text of at most 100 letters"),
        ("claims", "a" * 999, "must be a mapping or the name of a file, got 'aaa"),
    ],
)
def test_validate_config_has_ranges(place: str, value: Any, message: str) -> None:
    raw = project()
    raw["datasets"]["clusters_k2"] = raw["datasets"]["clusters_k{k}"] | {"num_clusters": 2}
    del raw["datasets"]["clusters_k2"]["for"]
    *parts, last = place.split(".")
    inner = raw
    for part in parts:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(ConfigError) as caught:
        validate_config(raw)
    assert any(
        line.startswith(f"config.yaml: {place}") and message in line
        for line in str(caught.value).split("\n")
    ), str(caught.value)

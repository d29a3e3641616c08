"""Figures 8 and 9 through the workflow: the embedded twin built, CIFAR-10 only if it is there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from cifar10_files import write_files
from test_workflow import REPOSITORY, make_project, planned, small_config, snakemake, write_config

from hesspipe.config.loading import validate_config
from hesspipe.tables.store import read_table


def basins_config() -> dict[str, Any]:
    """The small configuration, with the repository's parts of Section 4.1 cut down."""
    full, config = yaml.safe_load((REPOSITORY / "config.yaml").read_text()), small_config()
    config["datasets"] |= {
        "mnist_4000": full["datasets"]["mnist_4000"] | {"num_train": 40},
        "cifar10": full["datasets"]["cifar10"]
        | {"source": "folder", "folder": "here/cifar10", "num_train": 12},
    }
    for name in ("cifar10_basins_lb", "cifar10_basins_sb", "mnist_basins_lb", "mnist_basins_sb"):
        plan = full["experiments"][name]
        plan["training"] |= {"num_steps": 4, "record_every": 2, "checkpoint_every": 2}
        plan["training"] |= {"num_recorded": 10, "batch_size": 10 if name.endswith("lb") else 3}
        config["experiments"][name] = plan
    for section in ("figures", "tables"):
        for name, entry in full[section].items():
            if entry.get("experiment") in config["experiments"]:
                config[section].setdefault(name, entry)
    config["tables"]["barriers_mnist"] |= {"seeds": [0]}
    config["lines"] = {"num_between": 2, "num_beyond": 1}
    return config


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("basins"))
    write_config(folder, basins_config())
    return folder


def test_embedded_twin_is_built(project: Path) -> None:
    targets = [
        "figures/fig8_mnist.pdf", "figures/fig9_mnist.pdf", "tables/barriers_mnist.md",
        "tables/sharpness_mnist.csv",
    ]  # fmt: skip
    snakemake(project, "--cores", "2", *targets)
    for path in targets:
        assert (project / path).stat().st_size > 0
    results = project / "results"
    line = read_table(results / "mnist_basins_sb/seed0/line.parquet", "line")
    assert list(line["coefficient"]) == [-0.5, 0, 0.5, 1, 1.5]
    for part, place in (("lb", 0.0), ("sb", 1.0)):
        record = read_table(results / f"mnist_basins_{part}/seed0/history.parquet", "history")
        found = line[line["coefficient"] == place].iloc[0]
        for column in line.columns.drop("coefficient"):
            assert found[column] == record[column].iloc[-1]
    table = pd.read_csv(project / "tables/barriers_mnist.csv")
    assert list(table["loss"]) == ["train", "test"]
    assert list(table["to"]) == ["mnist_basins_sb seed 0"] * 2
    sharpness = pd.read_csv(project / "tables/sharpness_mnist.csv")
    assert list(sharpness["experiment"]) == ["mnist_basins_lb"] * 3 + ["mnist_basins_sb"] * 3
    assert list(sharpness["order"]) == [1, 2, 3] * 2
    assert not planned(project, *targets)


def test_plane_and_line_between_seeds_ask_for_an_aligned_network(project: Path) -> None:
    plan = planned(project, "figures/plane_mnist.pdf")
    expected = {"align_units": 1, "evaluate_plane": 1, "render_plane": 1}
    expected |= {"train_mnist_basins_lb": 1, "train_mnist_basins_sb": 1}  # of the other seed
    assert plan == Counter(expected)
    config = basins_config()
    config["tables"]["barriers_mnist"] |= {"seeds": [0, 1]}
    write_config(project, config)
    plan = planned(project, "tables/barriers_mnist.csv")
    assert (plan["evaluate_line"], plan["align_units"]) == (3, 1)
    write_config(project, basins_config())


def test_cifar10_that_is_not_there_stops_its_own_figures_alone(project: Path) -> None:
    plan = planned(project)
    assert plan["render_plane"] == 1
    assert plan["train_cifar10_basins_lb"] == 0
    output = snakemake(project, "--cores", "1", "figures/fig8.pdf", check=False)
    assert "here/cifar10/data_batch_1.bin does not exist; put the six files" in output
    assert "or set source: download" in output
    assert not (project / "figures/fig8.pdf").exists()


def test_cifar10_that_is_there_is_built_too_but_is_no_stage(project: Path) -> None:
    (project / "here").mkdir()
    write_files(project / "here/cifar10")
    plan = planned(project)
    assert (plan["train_cifar10_basins_lb"], plan["train_cifar10_basins_sb"]) == (2, 2)
    assert planned(project, "offline")["train_cifar10_basins_lb"] == 0
    snakemake(project, "--cores", "1", "results/datasets/cifar10.safetensors")


def test_scaled_example_is_a_valid_overlay_with_names_of_its_own() -> None:
    full = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    overlay = yaml.safe_load((REPOSITORY / "examples/cifar10_scaled.yaml").read_text())
    merged = {key: full[key] | overlay.get(key, {}) for key in full}
    assert overlay.keys() <= full.keys()
    for section, entries in overlay.items():
        assert not entries.keys() & full[section].keys()
    config = validate_config(merged)
    for part in ("lb", "sb"):
        scaled = config.experiments[f"cifar10_scaled_{part}"]
        paper = config.experiments[f"cifar10_basins_{part}"]
        assert scaled.model == paper.model
        for name in ("batch_size", "algorithm", "dtype"):
            assert getattr(scaled.training, name) == getattr(paper.training, name)


def test_configured_parts_are_those_of_the_paper() -> None:
    config = validate_config(yaml.safe_load((REPOSITORY / "config.yaml").read_text()))
    for name, batch_size in (("lb", 1000), ("sb", 32)):
        for data in ("cifar10", "mnist"):
            assert config.experiments[f"{data}_basins_{name}"].training.batch_size == batch_size
        training = config.experiments[f"cifar10_basins_{name}"].training
        assert training.record_every == 100
        assert training.num_steps == 250 * 100
    assert config.datasets["cifar10"].num_train == 50_000

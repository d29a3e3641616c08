"""The configurations of this repository, compared with the paper and with the main one."""

from __future__ import annotations

import yaml
from small_project import REPOSITORY

from hesspipe.config.loading import load_config, validate_config


def test_scaled_example_is_a_valid_overlay_with_names_of_its_own() -> None:
    full = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    overlay = yaml.safe_load((REPOSITORY / "examples/cifar10_scaled.yaml").read_text())
    assert overlay.keys() <= full.keys()
    for section, entries in overlay.items():
        assert not entries.keys() & full[section].keys()
    merged = full | {key: full[key] | overlay[key] for key in overlay}
    config = validate_config(merged, str(REPOSITORY / "config.yaml"))
    for part in ("lb", "sb"):
        scaled = config.experiments[f"cifar10_scaled_{part}"]
        paper = config.experiments[f"cifar10_basins_{part}"]
        assert scaled.model == paper.model
        for name in ("batch_size", "algorithm", "dtype"):
            assert getattr(scaled.training, name) == getattr(paper.training, name)


def test_configured_parts_are_those_of_the_paper() -> None:
    config = load_config(REPOSITORY / "config.yaml")
    for name, batch_size in (("lb", 1000), ("sb", 32)):
        for data in ("cifar10", "mnist"):
            training = config.experiments[f"{data}_basins_{name}"].training
            assert training.model_dump()["batch_size"] == batch_size
        training = config.experiments[f"cifar10_basins_{name}"].training
        assert training.model_dump()["record_every"] == 100
        assert training.model_dump()["num_steps"] == 250 * 100
    assert config.datasets["cifar10"].model_dump()["num_train"] == 50_000

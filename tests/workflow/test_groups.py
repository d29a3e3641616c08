"""Patterns of groups are matched with the parameters of the paper's networks."""

from __future__ import annotations

import pytest
from small_project import SMALL, small_config

from hesspipe.config.expansion import expand
from hesspipe.config.schema import Config
from hesspipe.workflow.groups import unmatched_groups

# Each network with the pattern of its first weight.
NETWORKS = {
    "clusters_gd_k2": "1.weight",
    "digits_lb": "0.weight",
}


def with_groups(experiment: str, patterns: list[str]) -> Config:
    """The small configuration with a group of parameters in one experiment."""
    config = small_config()
    plan = {**config["experiments"]["digits_lb"]["matrix_free"], "groups": {"part": patterns}}
    config["experiments"][experiment]["matrix_free"] = plan
    return Config.model_validate(expand(config, SMALL).raw)


@pytest.mark.parametrize("pattern", ["0.weights", "weight", "*.scale", "99.*"])
@pytest.mark.parametrize("experiment", NETWORKS)
def test_pattern_that_matches_no_parameter_is_found(experiment: str, pattern: str) -> None:
    (line,) = unmatched_groups(with_groups(experiment, ["*", pattern]))
    assert line.startswith(f"experiments.{experiment}.matrix_free.groups.part must match")
    assert repr(pattern) in line
    nearest = line.partition("the nearest are")[2]
    assert ".weight" in nearest or ".bias" in nearest


@pytest.mark.parametrize(("experiment", "weight"), NETWORKS.items())
def test_pattern_that_matches_a_parameter_is_accepted(experiment: str, weight: str) -> None:
    assert not list(unmatched_groups(with_groups(experiment, [weight, "*.bias"])))

"""The profile for Slurm, its page, and the executor, without a cluster."""

from __future__ import annotations

import re
import shlex
import tomllib

import yaml
from cluster_page import commands_of_page
from small_project import REPOSITORY

PROFILE = yaml.safe_load((REPOSITORY / "profiles/slurm/profile.yaml").read_text())
DEFAULT = yaml.safe_load((REPOSITORY / "profiles/default/profile.yaml").read_text())


def test_page_names_the_options_of_the_profile() -> None:
    page = (REPOSITORY / "docs/cluster.md").read_text()
    for name in ("retries", "jobs", "group-components", "latency-wait", "local-cores"):
        assert name in PROFILE
        assert f"`{name}`" in page
    for command in commands_of_page():
        assert shlex.split(command)[:3] == ["snakemake", "--workflow-profile", "profiles/slurm"]


def test_profile_reruns_what_the_default_one_does() -> None:
    shared = set(DEFAULT) - {"resources"}
    assert {name: PROFILE.get(name) for name in shared} == {name: DEFAULT[name] for name in shared}
    # One GPU is that of this machine.
    assert "resources" not in PROFILE


def test_constraints_pin_the_executor_and_what_it_installs() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (needed,) = extras["optional-dependencies"]["slurm"]
    pinned = (REPOSITORY / "envs/constraints.txt").read_text().splitlines()
    name = re.split("[<>=]", needed)[0]
    assert [line.split("==")[0] for line in pinned if line.startswith(name)] == [
        name, f"{name}-jobstep",
    ]  # fmt: skip

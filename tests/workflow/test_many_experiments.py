"""What a dry run does once does not depend on the number of experiments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import REPOSITORY, SMALL, small_config

from hesspipe.config.expansion import expand
from hesspipe.config.schema import Config
from hesspipe.workflow.project import Project

# Builds the graph of a configuration and counts.
COUNT = """
import json, sys
from collections import Counter
from hesspipe.workflow import code_files
from hesspipe.workflow.adopt import job_graph, jobs_of

counts = Counter()
closure = code_files.code_closure
def counted(script, *arguments):
    counts[script] += 1
    return closure(script, *arguments)
code_files.code_closure = counted

config = json.load(sys.stdin)
with job_graph(sys.argv[1], config) as graph:
    jobs = list(jobs_of(graph))
    print(json.dumps({
        "rules": len(list(graph.workflow.rules)),
        "jobs": len(jobs),
        "closures": max(counts.values()),
        "inputs": max(len(job.inputs) for job in jobs if job.job.rule.name != "summarize_outliers"),
    }))
"""


def with_experiments(number: int) -> dict[str, object]:
    """The small configuration with a grid of experiments on clusters, and nothing else."""
    config = small_config()
    plan = config["experiments"]["clusters_sgd_k3"]
    grid = {**plan, "for": {"number": list(range(number))}}
    figure = config["figures"]["gaps"] | {"experiments": ["run_0"]}
    datasets = {"clusters_k{k}": config["datasets"]["clusters_k{k}"]}
    return {
        "trainings": config["trainings"], "models": config["models"], "datasets": datasets,
        "experiments": {"run_{number}": grid}, "spectrum": config["spectrum"],
        "outliers": config["outliers"], "figures": {"gaps": figure},
    }  # fmt: skip


def counts(number: int, folder: Path) -> dict[str, int]:
    """Count what a dry run of many experiments does."""
    folder.mkdir()
    config = with_experiments(number)
    (folder / "config.yaml").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(REPOSITORY / "Snakefile")],
        input=json.dumps(config), cwd=folder, capture_output=True, text=True,
        env=os.environ | {"HESSPIPE_SETTLING": "1", "PYTHONPATH": str(REPOSITORY)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_rules_closures_and_inputs_do_not_grow_with_the_number_of_experiments(
    tmp_path: Path,
) -> None:
    few, many = (counts(number, tmp_path / str(number)) for number in (2, 20))
    assert many["jobs"] - few["jobs"] == 18 * (1 + 2 + 1)  # training, spectra, outliers
    assert many["rules"] == few["rules"]
    assert many["closures"] == few["closures"] == 1
    # A dataset, a checkpoint and the code; the outliers of both spectra.
    assert many["inputs"] == few["inputs"] == 3


def test_grid_of_thousands_is_within_the_bounds() -> None:
    expansion = expand(with_experiments(9000), SMALL)
    assert not expansion.mistakes
    assert len(expansion.raw["experiments"]) == 9000


def test_experiments_with_equal_schedules_share_a_rule() -> None:
    raw = with_experiments(5)
    own = {**small_config()["experiments"]["clusters_gd_k2"], "dataset": "clusters_k3"}
    longer = {**own, "training": {"like": "gd", "num_steps": 40}}
    raw["experiments"] = {**raw["experiments"], "same": own, "longer": longer}  # type: ignore[dict-item]
    project = Project(Config.model_validate(expand(raw, SMALL).raw), str(REPOSITORY))
    runs = [f"run_{number}" for number in range(5)]
    assert project.schedules == {"20_every_20": [*runs, "same"], "40_every_20": ["longer"]}


@pytest.mark.parametrize(
    "names", [[], ["run_1"], ["run_1", "run_10"], [f"run_{number}" for number in range(11)]]
)
def test_only_matches_the_given_experiments_and_no_others(names: list[str]) -> None:
    project = Project(Config.model_validate(expand(with_experiments(12), SMALL).raw), "")
    found = [
        name
        for name in project.config.experiments
        if re.fullmatch(f"(?P<experiment>{project.only(names)})/seed0", f"{name}/seed0")
    ]
    assert found == names

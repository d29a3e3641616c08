"""DVC's stages are Snakemake's jobs, in this repository and through a round trip of a small one."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_workflow import (
    EXPERIMENTS,
    REPOSITORY,
    environment,
    make_project,
    planned,
    small_config,
    snakemake,
    write_config,
)

from hesspipe.tables.store import read_table
from hesspipe.workflow.stages import dvc_stages, read_jobs, to_yaml


def run(folder: Path, *command: str, check: bool = True) -> str:
    """Run a command in a project and return what it printed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0 or not check, output
    return output if check else f"{output}\nexit {done.returncode}"


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message)


def changed_stages(folder: Path) -> set[str]:
    return set(json.loads(run(folder, "dvc", "status", "--json").splitlines()[0]))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project built by Snakemake and recorded by DVC, pushed to a remote beside it."""
    folder = make_project(tmp_path_factory.mktemp("recorded") / "project")
    run(folder, "git", "init", "-q")
    (folder / ".gitignore").write_text((REPOSITORY / ".gitignore").read_text())
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "config", "core.analytics", "false")
    run(folder, "dvc", "remote", "add", "-d", "local", str(folder.parent / "remote"))
    run(folder, "python", "-m", "hesspipe.workflow.stages")
    snakemake(folder, "--cores", "2")
    run(folder, "dvc", "commit", "-f", "-q")
    commit(folder, "First results")
    run(folder, "dvc", "push", "-q")
    return folder


@pytest.fixture
def clone(recorded: Path, tmp_path: Path) -> Path:
    """A fresh clone: sources and dvc.lock, no result and no cache."""
    folder = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(recorded), str(folder))
    return folder


def test_stages_of_this_repository_are_the_jobs_of_its_graph() -> None:
    from dvc.repo import Repo

    jobs = {job.name: job for job in read_jobs(REPOSITORY / "Snakefile")}
    stages = {stage.addressing: stage for stage in Repo(str(REPOSITORY)).index.stages}
    assert set(stages) == set(jobs)
    for name, job in jobs.items():
        stage = stages[name]
        files = [dep for dep in stage.deps if type(dep).__name__ != "ParamsDependency"]
        params = [dep for dep in stage.deps if type(dep).__name__ == "ParamsDependency"]
        assert sorted(dep.def_path for dep in files) == list(job.inputs), name
        assert sorted(out.def_path for out in stage.outs) == list(job.outputs), name
        assert {key for dep in params for key in dep.params} == set(job.config_keys), name
        assert f"--allowed-rules {job.rule} --force" in stage.cmd


def test_dvc_yaml_is_up_to_date() -> None:
    expected = to_yaml(dvc_stages(read_jobs(REPOSITORY / "Snakefile")))
    assert (REPOSITORY / "dvc.yaml").read_text() == expected, "run: make dvc.yaml"


def test_config_of_a_stage_is_what_its_job_is_given() -> None:
    jobs = {job.name: job for job in read_jobs(REPOSITORY / "Snakefile")}
    name = "clusters_gd_relu_k10_cov1"
    assert jobs[f"train_{name}-seed0"].config_keys == (
        f"experiments.{name}.model",
        f"experiments.{name}.training",
    )
    assert jobs["make_dataset-clusters_k10_cov1"].config_keys == ("datasets.clusters_k10_cov1",)


def test_repro_without_a_change_runs_nothing(recorded: Path) -> None:
    output = run(recorded, "dvc", "repro")
    assert "Data and pipelines are up to date" in output
    assert "Running stage" not in output


def test_pulled_results_are_adopted(clone: Path) -> None:
    run(clone, "dvc", "pull", "-q")
    assert "adopted" in run(clone, "python", "-m", "hesspipe.workflow.adopt")
    assert not planned(clone)
    assert "up to date" in run(clone, "dvc", "repro")


def test_pulled_tables_alone_are_adopted(clone: Path) -> None:
    spectra = f"results/{EXPERIMENTS[0]}/seed0/spectra/step20_hessian.parquet"
    run(clone, "dvc", "pull", "-q", spectra, f"results/{EXPERIMENTS[0]}/seed0/outliers.parquet")
    run(clone, "python", "-m", "hesspipe.workflow.adopt")
    assert len(read_table(clone / spectra, "spectrum")) == 23
    assert not (clone / "figures/fig1.pdf").exists()


def test_adoption_is_refused_where_the_results_are_of_other_settings(clone: Path) -> None:
    run(clone, "dvc", "pull", "-q")
    config = small_config()
    config["experiments"][EXPERIMENTS[0]]["training"]["step_size"] = 0.3
    write_config(clone, config)
    output = run(clone, "python", "-m", "hesspipe.workflow.adopt", check=False)
    assert "exit 1" in output
    assert f"experiments.{EXPERIMENTS[0]}.training is modified" in output
    assert "dvc repro" in output


def test_repro_in_a_fresh_clone_builds_results_equal_to_the_last_bit(
    recorded: Path, clone: Path
) -> None:
    stage = f"count_outliers-{EXPERIMENTS[1]}-seed0"
    output = run(clone, "dvc", "repro", stage)
    assert output.count("Running stage") == 5  # data, training, two spectra, counts
    path = f"results/{EXPERIMENTS[1]}/seed0/outliers.parquet"
    assert (clone / path).read_bytes() == (recorded / path).read_bytes()
    assert run(clone, "git", "diff", "--stat", "dvc.lock") == ""


def test_edited_step_size_changes_its_training_alone(clone: Path) -> None:
    run(clone, "dvc", "pull", "-q")
    config = small_config()
    config["experiments"][EXPERIMENTS[1]]["training"]["step_size"] = 0.2
    write_config(clone, config)
    assert changed_stages(clone) == {f"train_{EXPERIMENTS[1]}-seed0"}
    plan = run(clone, "dvc", "repro", "--dry")
    ran = set(re.findall(r"Running stage '([\w-]+)'", plan))
    assert f"train_{EXPERIMENTS[1]}-seed0" in ran
    assert not [name for name in ran if EXPERIMENTS[0] in name or "render_endpoints" in name]


def test_edited_module_changes_the_stages_that_import_it(clone: Path) -> None:
    run(clone, "dvc", "pull", "-q")
    with (clone / "hesspipe/claims/check.py").open("a") as file:
        file.write("# edited\n")
    assert changed_stages(clone) == {"check_claims", "tabulate_claims"}


def test_changed_numbers_show_as_readable_differences(clone: Path) -> None:
    run(clone, "dvc", "pull", "-q")
    config = small_config()
    config["experiments"][EXPERIMENTS[1]]["training"]["step_size"] = 0.2
    config["outliers"]["num_candidates"] = 2
    write_config(clone, config)
    params: list[dict[str, Any]] = json.loads(run(clone, "dvc", "params", "diff", "--json"))[
        "config.yaml"
    ]
    assert params[f"experiments.{EXPERIMENTS[1]}.training.step_size"] == {
        "old": 0.1,
        "new": 0.2,
        "diff": pytest.approx(0.1),
    }
    assert len(params) == 2
    run(clone, "python", "-m", "hesspipe.workflow.stages", "--check")
    run(clone, "dvc", "repro", "summarize_outliers")
    metrics = json.loads(run(clone, "dvc", "metrics", "diff", "--json"))["metrics/outliers.json"]
    name = f"{EXPERIMENTS[0]}_seed0"
    assert all(set(change) == {"old", "new", "diff"} for change in metrics.values())
    assert any(key.startswith(name) for key in metrics)


def test_stale_stages_are_noticed(clone: Path) -> None:
    config = small_config()
    config["figures"]["fig1_again"] = config["figures"]["fig1"]
    write_config(clone, config)
    check = ("python", "-m", "hesspipe.workflow.stages", "--check")
    assert "run: make dvc.yaml" in run(clone, *check, check=False)
    run(clone, "python", "-m", "hesspipe.workflow.stages")
    run(clone, *check)
    assert (
        "render_endpoints-fig1_again" in yaml.safe_load((clone / "dvc.yaml").read_text())["stages"]
    )

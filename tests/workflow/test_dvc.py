"""DVC and Snakemake together: restoring, running and recording results."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from small_project import Project

from hesspipe.workflow.stages import STAGES

# Numbers of jobs that depend on the step size of one experiment.
STEP_SIZE = ("config.yaml", "sgd: {like: gd,", "sgd: {like: gd, step_size: 0.2,")
RERUN = Counter(
    train_clusters_sgd_k3=1, extract_spectrum=2, count_outliers=1, summarize_outliers=1,
    render_figure=1, render_table=1, check_claims=1,
)  # fmt: skip
CHANGED = [
    "results/histories/clusters_sgd_k3/seed0.parquet",
    "results/spectra/clusters_sgd_k3/seed0/step20_hessian.parquet",
    "results/outliers/clusters_sgd_k3/seed0.parquet",
    "figures/gaps.png",
    "tables/outlier_counts.csv",
]


def stages_run(output: str) -> set[str]:
    """Find the stages that `dvc repro` has run."""
    return {stage for stage in ["sources", *STAGES] if f"Running stage '{stage}'" in output}


def restore(project: Project, branch: str, *targets: str) -> None:
    """Check a branch out, and let DVC restore its results."""
    project.run("git", "checkout", "-q", branch)
    project.run("dvc", "checkout", "-q", "--force", *targets)


@pytest.fixture(scope="module")
def both(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project on branch b, with the results of branches a and b in DVC's cache."""
    project = finished.copy_to(tmp_path_factory.mktemp("both") / "project")
    project.run("git", "branch", "-M", "a")
    project.run("git", "checkout", "-qb", "b")
    project.edit(*STEP_SIZE)
    output = project.run("dvc", "repro")
    assert {"sources", "training", "spectra", "outliers", "figures"} <= stages_run(output)
    project.commit("Other results")
    for path in CHANGED:
        assert project.read(path) != finished.read(path), path
    return project


@pytest.fixture
def on_b(both: Project, tmp_path: Path) -> Project:
    """A copy of the project with two branches."""
    return both.copy_to(tmp_path / "project")


def test_repro_without_a_change_runs_nothing(project: Project) -> None:
    project.run(sys.executable, "-m", "compileall", "-q", "hesspipe/config")  # as imports do
    output = project.run("dvc", "repro")
    assert "Data and pipelines are up to date" in output
    assert not stages_run(output)


def test_checkout_after_a_loss_has_nothing_to_do(project: Project) -> None:
    (project.folder / "figures/gaps.pdf").unlink()
    (project.folder / "results/histories/digits_lb/seed0.parquet").unlink()
    project.run("dvc", "checkout", "-q")
    assert project.is_finished()
    assert not stages_run(project.run("dvc", "repro"))


def test_pulled_results_have_nothing_to_do(clone: Project) -> None:
    clone.run("dvc", "pull", "-q")
    assert "adopted" in clone.snakemake("-n")
    assert clone.is_finished()
    assert not stages_run(clone.run("dvc", "repro"))


def test_pulled_stage_alone_has_nothing_to_do(clone: Project) -> None:
    origins = [f"results/origins/{stage}" for stage in ("datasets", "training")]
    clone.run("dvc", "pull", "-q", "spectra")
    clone.run("dvc", "pull", "-q", *origins)
    assert not (clone.folder / "results/checkpoints").exists()
    path = "results/spectra/clusters_gd_k2/seed0/step20_hessian.parquet"
    assert clone.is_finished(path)
    assert clone.planned("results/outliers/clusters_gd_k2/seed0.parquet") == {"count_outliers": 1}


def test_pulled_results_of_another_configuration_are_set_aside(
    both: Project, clone: Project
) -> None:
    clone.run("dvc", "pull", "-q")
    clone.edit(*STEP_SIZE)
    assert clone.planned() == RERUN
    assert (clone.folder / ".hesspipe/set_aside" / CHANGED[0]).exists()
    clone.snakemake()
    for path in CHANGED:
        assert clone.read(path) == both.read(path), path


def test_repro_of_a_stage_runs_it_and_what_it_needs(finished: Project, clone: Project) -> None:
    clone.edit("config.yaml", "for: {k: [2, 3]}", "for: {k: [2, 3]} # the same")
    output = clone.run("dvc", "repro", "datasets")
    assert stages_run(output) == {"sources", "datasets"}
    path = "results/datasets/clusters_k2.safetensors"
    assert clone.read(path) == finished.read(path)
    assert not (clone.folder / "results/checkpoints").exists() or not list(
        (clone.folder / "results/checkpoints").rglob("*.safetensors")
    )


def test_back_and_forth_between_configurations_with_snakemake(
    finished: Project, both: Project, on_b: Project
) -> None:
    restore(on_b, "a")
    assert on_b.is_finished()
    on_b.run("git", "checkout", "-q", "b")
    assert on_b.planned() == RERUN
    on_b.snakemake()
    for path in CHANGED:
        assert on_b.read(path) == both.read(path) != finished.read(path), path


def test_back_and_forth_between_configurations_with_restored_results(
    both: Project, on_b: Project
) -> None:
    for branch in ("a", "b"):
        restore(on_b, branch)
        assert on_b.is_finished()
    for path in CHANGED:
        assert on_b.read(path) == both.read(path), path


@pytest.mark.parametrize("is_restored", [False, True])
def test_back_and_forth_between_configurations_with_dvc(
    both: Project, on_b: Project, is_restored: bool
) -> None:
    restore(on_b, "a")
    assert not stages_run(on_b.run("dvc", "repro"))
    on_b.run("git", "checkout", "-q", "b")
    if is_restored:
        on_b.run("dvc", "checkout", "-q", "--force")
    output = on_b.run("dvc", "repro")
    assert bool(stages_run(output)) is not is_restored
    for path in CHANGED:
        assert on_b.read(path) == both.read(path), path
    assert on_b.run("git", "status", "--porcelain") == ""  # dvc.lock, too


def test_results_restored_in_part_are_judged_one_by_one(both: Project, on_b: Project) -> None:
    restore(on_b, "a", "results/spectra", "results/origins/spectra")
    on_b.run("git", "checkout", "-q", "b")
    assert on_b.planned("spectra") == {"extract_spectrum": 2}
    on_b.snakemake()
    for path in CHANGED:
        assert on_b.read(path) == both.read(path), path


def test_one_restored_file_is_judged_alone(both: Project, on_b: Project) -> None:
    path = "results/outliers/clusters_sgd_k3/seed0.parquet"
    on_b.run("git", "checkout", "-q", "a")
    on_b.run("dvc", "checkout", "-q", "--force", path)
    on_b.run("git", "checkout", "-q", "b")
    assert on_b.read(path) != both.read(path)
    assert on_b.planned(path) == {"count_outliers": 1}
    on_b.snakemake()
    assert on_b.read(path) == both.read(path)


def test_restored_figure_with_another_setting_is_rendered_again(on_b: Project) -> None:
    restore(on_b, "a")
    on_b.edit("config.yaml", "rule: ratio, num_largest: 10}", "rule: ratio, num_largest: 9}")
    assert on_b.planned() == {"render_figure": 1}


def test_results_of_other_code_are_built_again(on_b: Project) -> None:
    module = "hesspipe/figures/gaps.py"
    on_b.run("git", "checkout", "-qb", "c")
    on_b.write(module, on_b.read(module).decode() + "\n# other code\n")
    on_b.commit("Other code")
    restore(on_b, "b")
    assert on_b.is_finished()
    on_b.run("git", "checkout", "-q", "c")
    assert on_b.planned() == {"render_figure": 1}
    on_b.run("git", "checkout", "-q", "b")
    assert on_b.is_finished()


def test_outputs_left_over_from_another_configuration_are_not_recorded(project: Project) -> None:
    project.edit("config.yaml", "\n  ordered: {", "\n  ordered_magnitudes: {")
    project.run("dvc", "repro", "--single-item", "sources", "figures")
    assert (project.folder / "figures/ordered_magnitudes.pdf").exists()
    assert not (project.folder / "figures/ordered.pdf").exists()
    assert not (
        project.folder / "results/origins_of_products/figures/figures/ordered.pdf.json"
    ).exists()


def test_edited_module_reruns_no_figure_where_the_results_come_out_equal(project: Project) -> None:
    paths = ["results/outliers/clusters_sgd_k3/seed0.parquet", "figures/gaps.pdf"]
    before = {path: (project.folder / path).stat().st_mtime_ns for path in paths}
    module = "hesspipe/outliers.py"
    project.write(module, project.read(module).decode() + "\n# other code\n")
    assert {"outliers", "figures"} <= stages_run(project.run("dvc", "repro"))
    is_new = [(project.folder / path).stat().st_mtime_ns != before[path] for path in paths]
    assert is_new == [True, False]


def test_edited_user_module_is_noticed_by_dvc(project: Project) -> None:
    project.edit("networks.py", "nn.Tanh()", "nn.Sigmoid()")
    before = project.read("results/checkpoints/user/seed0/step20.safetensors")
    output = project.run("dvc", "repro", "training")
    assert {"sources", "training"} <= stages_run(output)
    assert project.read("results/checkpoints/user/seed0/step20.safetensors") != before


def test_user_file_that_dvc_does_not_watch_stops_its_stages_alone(project: Project) -> None:
    project.edit("dvc.yaml", ", networks.py", "")
    project.edit("config.yaml", "for: {k: [2, 3]}", "for: {k: [2, 3]} # the same")
    assert "dvc.yaml must include every file" in project.snakemake("-n")
    output = project.run("dvc", "repro", "datasets", check=False)
    assert "but lack networks.py; add these files" in output
    assert not output.endswith("exit 0")


def test_changed_numbers_show_as_readable_differences(on_b: Project) -> None:
    parameters = json.loads(on_b.run("dvc", "params", "diff", "a", "--json"))["config.yaml"]
    assert parameters == {"trainings.sgd.step_size": {"old": None, "new": 0.2}}
    metrics = json.loads(on_b.run("dvc", "metrics", "diff", "a", "--json"))
    assert set(metrics) <= {"metrics/outliers.json", "claims.json"}
    changes = [change for file in metrics.values() for change in file.values()]
    assert changes
    assert all({"old", "new"} <= set(change) for change in changes)

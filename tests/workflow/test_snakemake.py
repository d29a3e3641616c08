"""Jobs that Snakemake runs at first, and again after an edit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from cifar10_files import write_files
from report_in_browser import find_browser, open_report
from safetensors.torch import save_file
from small_project import Project, make_project, small_config

from hesspipe.tables.store import read_result

SPECTRA = "results/spectra/clusters_gd_k2/seed0"


def test_everything_is_built(finished: Project) -> None:
    config = small_config()
    for figure in config["figures"]:
        for suffix in ("pdf", "png"):
            path = finished.folder / f"figures/{figure}.{suffix}"
            assert path.exists() == (figure != "photographs"), path
    for table in config["tables"]:
        for suffix in ("csv", "md", "tex", "html"):
            path = finished.folder / f"tables/{table}.{suffix}"
            assert path.exists() == (table != "photographs"), path
    table = pd.read_csv(finished.folder / "tables/outlier_counts.csv")
    assert list(table["num_parameters"]) == [4 * 3 + 3 + 3 * 2 + 2, 4 * 3 + 3 + 3 * 3 + 3]
    assert not list((finished.folder / ".hesspipe").glob("training/*"))


def test_results_agree_with_each_other(finished: Project) -> None:
    results = finished.folder / "results"
    sums = {
        matrix: read_result(finished.folder / SPECTRA / f"step20_{matrix}.parquet", "spectrum")
        .table["eigenvalue"]
        .sum()
        for matrix in ("hessian", "ggn", "residual")
    }
    assert sums["hessian"] == pytest.approx(sums["ggn"] + sums["residual"], rel=1e-10)
    line = read_result(results / "landscape/digits_sb/seed0/line.parquet", "line").table
    assert list(line["coefficient"]) == [-0.5, 0, 0.5, 1, 1.5]
    for part, place in (("lb", 0.0), ("sb", 1.0)):
        history = read_result(results / f"histories/digits_{part}/seed0.parquet", "history").table
        found = line[line["coefficient"] == place].iloc[0]
        for column in line.columns.drop("coefficient"):
            assert found[column] == history[column].iloc[-1]
    sharpness = pd.read_csv(finished.folder / "tables/sharpness.csv")
    assert list(sharpness["experiment"]) == ["digits_lb"] * 2 + ["digits_sb"] * 2
    assert list(sharpness["order"]) == [1, 2] * 2


def test_saved_state_has_its_results(finished: Project) -> None:
    results = finished.folder / "results"
    pairs = read_result(results / "eigenpairs/saved/seed0/step0_hessian.parquet", "eigenpairs")
    density = read_result(results / "densities/saved/seed0/step0_hessian_network.parquet")
    outliers = read_result(results / "outliers/saved/seed0.parquet", "outliers").table
    assert pairs.provenance["num_parameters"] == density.provenance["num_parameters"] == 21
    assert pairs.provenance["model"]["function"] == "networks:build"
    largest = pairs.table.loc[pairs.table["end"] == "largest", "eigenvalue"]
    assert outliers["num_outliers"][0] == (largest > outliers["cutoff"][0]).sum()
    # The largest node of a density is the largest eigenvalue, up to what 8 steps can find.
    assert density.table["node"].max() == pytest.approx(largest.max(), rel=1e-2)


@pytest.mark.skipif(find_browser() is None, reason="no chromium is installed to open it with")
def test_report_opens_offline_with_every_figure_and_no_error(project: Project) -> None:
    project.snakemake("--report", "report.html")
    seen = open_report(str(find_browser()), project.folder / "report.html")
    assert not seen["errors"]
    assert not [line for line in seen["console"] if "ERROR" in line.split("CONSOLE")[0]]
    config, results = small_config(), seen["results"]
    figures = set(config["figures"]) - {"photographs"}
    for figure in figures:
        assert results[f"2. Figures: {figure}"] == {"kind": "figure", "width": 1100}, figure
    pages = [f"3. Tables: {table}" for table in set(config["tables"]) - {"photographs"}]
    for page in [*pages, "1. Claims: every statement, with its verdict"]:
        assert results[page]["kind"] == "page", page
        assert results[page]["size"] > 1000, page
    assert len(results) == len(figures) + len(pages) + 1


def test_second_run_has_nothing_to_do(project: Project) -> None:
    assert project.is_finished()


def test_touched_sources_rerun_nothing(project: Project) -> None:
    for path in [*project.folder.glob("hesspipe/**/*.py"), *project.folder.glob("scripts/*.py")]:
        path.touch()
    assert project.is_finished()


def test_edited_step_size_reruns_its_experiment_and_what_depends_on_it(project: Project) -> None:
    project.edit("config.yaml", "sgd: {like: gd,", "sgd: {like: gd, step_size: 0.2,")
    assert project.planned() == Counter(
        train_clusters_sgd_k3=1, extract_spectrum=2, count_outliers=1, render_figure=1,
        render_table=1, check_claims=1, summarize_outliers=1,
    )  # fmt: skip


def test_swapped_numbers_are_noticed(project: Project) -> None:
    # Snakemake compares parameters as a set of values: it does not notice two swapped ones.
    before, after = (f"num_parameters: {p},\n    num_samples: {n}" for p, n in ((12, 24), (24, 12)))
    project.edit("config.yaml", before, after)
    path = "results/random_matrices/spiked_spectra/parts.parquet"
    assert project.planned(path) == {"sample_spiked_spectra": 1}


def test_reordered_keys_rerun_nothing(project: Project) -> None:
    project.edit(
        "config.yaml",
        "{algorithm: gd, step_size: 0.1, num_steps: 20,",
        "{num_steps: 20, algorithm: gd, step_size: 0.1,",
    )
    assert project.is_finished()


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("hesspipe/figures/gaps.py", Counter(render_figure=1)),
        ("hesspipe/tables/inertia.py", Counter(render_table=1)),
        ("hesspipe/claims/check.py", Counter(check_claims=1)),
        ("hesspipe/workflow/jobs.py", Counter()),
        ("networks.py", None),
    ],
)
def test_edited_module_reruns_what_imports_it(
    project: Project, module: str, rules: Counter[str] | None
) -> None:
    original = project.read(module).decode()
    project.write(module, original + "\n# edited\n")
    if rules is None:
        plan = project.planned()
        assert plan["make_dataset"] == plan["train_user"] == plan["import_state"] == 1
        assert (plan["estimate_density"], plan["find_eigenpairs"]) == (3, 2)
        assert not [rule for rule in plan if "clusters" in rule or "digits" in rule]
    else:
        assert project.planned() == rules
    project.write(module, original)
    assert project.is_finished()


def test_deleted_result_is_rebuilt_alone(project: Project) -> None:
    path = f"{SPECTRA}/step20_ggn.parquet"
    before = project.read(path)
    (project.folder / path).unlink()
    assert project.planned(path) == Counter(extract_spectrum=1)
    assert project.planned()["extract_spectrum"] == 1
    project.snakemake(path)
    assert project.read(path) == before
    assert project.is_finished()  # what depends on it sees equal bytes


@pytest.mark.parametrize(
    ("target", "present", "absent"),
    [
        ("figures/endpoints.pdf", {"train_clusters_gd_k2"}, {"count_outliers", "check_claims"}),
        ("figures/gaps.pdf", {"count_outliers"}, {"train_clusters_gd_k2", "check_claims"}),
        ("figures/plane.pdf", {"align_units", "evaluate_plane"}, {"evaluate_line", "train_user"}),
        ("tables/inertia.csv", {"extract_spectrum"}, {"render_figure", "train_digits_lb"}),
    ],
)
def test_target_builds_what_it_needs(
    tmp_path: Path, target: str, present: set[str], absent: set[str]
) -> None:
    plan = make_project(tmp_path).planned(target)
    assert plan["make_dataset"] == 1
    assert present <= set(plan)
    assert not absent & set(plan)


def test_line_between_seeds_needs_an_aligned_network(project: Project) -> None:
    project.edit(
        "config.yaml",
        "barriers: {kind: barriers, experiment: digits_sb, seeds: [0]}",
        "barriers: {kind: barriers, experiment: digits_sb, seeds: [0, 1]}",
    )
    (project.folder / "results/landscape/digits_sb/seed1/aligned_to_seed0.safetensors").unlink()
    plan = project.planned("tables/barriers.csv")
    assert (plan["evaluate_line"], plan["align_units"]) == (3, 1)


def test_new_figure_is_a_new_entry_of_the_config(project: Project) -> None:
    project.edit(
        "config.yaml",
        "\n  gaps:",
        "\n  again: {kind: endpoints, experiment: clusters_gd_k2, seed: 0, steps: [20],"
        " num_largest: 5}\n  gaps:",
    )
    assert project.planned() == Counter(render_figure=1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  gd: {algorithm: gd, step_size",
            "  gd: {algorithm: gd, step_sise",
            "step_sise is not a known key; did you mean step_size?",
        ),
        (
            "  gd: {algorithm: gd, step_size: 0.1",
            "  gd: {algorithm: gd, step_size: -0.1",
            "step_size must be greater than 0.0, got -0.1",
        ),
    ],
)
def test_mistake_in_the_config_is_one_line_and_starts_nothing(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    project = make_project(tmp_path)
    project.edit("config.yaml", old, new)
    output = project.snakemake(check=False)
    assert re.search(rf"config.yaml: \S+{re.escape(message)}", output), output
    assert "Traceback" not in output
    assert not (project.folder / "results").exists()


def test_mistake_in_a_user_network_is_said_in_one_line(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    config = project.read("config.yaml").decode()
    project.write("config.yaml", config.replace("networks:build", "networks:bild"))
    output = project.snakemake("-n", check=False)
    assert "must name a function of networks.py, which has" in output
    assert "Traceback" not in output


def test_state_of_another_network_is_refused_with_its_names(project: Project) -> None:
    save_file({"0.weight": torch.ones(5, 3)}, project.folder / "state.safetensors")
    output = project.snakemake("results/outliers/saved/seed0.parquet", check=False)
    assert "must hold the state dict of this network, but it lacks 0.bias" in output


def test_diverging_training_stops_with_step_and_step_size(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.edit("config.yaml", "sgd: {like: gd,", "sgd: {like: gd, step_size: 1.0e+29,")
    target = "results/histories/clusters_sgd_k3/seed0.parquet"
    output = project.snakemake(target, check=False)
    assert re.search(r"^training diverged: at step \d+ .* step_size 1e\+29", output, re.M)
    assert not (project.folder / target).exists()
    assert list((project.folder / ".hesspipe/training").glob("*/step0.safetensors"))


def test_cifar10_that_is_absent_stops_its_figures_alone(project: Project) -> None:
    output = project.snakemake("figures/photographs.pdf", check=False)
    assert "here/cifar10/data_batch_1.bin does not exist; put the six files" in output
    assert "or set source: download" in output
    assert not (project.folder / "figures/photographs.pdf").exists()


def test_cifar10_that_is_present_is_built_too_but_not_offline(project: Project) -> None:
    (project.folder / "here").mkdir()
    write_files(project.folder / "here/cifar10")
    plan = project.planned()
    assert (plan["train_photographs_lb"], plan["train_photographs_sb"]) == (1, 1)
    assert plan["check_downloaded_claims"] == 1
    assert project.is_finished("offline")
    assert project.is_finished("claims")


def test_damaged_result_is_built_again(project: Project) -> None:
    path = f"{SPECTRA}/step20_hessian.parquet"
    before = project.read(path)
    (project.folder / path).write_bytes(before[:-100])
    output = project.snakemake()
    assert "set aside 1 files of another configuration or code, or of unknown origin" in output
    assert project.read(path) == before
    assert project.is_finished()


def test_killed_workflow_leaves_nothing_half_written(finished: Project, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    targets = ["figures/endpoints.pdf", "figures/decomposition.pdf"]
    with subprocess.Popen(
        ["snakemake", "--cores", "2", *targets],
        cwd=project.folder, env=project.environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not list(project.folder.glob(f"{SPECTRA}/*.parquet")):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    for path in project.folder.glob(f"{SPECTRA}/*.parquet"):
        read_result(path, "spectrum")
    project.snakemake("--unlock", *targets)
    project.snakemake(*targets)
    # Hidden files are what the killed jobs had not finished.
    for path in project.folder.glob("results/*/clusters_gd_k2/**/[!.]*.*"):
        name = str(path.relative_to(project.folder))
        assert project.read(name) == finished.read(name), name

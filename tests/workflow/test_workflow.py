"""The Snakemake workflow, run for real on small networks in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from report_in_browser import find_browser, open_report

from hesspipe.tables.store import read_table

REPOSITORY = Path(__file__).parents[2]
SOURCES = ["Snakefile", "rules", "report", "scripts", "hesspipe", "profiles", "envs", "data"]
EXPERIMENTS = ["clusters_gd_relu_k2_cov1", "clusters_sgd_relu_k3_cov1"]


def small_config() -> dict[str, Any]:
    """The repository's configuration, cut to two experiments of a few parameters."""
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    data = config["datasets"]["clusters_k2_cov1"] | {
        "num_features": 4, "num_train": 30, "num_test": 20,
    }  # fmt: skip
    config["datasets"] = {
        "clusters_k2_cov1": data,
        "clusters_k3_cov1": data | {"num_clusters": 3},
    }
    experiments = {}
    for name, dataset, original in zip(
        EXPERIMENTS,
        config["datasets"],
        ["clusters_gd_relu_k10_cov1", "clusters_sgd_relu_k10_cov1"],
        strict=True,
    ):
        plan = config["experiments"][original]
        plan["training"] |= {"num_steps": 20, "record_every": 5, "checkpoint_every": 10}
        if "batch_size" in plan["training"]:
            plan["training"]["batch_size"] = 10
        plan["model"] |= {"hidden_widths": [3]}
        experiments[name] = plan | {"dataset": dataset, "spectra": dict(plan["spectra"])}
    experiments[EXPERIMENTS[0]]["spectra"] |= {"steps": "ends"}
    config["experiments"] = experiments
    config["figures"]["fig1"] |= {"experiment": EXPERIMENTS[0], "steps": [0, 20]}
    config["figures"]["fig2"] |= {"experiments": [EXPERIMENTS[1]], "step": 20}
    config["tables"]["table1"] |= {"experiments": EXPERIMENTS, "step": 20}
    for name in ("fig4", "fig6"):
        del config["figures"][name]
    for section in ("figures", "tables"):  # of trainings that go on; tests/test_basins_workflow.py
        for name, entry in list(config[section].items()):
            if "_basins_" in entry.get("experiment", ""):
                del config[section][name]
    del config["tables"]["batches"]
    for entry in (config["figures"]["fig3"], config["figures"]["fig5"], config["tables"]["width"]):
        entry |= {"experiments": [EXPERIMENTS[0]], "seeds": [0], "step": 20}
        if "labels" in entry:
            entry["labels"] = ["one"]
    config["figures"]["gallery_overlay"] |= {"experiment": EXPERIMENTS[0], "step": 20}
    for name in ("ordered", "outliers", "over_training"):  # the same tables; see test_gallery.py
        del config["figures"][f"gallery_{name}"]
    for section in ("figures", "tables"):
        config[section]["decomposition"] |= {"experiment": EXPERIMENTS[0]}
        config[section]["directions"] |= {"experiments": [EXPERIMENTS[0]]}
    config["figures"]["directions"]["labels"] = ["one"]
    for source in config["random_matrices"].values():
        small = {
            "linear_model": {"num_features": 12, "num_samples": 60, "num_groups": 20,
                             "num_positions": 10, "num_steps": min(5, source.get("num_steps", 0))},
            "spikes": {"num_samples": [20], "num_repeats": 10, "strengths": [1.0, 4.0]},
            "spiked_spectra": {"num_parameters": 12, "num_samples": 24, "num_repeats": 2},
        }  # fmt: skip
        source |= small[source["kind"]]
    for section in ("figures", "tables"):
        config[section]["fig10"]["sources"] = ["logistic_alpha1", "softmax_alpha2"]
        del config[section]["fig10_fixed"]
    config["random_matrices"] = {
        name: config["random_matrices"][name]
        for name in ("logistic_alpha1", "softmax_alpha2", "spikes", "spiked_spectra_alpha025",
                     "spiked_spectra_alpha2")
    }  # fmt: skip
    for name, claim in list(config["claims"].items()):
        is_on_images = any(part in str(claim) for part in ("mnist_", "cifar10_"))
        if is_on_images and claim["kind"] != "outliers_are_class_means":
            del config["claims"][name]
        elif "sources" in claim:
            present = [source for source in claim["sources"] if source in config["random_matrices"]]
            claim["sources"] = present
            if not present:
                del config["claims"][name]
        elif "groups" in claim:
            claim |= {"step": 20, "groups": [EXPERIMENTS]}
        elif claim["kind"] == "outliers_are_class_means":
            claim |= {"experiments": EXPERIMENTS}
        elif "experiment" in claim:
            claim |= {"experiment": EXPERIMENTS[0]}
        else:
            with_all_matrices = claim["kind"] in ("residual_is_small", "trivial_zeros")
            claim |= {
                "step": 20, "experiments": EXPERIMENTS[:1] if with_all_matrices else EXPERIMENTS,
            }  # fmt: skip
    return config


def write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def make_project(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in SOURCES:
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    write_config(folder, small_config())
    return folder


def environment(folder: Path) -> dict[str, str]:
    """The copied package comes before the installed one; tools come from this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(folder), "PATH": path, "HESSPIPE_DEVICE": "cpu"}


def snakemake(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run Snakemake and return what it printed."""
    done = subprocess.run(
        ["snakemake", *arguments],
        cwd=folder, env=environment(folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0 or not check, output
    return output


def planned(folder: Path, *targets: str) -> Counter[str]:
    """Rules that a dry run would run, and how often."""
    output = snakemake(folder, "--cores", "1", "-n", *targets)
    rules = re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)
    assert rules or "Nothing to be done" in output, output
    return Counter(rule for rule in rules if rule != "all")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every result built."""
    folder = make_project(tmp_path_factory.mktemp("finished"))
    snakemake(folder, "--cores", "2")
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, times included."""
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, copy_function=shutil.copy2)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_everything_is_built(finished: Path) -> None:
    for path in (
        "figures/fig1.pdf", "figures/fig1.png", "figures/fig2.pdf", "figures/fig2.png",
        "figures/fig3.pdf", "figures/fig5.pdf", "figures/gallery_overlay.pdf", "tables/width.csv",
        "figures/fig10.pdf", "figures/theorem1.pdf", "figures/theorem2.png", "tables/theorem1.csv",
        "figures/decomposition.pdf", "tables/decomposition.csv", "tables/claims.md",
        "figures/directions.pdf", "tables/directions.html", "tables/claims.html",
        "tables/table1.csv", "tables/table1.md", "tables/table1.tex", "claims.json",
        "metrics/outliers.json",
    ):  # fmt: skip
        assert (finished / path).stat().st_size > 0, path
    table = pd.read_csv(finished / "tables/table1.csv")
    assert list(table["num_parameters"]) == [4 * 3 + 3 + 3 * 2 + 2, 4 * 3 + 3 + 3 * 3 + 3]
    assert not (finished / ".hesspipe/training").exists() or not any(
        (finished / ".hesspipe/training").iterdir()
    )


@pytest.mark.skipif(find_browser() is None, reason="no chromium is installed to open it with")
def test_report_opens_offline_with_every_figure_and_no_error(finished: Path) -> None:
    snakemake(finished, "--cores", "1", "--report", "report.html")
    seen = open_report(str(find_browser()), finished / "report.html")
    assert not seen["errors"]
    assert not [line for line in seen["console"] if "ERROR" in line.split("CONSOLE")[0]]
    config = small_config()
    results = seen["results"]
    for figure in config["figures"]:
        assert results[f"2. Figures: {figure}"] == {"kind": "figure", "width": 1100}, figure
    pages = [f"3. Tables: {table}" for table in config["tables"]]
    for page in [*pages, "1. Claims: every statement, with its verdict"]:
        assert results[page]["kind"] == "page", page
        assert results[page]["size"] > 1000, page
    assert len(results) == len(config["figures"]) + len(pages) + 1


def test_sum_of_ggn_and_residual_spectra_is_that_of_the_hessian(finished: Path) -> None:
    folder = finished / f"results/{EXPERIMENTS[0]}/seed0/spectra"
    sums = {
        matrix: read_table(folder / f"step20_{matrix}.parquet", "spectrum")["eigenvalue"].sum()
        for matrix in ("hessian", "ggn", "residual")
    }
    assert sums["hessian"] == pytest.approx(sums["ggn"] + sums["residual"], rel=1e-10)


def test_second_run_has_nothing_to_do(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished, "--cores", "2")


def test_touched_sources_rerun_nothing(project: Path) -> None:
    for path in [*project.glob("hesspipe/*.py"), *project.glob("scripts/*.py")]:
        path.touch()
    assert not planned(project)


def test_edited_step_size_reruns_its_experiment_and_what_depends_on_it(project: Path) -> None:
    config = small_config()
    config["experiments"][EXPERIMENTS[1]]["training"]["step_size"] = 0.2
    write_config(project, config)
    plan = planned(project)
    assert plan[f"train_{EXPERIMENTS[1]}"] == 1
    assert plan[f"train_{EXPERIMENTS[0]}"] == 0
    assert (plan["extract_spectrum"], plan["count_outliers"]) == (2, 1)
    assert (plan["render_endpoints"], plan["render_gaps"]) == (0, 1)
    assert (plan["make_dataset"], plan["check_claims"]) == (0, 1)


def test_swapped_numbers_are_noticed(project: Path) -> None:
    # Snakemake compares parameters as a set of values: two that are swapped look the same to it.
    config = small_config()
    training = config["experiments"][EXPERIMENTS[0]]["training"]
    training["record_every"], training["num_steps"] = 10, 20
    training["checkpoint_every"] = 10
    write_config(project, config)
    assert planned(project)[f"train_{EXPERIMENTS[0]}"] == 1


def test_reordered_keys_rerun_nothing(project: Path) -> None:
    config = small_config()
    config["experiments"] = {
        name: dict(reversed(plan.items())) for name, plan in config["experiments"].items()
    }
    write_config(project, config)
    assert not planned(project)


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("hesspipe/figures/gaps.py", {"render_gaps"}),
        (
            "hesspipe/outliers.py",
            {"count_outliers", "summarize_outliers", "tabulate_outliers", "check_claims",
             "tabulate_claims", "lay_out_tables", "render_gaps", "render_decomposition",
             "tabulate_decomposition", "tabulate_directions"},
        ),
        ("hesspipe/claims/check.py", {"check_claims", "tabulate_claims", "lay_out_tables"}),
    ],
)  # fmt: skip
def test_edited_module_reruns_what_imports_it(project: Path, module: str, rules: set[str]) -> None:
    original = (project / module).read_text()
    (project / module).write_text(original + "\n# edited\n")
    assert set(planned(project)) == rules
    (project / module).write_text(original)
    assert not planned(project)


def test_deleted_table_is_rebuilt_alone(project: Path) -> None:
    path = project / f"results/{EXPERIMENTS[0]}/seed0/spectra/step20_ggn.parquet"
    before = path.read_bytes()
    path.unlink()
    plan = planned(project)
    assert plan["extract_spectrum"] == 1
    assert not [rule for rule in plan if rule.startswith(("train", "make"))]
    target = str(path.relative_to(project))
    assert planned(project, target) == Counter({"extract_spectrum": 1})
    snakemake(project, "--cores", "2", target)
    assert path.read_bytes() == before
    assert not planned(project)  # what depends on it sees equal bytes


@pytest.mark.parametrize(
    ("target", "absent"),
    [
        ("figures/fig1.pdf", {f"train_{EXPERIMENTS[1]}", "count_outliers", "render_gaps"}),
        ("figures/fig2.pdf", {f"train_{EXPERIMENTS[0]}", "render_endpoints", "check_claims"}),
        ("tables/table1.csv", {"render_endpoints", "render_gaps", "check_claims"}),
    ],
)
def test_target_builds_what_it_needs(tmp_path: Path, target: str, absent: set[str]) -> None:
    plan = planned(make_project(tmp_path), target)
    assert plan["make_dataset"] >= 1
    assert not absent & set(plan)


def test_new_figure_is_a_new_entry_of_the_config(project: Path) -> None:
    config = small_config()
    config["figures"]["fig1_again"] = config["figures"]["fig1"] | {"num_largest": 5}
    write_config(project, config)
    assert planned(project) == Counter({"render_endpoints": 1})


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("training", "step_sise"), 1.0, "step_sise is not a known key; did you mean step_size?"),
        (("training", "step_size"), -0.1, "step_size must be greater than 0.0, got -0.1"),
        (("model", "activation"), "gelu", "activation must be 'relu' or 'tanh', got 'gelu'"),
    ],
)
def test_mistake_in_the_config_is_one_line_and_starts_nothing(
    tmp_path: Path, place: tuple[str, str], value: object, message: str
) -> None:
    project, config = make_project(tmp_path), small_config()
    section, key = place
    config["experiments"][EXPERIMENTS[0]] |= {
        section: config["experiments"][EXPERIMENTS[0]][section] | {key: value}
    }
    write_config(project, config)
    output = snakemake(project, "--cores", "1", check=False)
    assert f"config.yaml: experiments.{EXPERIMENTS[0]}.{section}.{message}" in output
    assert "Traceback" not in output
    assert not (project / "results").exists()


def test_diverging_training_stops_with_step_and_step_size(tmp_path: Path) -> None:
    project, config = make_project(tmp_path), small_config()
    config["experiments"][EXPERIMENTS[0]]["training"]["step_size"] = 1e200
    write_config(project, config)
    target = f"results/{EXPERIMENTS[0]}/seed0/history.parquet"
    output = snakemake(project, "--cores", "1", target, check=False)
    assert re.search(r"DivergedError: training diverged: at step \d+ .* step_size 1e\+200", output)
    assert not (project / target).exists()
    assert list((project / ".hesspipe/training").glob("*/step0.safetensors"))


def test_damaged_table_is_named_with_the_way_out(project: Path) -> None:
    path = project / f"results/{EXPERIMENTS[1]}/seed0/spectra/step20_hessian.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    output = snakemake(project, "--cores", "1", "figures/fig2.pdf", check=False)
    assert "step20_hessian.parquet is damaged or incomplete" in output
    assert "delete it and run the same command again" in output
    path.unlink()
    snakemake(project, "--cores", "2", "figures/fig2.pdf")


def test_killed_workflow_leaves_nothing_half_written(finished: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    with subprocess.Popen(
        ["snakemake", "--cores", "2", "all"],
        cwd=project, env=environment(project), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not list(project.glob("results/*/seed0/spectra/*.parquet")):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    for path in project.glob("results/*/seed0/spectra/*.parquet"):
        read_table(path, "spectrum")
    snakemake(project, "--unlock")
    snakemake(project, "--cores", "2")
    expected = sorted(path.relative_to(finished) for path in finished.glob("results/**/*.*"))
    found = sorted(path.relative_to(project) for path in project.glob("results/**/*.*"))
    assert found == expected
    for path in expected:
        assert (project / path).read_bytes() == (finished / path).read_bytes(), path

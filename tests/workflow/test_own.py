"""A project of one's own, in a folder of its own, through the workflow."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from test_workflow import REPOSITORY, environment

from hesspipe.tables.store import read_table

NETS = """
from torch import nn
from my_widths import WIDTH

def build():
    return nn.Sequential(nn.Linear(3, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))
"""
DATA = """
import torch

def points(number):
    inputs = torch.randn(number, 3)
    return inputs, inputs.sum(1, keepdim=True).sin()
"""
CONFIG = """
datasets:
  points: {kind: user, function: "my_points:points", arguments: {number: 20}}
experiments:
  elsewhere:
    dataset: points
    seeds: [0]
    model: &model {kind: user, function: "my_nets:build", arguments: {}, loss: "torch.nn:MSELoss",
      loss_arguments: {}}
    training: {algorithm: saved, path: state.safetensors}
    matrix_free:
      steps: all
      matrices: [hessian]
      dtype: float64
      batch_size: null
      groups: {}
      group_matrices: []
      density: {num_probes: 2, num_steps: 8, seed: 0}
      eigenpairs: {num_smallest: 1, num_largest: 3, tolerance: 1.0e-9, max_products: 500, seed: 0}
  here:
    dataset: points
    seeds: [0]
    model: *model
    training: {algorithm: gd, step_size: 0.1, num_steps: 4, record_every: 2, checkpoint_every: 4,
      dtype: float64}
    spectra: {steps: ends, matrices: [hessian, ggn]}
spectrum: {zero_tolerance: 1.0}
outliers: {rules: [gap], num_candidates: 3}
figures:
  smooth: {kind: densities, experiment: elsewhere, seed: 0, step: 0, matrices: [hessian],
    relative_width: 0.05, num_points: 50}
  ends: {kind: overlay, experiment: here, seed: 0, step: 4, matrices: [hessian, ggn],
    num_largest: 3, num_smallest: 3}
  apart: {kind: outliers, experiment: elsewhere, seed: 0, step: 0, matrix: hessian, num_largest: 3}
"""
RESULTS = "results/elsewhere/seed0"
TARGETS = [f"{RESULTS}/outliers.parquet", "figures/smooth.pdf"]


def make_project(folder: Path) -> Path:
    (folder / "my_nets.py").write_text(NETS)
    (folder / "my_points.py").write_text(DATA)
    (folder / "my_widths.py").write_text("WIDTH = 4\n")
    (folder / "config.yaml").write_text(CONFIG)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    save_file(network.state_dict(), folder / "state.safetensors")
    return folder


def snakemake(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run the repository's workflow on a project elsewhere and return what it printed."""
    done = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--cores", "2", "--directory", folder,
         *arguments],
        cwd=REPOSITORY, env=environment(REPOSITORY), capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0 or not check, output
    return output


def planned(folder: Path, *targets: str) -> Counter[str]:
    output = snakemake(folder, "-n", *targets)
    rules = re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)
    assert rules or "Nothing to be done" in output, output
    return Counter(rule for rule in rules if rule != "all")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("own"))
    snakemake(folder, *TARGETS)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, times included, from where the code is as far away."""
    shutil.copytree(finished, tmp_path, copy_function=shutil.copy2, dirs_exist_ok=True)
    return tmp_path


def test_saved_state_gets_its_results_beside_it(finished: Path) -> None:
    pairs = read_table(finished / RESULTS / "eigenpairs/step0_hessian.parquet", "eigenpairs")
    density = read_table(finished / RESULTS / "densities/step0_hessian_network.parquet", "density")
    outliers = read_table(finished / RESULTS / "outliers.parquet", "outliers")
    assert pairs.attrs["num_parameters"] == density.attrs["num_parameters"] == 21
    assert pairs.attrs["model"]["function"] == "my_nets:build"
    assert len(pairs) == 4
    largest = pairs.loc[pairs["end"] == "largest", "eigenvalue"]
    assert outliers["num_outliers"].tolist() == [(largest > outliers["cutoff"][0]).sum()]
    # The largest node of a density is the largest eigenvalue, up to what 8 steps can find.
    assert density["node"].max() == pytest.approx(largest.max(), rel=1e-2)
    assert (finished / "figures/smooth.png").stat().st_size > 0
    assert not (REPOSITORY / RESULTS).exists()


@pytest.mark.parametrize(
    ("file", "reruns"),
    [
        ("my_widths.py", {"import_elsewhere": 1, "estimate_density": 1, "find_eigenpairs": 1,
                          "count_outliers": 1, "render_densities": 1}),
        ("my_points.py", {"make_own_dataset": 1, "import_elsewhere": 1, "estimate_density": 1,
                          "find_eigenpairs": 1, "count_outliers": 1, "render_densities": 1}),
        ("unused.py", {}),
    ],
)  # fmt: skip
def test_edit_of_ones_own_file_reruns_what_depends_on_it(
    project: Path, file: str, reruns: dict[str, int]
) -> None:
    path = project / file
    path.write_text((path.read_text() if path.exists() else "") + "# edited\n")
    assert planned(project, *TARGETS) == Counter(reruns)


def test_network_that_is_trained_here_is_planned_like_one_of_the_papers(project: Path) -> None:
    assert planned(project) == Counter(
        {"train_here": 1, "extract_spectrum": 4, "count_outliers": 1, "render_overlay": 1,
         "render_outliers": 1, "summarize_outliers": 1}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("function", "my_nets:bild", "must name a function of my_nets.py, which has WIDTH, build"),
        (
            "arguments",
            {"width": 3},
            r"arguments of .my_nets:build. must fit \(\), got",
        ),
    ],
)
def test_mistake_in_ones_own_network_is_said_in_one_line(
    project: Path, key: str, value: Any, message: str
) -> None:
    config = yaml.safe_load(CONFIG)
    config["experiments"]["elsewhere"]["model"][key] = value
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    output = snakemake(project, f"{RESULTS}/outliers.parquet", check=False)
    assert re.search(message, output), output


def test_state_of_another_network_is_refused_with_its_names(project: Path) -> None:
    save_file({"0.weight": torch.ones(5, 3)}, project / "state.safetensors")
    output = snakemake(project, f"{RESULTS}/outliers.parquet", check=False)
    assert "must hold the state dict of this network, but it lacks 0.bias" in output

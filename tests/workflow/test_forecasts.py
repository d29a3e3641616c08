"""Jobs that cannot be done here are refused from the configuration, one line for each entry."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_project import REPOSITORY, SMALL, small_config

from hesspipe.config.expansion import expand
from hesspipe.config.loading import load_config, validate_config
from hesspipe.config.results import ResultKind
from hesspipe.config.schema import Config
from hesspipe.workflow.forecasts import Machine, excessive_needs, missing_results
from hesspipe.workflow.needs import needs

GIB = 2**30
LAPTOP = Machine(16 * GIB, 100 * GIB, has_gpu=False)
GD, LB = "experiments.clusters_gd_k2", "experiments.digits_lb"
# Changes by the place, and what the line must hold: key, need, what is there, advice.
TOO_LARGE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "points": (
        {"datasets.clusters_k2.num_train": 10**9},
        ["datasets.clusters_k2.num_train: ", "89.4 GiB of memory", "16.0 GiB", "use fewer points"],
    ),
    "parameters": (
        {f"{GD}.model.hidden_widths": [10**5, 10**5]},
        [f"{GD}.model.hidden_widths: ", "P = 10,000,", "of memory", "smaller network"],
    ),
    "layers": (
        {f"{GD}.model.hidden_widths": [3000] * 1000},
        [f"{GD}.model.hidden_widths: ", "of memory", "smaller network"],
    ),
    "checkpoints": (
        {
            f"{GD}.model.hidden_widths": [4000, 4000],
            f"{GD}.training.num_steps": 5000,
            f"{GD}.training.checkpoint_every": 5,
            f"{GD}.spectra.steps": "ends",
        },
        [f"{GD}.training.checkpoint_every: ", "1,001 checkpoints", "of disk space", "100.0 GiB"],
    ),
    "steps": (
        {f"{GD}.training.num_steps": 10**9, f"{GD}.training.checkpoint_every": 10**9}
        | {f"{GD}.training.record_every": 10**9, f"{GD}.model.hidden_widths": [10_000, 10_000]},
        [f"{GD}.model.hidden_widths: ", "for 1,000,000,000 steps", "days for each job"],
    ),
    "eigenvalues": (
        {f"{LB}.spectra": {"steps": [4], "matrices": ["hessian"]}}
        | {f"{LB}.model.channels": [100, 100, 100, 100, 100]},
        [f"{LB}.spectra: ", "the exact spectrum for P = ", "of memory", "use matrix_free"],
    ),
    "Lanczos steps": (
        {f"{LB}.matrix_free.density.num_steps": 10**5, f"{LB}.matrix_free.steps": [4]}
        | {f"{LB}.model.channels": [100, 100, 100, 100, 100]},
        [f"{LB}.matrix_free.density.num_steps: ", "a basis of 100,000 vectors", "fewer steps"],
    ),
    "eigenpairs": (
        {f"{LB}.matrix_free.eigenpairs.num_largest": 10**5, f"{LB}.matrix_free.steps": [4]}
        | {f"{LB}.model.channels": [100, 100, 100, 100, 100]},
        [f"{LB}.matrix_free.eigenpairs.num_largest: ", "a basis of ", "fewer eigenpairs"],
    ),
    "draws": (
        {"random_matrices.spikes.num_repeats": 10**6}
        | {"random_matrices.spikes.strengths": [1.0 + k for k in range(100)]},
        ["random_matrices.spikes.num_repeats: ", "100,000,000 draws", "fewer repeats"],
    ),
    "spectra with spikes": (
        {"random_matrices.spiked_spectra.num_parameters": 10**5},
        ["random_matrices.spiked_spectra.num_parameters: ", "of memory", "fewer parameters"],
    ),
    "a linear model": (
        {f"random_matrices.logistic.num_{what}": 10**5 for what in ("samples", "features")}
        | {"random_matrices.logistic.num_groups": 100},
        ["random_matrices.logistic.num_samples: ", "of memory", "fewer samples"],
    ),
}


def changed(changes: dict[str, Any]) -> Config:
    """Two experiments and every random matrix of the small project, with other values."""
    raw = copy.deepcopy(expand(small_config(), SMALL).raw)
    kept = ("clusters_gd_k2", "digits_lb")
    raw["experiments"] = {name: raw["experiments"][name] for name in kept}
    raw["tables"] = {name: raw["tables"][name] for name in ("laws", "spikes", "spiked_spectra")}
    raw |= {"figures": {}, "claims": {}}
    for place, value in changes.items():
        *parts, last = place.split(".")
        inner = raw
        for part in parts:
            inner = inner[part]
        inner[last] = value
    return validate_config(raw)


@pytest.fixture(autouse=True)
def in_the_small_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in SMALL.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TOO_LARGE)
def test_excessive_needs_refuses_what_does_not_fit_in_one_line(name: str) -> None:
    changes, parts = TOO_LARGE[name]
    errors, _ = excessive_needs(changed(changes), [], LAPTOP)
    owner = parts[0].removesuffix(": ").split(".")[1]
    (line,) = [line for line in errors if line.split(".")[1] == owner]
    for part in parts:
        assert part in line
    assert "\n" not in line


def test_excessive_needs_finds_nothing_in_small_projects() -> None:
    assert excessive_needs(changed({}), [], LAPTOP) == ([], [])
    paper = load_config(REPOSITORY / "config.yaml")
    assert excessive_needs(paper, [], LAPTOP) == ([], [])
    assert {need.kind for need in needs(paper)} == {
        ResultKind.DATASETS,
        ResultKind.CHECKPOINTS,
        ResultKind.SPECTRA,
        ResultKind.DENSITIES,
        ResultKind.EIGENPAIRS,
        ResultKind.DIRECTIONS,
        ResultKind.LANDSCAPE,
        ResultKind.RANDOM_MATRICES,
    }


def test_excessive_needs_refuses_only_what_is_asked_for_and_missing(tmp_path: Path) -> None:
    config = changed({f"{GD}.model.hidden_widths": [10**5, 10**5]})
    spectrum = "results/spectra/clusters_gd_k2/seed0/step20_hessian.parquet"
    for arguments in ([], ["-n", "--cores", "1"], [spectrum], ["spectra"]):
        assert len(excessive_needs(config, arguments, LAPTOP)[0]) == 1
    assert excessive_needs(config, ["tables/spikes.csv"], LAPTOP) == ([], [])
    # With the spectra there, nothing that they need is missing.
    for key in config.experiments["clusters_gd_k2"].computes("clusters_gd_k2"):
        (tmp_path / key.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key.path).touch()
    assert excessive_needs(config, [], LAPTOP) == ([], [])
    assert missing_results(config, [spectrum]) == set()


def test_excessive_needs_only_warns_of_what_a_gpu_or_patience_may_do() -> None:
    config = changed({f"{GD}.model.hidden_widths": [30_000, 30_000]})
    machine = Machine(16 * GIB, 10**15, has_gpu=True)
    errors, (warning,) = excessive_needs(config, [], machine)
    assert errors == []
    assert warning.startswith(f"{GD}.model.hidden_widths: ")
    slow = {f"{GD}.training.{every}": 10**9 for every in ("checkpoint_every", "record_every")}
    slow |= {f"{GD}.training.num_steps": 10**9, f"{GD}.model.hidden_widths": [1000, 1000]}
    config = changed(slow)
    errors, (warning,) = excessive_needs(config, [], LAPTOP)
    assert errors == []
    assert "days for each job" in warning


LAYERS = """
from torch import nn
from torch.nn.utils import parametrizations


def linear(width):
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))


def normalized(width):
    return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 1))


def convolutional(width):
    return nn.Sequential(nn.Conv1d(3, width, 1), nn.Flatten(), nn.Linear(width, 1))


def parametrized(width):
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(3, width)), nn.Linear(width, 1))


def frozen(width):
    network = normalized(width)
    network[0].requires_grad_(False)
    return network


def frozen_norm(width):
    network = normalized(width)
    network[1].requires_grad_(False)
    return network


def adapter(width):
    network = normalized(width).requires_grad_(False)
    network[2].requires_grad_(True)
    return network


def failing(width):
    raise OSError("only in the job")
"""


@pytest.mark.parametrize(
    ("function", "rows"),
    # Factors of networks of Linear layers can be small; others are formed.
    [("linear", 0), ("normalized", 7), ("convolutional", 5), ("parametrized", 6), ("frozen", 3),
     ("frozen_norm", 0), ("adapter", 0), ("failing", 0)],
)  # fmt: skip
@pytest.mark.parametrize("matrices", [["hessian"], ["ggn", "residual"], ["ggn"]], ids=str)
def test_excessive_needs_refuses_networks_of_users_whose_matrix_is_formed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, rows: int, matrices: list[str]
) -> None:
    (tmp_path / "my_layers.py").write_text(LAYERS)
    monkeypatch.setattr("sys.path", [*sys.path])
    width = 300_000
    raw = copy.deepcopy(expand(small_config(), SMALL).raw)
    plan = raw["experiments"]["user"]
    model = plan["model"] | {"function": f"my_layers:{function}", "arguments": {"width": width}}
    plan |= {"model": model, "spectra": {"steps": "ends", "matrices": matrices}}
    raw["experiments"] = {"user": plan}
    raw |= {"figures": {}, "tables": {}, "claims": {}, "random_matrices": {}}
    config = validate_config(raw)
    errors, warnings = excessive_needs(config, [], LAPTOP)
    if not rows or matrices == ["ggn"]:
        assert (errors, warnings) == ([], [])
        return
    (line,) = errors
    size = rows * width + 1
    assert line.startswith(
        f"experiments.user.spectra: the exact spectrum for P = {size:,} parameters needs "
    )
    assert line.endswith(
        "GiB are there; use matrix_free, which forms no matrix, or a smaller network"
    )
    for key in config.experiments["user"].computes("user"):
        (tmp_path / key.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key.path).touch()
    assert excessive_needs(config, [], LAPTOP) == ([], [])


def test_machine_is_the_one_that_the_environment_states(monkeypatch: pytest.MonkeyPatch) -> None:
    present = Machine.present()
    assert 0 < present.memory_bytes <= psutil.virtual_memory().total
    monkeypatch.setenv("HESSPIPE_MEMORY_GIB", "512")
    monkeypatch.setenv("HESSPIPE_DISK_GIB", "0.5")
    stated = Machine.present()
    assert (stated.memory_bytes, stated.disk_bytes) == (512 * GIB, GIB // 2)


@pytest.mark.parametrize("text", ["much", "-1", "0", "nan", "inf", "16GiB"])
def test_machine_refuses_what_is_no_number_of_gib(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HESSPIPE_MEMORY_GIB", text)
    with pytest.raises(ValueError, match=f"HESSPIPE_MEMORY_GIB must be a number of GiB.*{text}"):
        Machine.present()

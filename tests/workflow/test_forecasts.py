"""Jobs that cannot be done here are refused from the configuration, one line for each entry."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from small_project import SMALL, small_config

from hesspipe.config.loading import validate_config
from hesspipe.config.results import ResultKind
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
        {"models.relu.hidden_widths": [10**5, 10**5]},
        [f"{GD}.model.hidden_widths: ", "P = 10,000,", "of memory", "smaller network"],
    ),
    "layers": (
        {"models.relu.hidden_widths": [3000] * 1000},
        [f"{GD}.model.hidden_widths: ", "of memory", "smaller network"],
    ),
    "checkpoints": (
        {
            "models.relu.hidden_widths": [3000, 3000],
            "trainings.gd.num_steps": 5000,
            "trainings.gd.checkpoint_every": 5,
        },
        [f"{GD}.training.checkpoint_every: ", "1,001 checkpoints", "of disk space", "100.0 GiB"],
    ),
    "steps": (
        {"trainings.gd.num_steps": 10**9, "trainings.gd.checkpoint_every": 10**9}
        | {"trainings.gd.record_every": 10**9, "models.relu.hidden_widths": [1000, 1000]},
        [f"{GD}.model.hidden_widths: ", "for 1,000,000,000 steps", "days for each job"],
    ),
    "eigenvalues": (
        {f"{LB}.spectra": {"steps": [4], "matrices": ["hessian"]}}
        | {"models.alexnet.channels": [100, 100, 100, 100, 100]},
        [f"{LB}.spectra: ", "all eigenvalues of P = ", "of memory", "use matrix_free"],
    ),
    "Lanczos steps": (
        {f"{LB}.matrix_free.density.num_steps": 10**5, f"{LB}.matrix_free.steps": [4]}
        | {"models.alexnet.channels": [100, 100, 100, 100, 100]},
        [f"{LB}.matrix_free.density.num_steps: ", "a basis of 100,000 vectors", "fewer steps"],
    ),
    "eigenpairs": (
        {f"{LB}.matrix_free.eigenpairs.num_largest": 10**5, f"{LB}.matrix_free.steps": [4]}
        | {"models.alexnet.channels": [100, 100, 100, 100, 100]},
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


def changed(changes: dict[str, Any]) -> Any:
    raw = copy.deepcopy(small_config())
    for section in ("figures", "tables"):
        raw[section] = {
            name: entry
            for name, entry in raw[section].items()
            if not {"random_matrices", "models"} & {place.split(".")[0] for place in changes}
            or "sources" in entry
        }
    for place, value in changes.items():
        *parts, last = place.split(".")
        inner = raw
        for part in parts:
            if isinstance(inner.get(part), dict):
                inner[part] = dict(inner[part])
            inner = inner.setdefault(part, {})
        inner[last] = value
    return validate_config(raw, str(SMALL / "config.yaml"))


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


def test_excessive_needs_finds_nothing_in_a_small_project() -> None:
    assert excessive_needs(changed({}), [], LAPTOP) == ([], [])
    assert {need.kind for need in needs(changed({}))} >= {
        ResultKind.DATASETS,
        ResultKind.CHECKPOINTS,
        ResultKind.SPECTRA,
        ResultKind.EIGENPAIRS,
        ResultKind.LANDSCAPE,
        ResultKind.RANDOM_MATRICES,
    }

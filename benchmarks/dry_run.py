"""Measure dry runs of many experiments, next to Snakemake alone with as many jobs.

    python benchmarks/dry_run.py 1000 3000

Each experiment is trained, has one spectrum, and its outliers are counted: three jobs. Times are
those of the processor (user and system), because others may share the machine.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
CONFIG: dict[str, Any] = {
    "models": {
        "small": {
            "kind": "mlp", "hidden_widths": [3], "activation": "relu", "initial_std": 0.1,
        },
    },
    "trainings": {
        "gd": {
            "algorithm": "gd", "step_size": 0.1, "num_steps": 20, "record_every": 5,
            "checkpoint_every": 20, "dtype": "float64",
        },
    },
    "datasets": {
        "clusters": {
            "kind": "gaussian_clusters", "num_clusters": 2, "cluster_std": 1.0, "num_features": 4,
            "center_low": -10.0, "center_high": 10.0, "num_train": 30, "num_test": 20, "seed": 0,
        },
    },
    "spectrum": {"zero_tolerance": 1.0},
    "outliers": {"rules": ["gap", "ratio", "elbow"], "num_candidates": 3},
    "figures": {
        "gaps": {
            "kind": "gaps", "experiments": ["run0"], "seed": 0, "step": 20, "rule": "ratio",
            "num_largest": 10,
        },
    },
}  # fmt: skip
TARGET = "results/outliers/run7/seed0.parquet"
# The same jobs with nothing but Snakemake.
ALONE = """
rule all:
    input: [f"outliers/run{k}.parquet" for k in range(int(config["number"]))]
rule dataset:
    output: "datasets/clusters.safetensors"
    shell: "touch {output}"
rule train:
    input: "datasets/clusters.safetensors"
    output:
        expand("checkpoints/{{run}}/{step}.safetensors", step=[0, 20]), "histories/{run}.parquet"
    params: config=lambda wildcards: {"run": wildcards.run}
    shell: "touch {output}"
rule spectrum:
    input: "datasets/clusters.safetensors", "checkpoints/{run}/{step}.safetensors"
    output: "spectra/{run}/{step}.parquet"
    params: config=lambda wildcards: {"run": wildcards.run}
    shell: "touch {output}"
rule outliers:
    input: "spectra/{run}/20.parquet"
    output: "outliers/{run}.parquet"
    params: config=lambda wildcards: {"run": wildcards.run}
    shell: "touch {output}"
"""


def configuration(number: int, *, is_grid: bool) -> dict[str, Any]:
    """Make a configuration of many experiments, as one grid or written out."""
    plan = {
        "dataset": "clusters", "seeds": [0], "model": "small",
        "spectra": {"steps": [20], "matrices": ["hessian"]},
    }  # fmt: skip
    sizes = [round(0.1 + 1e-5 * k, 5) for k in range(number)]
    if is_grid:
        grid = {"for": {"k": [*range(number)]}, **plan, "training": "gd"}
        return {**CONFIG, "experiments": {"run{k}": grid}}
    runs = {
        f"run{k}": {**plan, "training": {"like": "gd", "step_size": size}}
        for k, size in enumerate(sizes)
    }
    return {**CONFIG, "experiments": runs}


def measure(name: str, folder: Path, *arguments: str) -> None:
    """Run Snakemake in a folder and print its times and its memory."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *arguments]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"| {name} | {used:.1f} | {wall:.1f} | {after.ru_maxrss / 1024:.0f} |", flush=True)


def main(numbers: list[int]) -> None:
    """Print one table of all measurements."""
    print("| dry run | processor (s) | wall (s) | most memory so far (MiB) |")
    print("|---|---|---|---|")
    ours = ("--snakefile", str(REPOSITORY / "Snakefile"))
    for number in numbers:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "Snakefile").write_text(ALONE)
            alone = ("--config", f"number={number}")
            measure(f"{number} experiments, Snakemake alone", folder, *alone)
            for is_grid in (True, False):
                form = "a grid" if is_grid else "written out"
                content = json.dumps(configuration(number, is_grid=is_grid), indent=1)
                (folder / "config.yaml").write_text(content)
                measure(f"{number} experiments, {form}", folder, *ours)
                measure(f"one target among {number}, {form}", folder, *ours, "--", TARGET)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1000, 3000])

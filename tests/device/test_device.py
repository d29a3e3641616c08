"""`make gpu` in small, on a device that stands in for a GPU: the checks and every other part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from problems import labels, normal
from small_project import REPOSITORY

from hesspipe.data.dataset import Dataset, write_dataset

_DRIVER = REPOSITORY / "benchmarks/gpu"


def _run(path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[dict]]:  # type: ignore[type-arg]
    """Run a program of benchmarks/gpu, and read all rows that it has written."""
    folders = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(path), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    out = Path(arguments[arguments.index("--out") + 1])
    lines = [line for file in out.glob("*.jsonl") for line in file.read_text().splitlines()]
    return ended, [json.loads(line) for line in lines]


@pytest.mark.gpu
def test_every_part_of_make_gpu_succeeds(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """On the CPU itself where the stand-in cannot be built. No part is replaced."""
    from device.checks import CHECKS
    from device.stand_in import NAME, has_compiler

    write_dataset(
        Dataset(
            normal(40, 1, 28, 28), labels(40, 10), normal(20, 1, 28, 28), labels(20, 10), 10,
            {"kind": "random"},
        ),
        tmp_path / "dataset.safetensors",
    )  # fmt: skip
    parts = ("checks", "products", "figures", "exact", "factored", "top10")
    folder = Path(str(request.config.cache.mkdir("stand_in_device")))  # type: ignore[union-attr]
    ended, rows = _run(
        _DRIVER / "parts.py", *parts, "--device", NAME if has_compiler() else "cpu",
        "--size", "small", "--out", str(tmp_path), "--folder", str(folder),
        "--dataset", str(tmp_path / "dataset.safetensors"),
    )  # fmt: skip
    assert not [row for row in rows if row["outcome"] == "failed"], rows
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {row["name"] for row in rows} >= {*CHECKS, *parts, "Figure 8", "Figure 9"}
    for name in ("fig8.pdf", "fig9.pdf", "history_lb.parquet", "history_sb.parquet"):
        assert (tmp_path / name).is_file(), name


def test_make_gpu_stops_a_part_at_its_limit_and_goes_on(tmp_path: Path) -> None:
    """With no time for anything: every part is stopped, each has its line, and the status is 1."""
    ended, rows = _run(
        _DRIVER, "--device", "cpu", "--size", "small", "--out", str(tmp_path),
        "--parts", "exact", "top10", "--seconds", "0",
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert [row["name"] for row in rows] == ["exact", "top10"]
    assert all(row["outcome"].startswith("stopped after") for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_make_gpu_says_that_there_is_no_device(tmp_path: Path) -> None:
    ended, rows = _run(_DRIVER, "--out", str(tmp_path))
    assert ended.returncode == 2
    assert "finds no CUDA device on this machine; nothing was run" in ended.stdout
    assert not rows

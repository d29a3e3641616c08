"""Memory forecasts and devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from hesspipe import hardware
from hesspipe.errors import TooLargeError


def test_available_bytes_is_at_most_what_the_machine_has() -> None:
    assert 0 < hardware.available_bytes() <= psutil.virtual_memory().total


def test_available_bytes_keeps_to_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert hardware.available_bytes() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.available_bytes() > 600_000


@pytest.mark.parametrize(
    "granted",
    [
        {"SLURM_MEM_PER_NODE": "{}"},
        {"SLURM_MEM_PER_CPU": "{}", "SLURM_CPUS_ON_NODE": "1"},
        {"SLURM_MEM_PER_NODE": "{}", "SLURM_CPUS_ON_NODE": "4"},
    ],
)
def test_available_bytes_keeps_to_what_slurm_has_granted(
    granted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 2**20
    own = psutil.Process()  # and what tests before may have left
    every = (own, *own.children(recursive=True))
    used = sum(process.memory_info().rss for process in every) // mib
    free = 500  # of what is granted, above what this process uses
    for name, text in granted.items():
        monkeypatch.setenv(name, text.format(used + free))
    # Without a job, the variables are leftovers.
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = hardware.available_bytes()
    assert before > 600 * mib
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert 400 * mib < hardware.available_bytes() < 600 * mib
    assert hardware.total_bytes() == (used + free) * mib


@pytest.mark.parametrize("granted", ["0", "all", ""])
def test_available_bytes_is_that_of_the_node_where_slurm_grants_all(
    granted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", granted)
    assert hardware.total_bytes() > 2**30


def test_available_bytes_counts_all_processes_of_a_job_of_slurm() -> None:
    ask = "import hesspipe.hardware as h; print(h.total_bytes(), h.available_bytes())"
    parent = f"""
import subprocess, sys
held = b"1" * (200 << 20)
subprocess.run([sys.executable, "-c", {ask!r}])
"""
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "700"}
    command = [sys.executable, "-c", parent]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    total, available = (int(text) for text in done.stdout.split())
    assert total == 700 << 20
    assert 300 << 20 < available < 500 << 20


def test_require_states_both_numbers_and_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "available_bytes", lambda: 2 * 2**30)
    hardware.require(2 * 2**30, "it", "leave it")
    with pytest.raises(
        hardware.TooLargeError, match=r"it needs 3.0 GiB .* 2.0 GiB are available; leave it"
    ):
        hardware.require(3 * 2**30, "it", "leave it")


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_pick_device_follows_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HESSPIPE_DEVICE", name)
    assert hardware.pick_device() == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_pick_device_refuses_a_device_that_is_not_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HESSPIPE_DEVICE", name)
    with pytest.raises(ValueError, match=f"HESSPIPE_DEVICE must name a usable device.*{name}"):
        hardware.pick_device()


@pytest.mark.parametrize(("name", "expected"), [("cuda:1", True), ("cpu", False)])
def test_has_gpu_follows_the_environment(
    name: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HESSPIPE_DEVICE", name)
    assert hardware.has_gpu() is expected


def test_has_gpu_without_a_name_looks_for_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HESSPIPE_DEVICE", raising=False)
    monkeypatch.setattr(hardware, "_DRIVER", tmp_path / "nvidiactl")
    assert not hardware.has_gpu()
    (tmp_path / "nvidiactl").touch()
    assert hardware.has_gpu()


def test_hardware_does_not_load_torch() -> None:
    code = "import sys, hesspipe.hardware as h; h.has_gpu(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("num_rows", [0, 3, 1100])  # the last in large pages
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_are_those_of_torch_and_can_be_written(num_rows: int, dtype: torch.dtype) -> None:
    found = hardware.zeros(torch.ones(1, dtype=dtype), num_rows, 4000)
    assert torch.equal(found, torch.zeros(num_rows, 4000, dtype=dtype))
    assert found.is_contiguous()
    assert found.data_ptr() % 64 == 0
    found += 1
    other = hardware.zeros(found, num_rows, 4000)
    assert not other.any()
    assert other.dtype == dtype


def test_zeros_that_do_not_fit_are_named() -> None:
    with (
        pytest.raises(TooLargeError, match="the matrix needs more memory than is available"),
        hardware.name_exhaustion("the matrix", "use less"),
    ):
        hardware.zeros(torch.zeros(1), 2**50)

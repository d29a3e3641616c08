"""Memory forecasts and devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from hesspipe import hardware


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

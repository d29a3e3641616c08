"""What is asked of a device, and the settings of torch under which numbers are computed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hesspipe import hardware
from hesspipe.errors import TooLargeError
from hesspipe.linalg.spectrum import MOST_ROWS_ON_A_GPU, is_solved_in_place
from hesspipe.objective.differentiability import differentiating

GPU, OTHER = torch.device("cuda", 1), torch.device("meta")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The module of a device with 1,000 bytes free, and 30 that torch keeps."""
    found = SimpleNamespace(
        mem_get_info=lambda _: (1000, 2000),
        memory_reserved=lambda _: 50,
        memory_allocated=lambda _: 20,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda _: found)
    return found


@pytest.mark.parametrize("device", [GPU, OTHER], ids=str)
def test_require_asks_the_device_that_is_named(
    device: torch.device, module: SimpleNamespace
) -> None:
    hardware.require(1030, "it", "wait", device=device)
    with pytest.raises(TooLargeError, match=f"it needs .* of memory on {device}, and .*; wait"):
        hardware.require(1031, "it", "wait", device=device)


def test_available_bytes_is_the_machines_where_a_device_shares_it(module: SimpleNamespace) -> None:
    del module.mem_get_info
    assert hardware.available_bytes(OTHER) > 10**6


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_differentiating_computes_in_full_precision(precision: str) -> None:
    """And leaves the caller's settings, whatever they are."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    is_allowed = torch.backends.cudnn.allow_tf32
    try:
        with differentiating():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.deterministic
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32 == is_allowed
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("mode", "inside"), [(0, 1), (1, 1), (2, 2)])
def test_reproducible_sums_keeps_what_is_stricter(mode: int, inside: int) -> None:
    torch.set_deterministic_debug_mode(mode)
    try:
        with hardware.reproducible_sums(torch.device("cpu")):
            assert torch.get_deterministic_debug_mode() == mode
        with hardware.reproducible_sums(GPU):
            assert torch.get_deterministic_debug_mode() == inside
        assert torch.get_deterministic_debug_mode() == mode
    finally:
        torch.set_deterministic_debug_mode(0)


@pytest.mark.parametrize(
    ("device", "size", "expected"),
    [
        ("cpu", 10**6, True),
        ("cuda", MOST_ROWS_ON_A_GPU, True),
        ("cuda", MOST_ROWS_ON_A_GPU + 1, False),
    ],
)
def test_is_solved_in_place_up_to_what_solvers_take(device: str, size: int, expected: bool) -> None:
    assert is_solved_in_place(torch.device(device), size) == expected

"""The memory forecast knows the machine's limit and the control group's."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from hesspipe import hardware as memory


def test_available_bytes_is_at_most_what_the_machine_has() -> None:
    assert 0 < memory.available_bytes() <= psutil.virtual_memory().total


def test_available_bytes_keeps_to_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert memory.available_bytes() == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 600_000


def test_require_states_both_numbers_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 2**30)
    memory.require(2 * 2**30, "it", "leave it")
    with pytest.raises(
        memory.TooLargeError, match=r"it needs 3.0 GiB .* 2.0 GiB are available; leave it"
    ):
        memory.require(3 * 2**30, "it", "leave it")

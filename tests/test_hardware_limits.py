"""Limits on memory, from fake trees of control groups and from real limits of a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hesspipe import hardware
from hesspipe.errors import TooLargeError


def v2(folder: str, limit: str, used: int, inactive: int = 0) -> dict[str, str]:
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 7\ninactive_file {inactive}\nactive_file 9\n",
    }


def v1(folder: str, limit: int, used: int, inactive: int = 0) -> dict[str, str]:
    return {
        f"memory/{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"memory/{folder}/memory.usage_in_bytes": f"{used}\n",
        f"memory/{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {inactive}\n",
    }


# The process's groups, the files below the root, the memory available, and that in total.
TREES = {
    "own group": ("0::/a/b", v2("a/b", "9000", 2000), 7000, 9000),
    "group above": (
        "0::/a/b",
        v2("a/b", "max", 10) | v2("a", "5000", 1000) | v2(".", "90000", 1),
        4000,
        5000,
    ),
    "the tightest": ("0::/a/b", v2("a/b", "8000", 0) | v2("a", "9000", 8500), 500, 8000),
    "not another's": ("0::/a", v2("b", "10", 5) | v2("a", "8000", 0), 8000, 8000),
    "the host's path in a container": ("0::/docker/abc", v2(".", "6000", 1000), 5000, 6000),
    "files that were read": ("0::/a", v2("a", "8000", 7000, inactive=6000), 7000, 8000),
    "over the limit": ("0::/a", v2("a", "8000", 9000), 0, 8000),
    "version 1": ("4:memory:/job/7", v1("job/7", 8000, 3000), 5000, 8000),
    "version 1, group above": ("4:memory:/job/7", v1("job", 8000, 3000), 5000, 8000),
    "version 1 with others": ("4:cpu,memory:/job\n0::/", v1("job", 8000, 3000, 500), 5500, 8000),
    "version 1 in a container": ("4:memory:/docker/abc", v1(".", 8000, 3000), 5000, 8000),
    "both": ("4:memory:/a\n0::/a", v1("a", 8000, 3000) | v2("unified/a", "4000", 0), 4000, 4000),
    "a colon in a name": ("0::/a:b", v2("a:b", "9000", 2000), 7000, 9000),
}


@pytest.mark.parametrize("name", TREES)
def test_available_bytes_keeps_to_the_limits_of_the_process_groups(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, files, available, total = TREES[name]
    own = tmp_path / "own"
    own.write_text(f"{groups}\n")
    for path, text in files.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_text(text)
    monkeypatch.setattr(hardware, "OWN_GROUPS", own)
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path / "tree")
    assert hardware.available_bytes() == available
    assert hardware.total_bytes() == total


# The group that is mounted elsewhere, the process's groups, and what else the mount says.
MOUNTED = {
    "version 2": ("/", "0::/job", "cgroup2 cgroup2 rw", v2("job", "9000", 2000), 7000),
    "a part of version 2": ("/jobs", "0::/jobs/7", "cgroup2 c rw", v2("7", "9000", 2000), 7000),
    "version 1": ("/", "4:memory:/job", "cgroup cgroup rw,memory", v1("job", 8000, 3000), 5000),
    "another of version 1": ("/", "4:memory:/job", "cgroup cgroup rw,cpu", v1("job", 8, 3), None),
    "another disk": ("/", "0::/job", "ext4 /dev/sda rw", v2("job", "9000", 2000), None),
}


@pytest.mark.parametrize("name", MOUNTED)
def test_available_bytes_finds_groups_where_they_are_mounted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, own, kind, files, available = MOUNTED[name]
    for path, text in files.items():
        place = tmp_path / "mounted" / path.removeprefix("memory/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (tmp_path / "own").write_text(f"{own}\n")
    (tmp_path / "mounts").write_text(
        f"22 1 8:1 / / rw - ext4 /dev/sda rw\n"
        f"30 22 0:26 {group} {tmp_path}/mounted rw,nosuid shared:4 - {kind}\n\n"
    )
    monkeypatch.setattr(hardware, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path / "none")
    monkeypatch.setattr(hardware, "MOUNTS", tmp_path / "mounts")
    if available is None:
        assert hardware.available_bytes() > 10**6
    else:
        assert hardware.available_bytes() == available


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "3:cpu:/a\n"])
def test_available_bytes_needs_no_control_groups(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "own").write_text(content)
    monkeypatch.setattr(hardware, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path / "tree")
    assert 0 < hardware.available_bytes() <= hardware.total_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce these limits")
@pytest.mark.parametrize("option", ["-v", "-d"])
def test_available_bytes_keeps_to_the_limits_of_the_process(option: str) -> None:
    # An array of nine tenths fits, and one of eleven tenths does not.
    code = """
import numpy as np
from hesspipe import hardware
available = hardware.available_bytes()
assert 2**20 < available < hardware.total_bytes() <= 2**30, available
np.empty(available * 9 // 10, np.uint8)
try:
    np.empty(available * 11 // 10, np.uint8)
except MemoryError:
    print("as forecast")
"""
    command = f'ulimit {option} {2**20}; exec "{sys.executable}" -c "$0"'
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", "-c", command, code],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"PYTHONPATH": str(Path(hardware.__file__).parents[1])},
    )
    assert done.stdout == "as forecast\n", done.stderr


def allocate_too_much(library: str) -> object:
    if library == "torch":
        return torch.empty(2**60)
    if library == "numpy":
        return np.empty(2**57)
    if library == "python":
        return [0] * 2**60
    if library == "the system":
        raise OSError(12, "Cannot allocate memory")
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\n(GPU 0)")


@pytest.mark.parametrize("library", ["torch", "numpy", "python", "the system", "a GPU"])
def test_name_exhaustion_says_what_was_computed_in_one_line(library: str) -> None:
    with (
        pytest.raises(TooLargeError, match=r"^it needs more memory .* available \(.+\); leave it$"),
        hardware.name_exhaustion("it", "leave it"),
    ):
        allocate_too_much(library)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(2, "No such file"), TooLargeError("as it is")]
)
def test_name_exhaustion_leaves_other_errors_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, hardware.name_exhaustion("it", "leave it"):
        raise error
    assert caught.value is error

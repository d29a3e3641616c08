"""Memory of freed arrays in the process of a sharded objective."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Arrays of 4 MB, 80 in all, are freed between small ones that are kept. That of 30 MB lets glibc
# put them on its heap.
PROGRAM = """
import resource, sys
from hesspipe.sharded.memory import return_freed_arrays

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

large = b"x" * 30_000_000
del large
if sys.argv[1] == "True":
    return_freed_arrays()
before, freed, kept = resident(), [], []
for _ in range(20):
    freed.append(b"x" * 4_000_000)
    kept.append(b"x" * 100_000)
del freed
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
@pytest.mark.parametrize(
    ("is_called", "environment", "is_returned"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"MALLOC_MMAP_THRESHOLD_": "33554432"}, False),
    ],
    ids=["called", "not called", "set by the user"],
)
def test_freed_arrays_return_to_the_system_unless_the_user_has_set_otherwise(
    is_called: bool, environment: dict[str, str], is_returned: bool
) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(is_called)],
        env=plain | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (int(done.stdout) < 20e6) == is_returned, done.stdout

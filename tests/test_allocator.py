"""Memory of freed arrays in the process of a sharded objective, and in that of a job."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt"
)
START = """
import resource, sys
from hesspipe.allocator import keep_freed_arrays, return_freed_arrays

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] in globals():
    globals()[sys.argv[1]]()
"""
# Arrays of 4 MB, 80 in all, are freed between small ones that are kept. That of 30 MB lets glibc
# put them on its heap.
RETURNED = """
large = b"x" * 30_000_000
del large
if sys.argv[1] in globals():
    globals()[sys.argv[1]]()
before, freed, kept = resident(), [], []
for _ in range(20):
    freed.append(b"x" * 4_000_000)
    kept.append(b"x" * 100_000)
del freed
print(resident() - before)
"""
# Arrays of 100 MB, of 25,000 pages each, are freed at once.
USED_AGAIN = """
b"x" * 100_000_000
before = faults()
for _ in range(5):
    b"x" * 100_000_000
print(faults() - before)
"""


def output(program: str, called: str, environment: dict[str, str]) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", START + program, called],
        env=plain | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.parametrize(
    ("called", "environment", "is_returned"),
    [
        ("return_freed_arrays", {}, True),
        ("nothing", {}, False),
        ("return_freed_arrays", {"MALLOC_MMAP_THRESHOLD_": "33554432"}, False),
    ],
    ids=["called", "not called", "set by the user"],
)
def test_freed_arrays_return_to_the_system_unless_the_user_has_set_otherwise(
    called: str, environment: dict[str, str], is_returned: bool
) -> None:
    assert (output(RETURNED, called, environment) < 20e6) == is_returned


@pytest.mark.parametrize(
    ("called", "environment", "are_used_again"),
    [
        ("keep_freed_arrays", {}, True),
        ("nothing", {}, False),
        ("keep_freed_arrays", {"MALLOC_MMAP_MAX_": "65536"}, False),
        ("keep_freed_arrays", {"MALLOC_TRIM_THRESHOLD_": "131072"}, False),
    ],
    ids=["called", "not called", "number set by the user", "threshold set by the user"],
)
def test_pages_of_freed_arrays_are_used_again_unless_the_user_has_set_otherwise(
    called: str, environment: dict[str, str], are_used_again: bool
) -> None:
    found, without = output(USED_AGAIN, called, environment), output(USED_AGAIN, "nothing", {})
    assert 10 * found < without if are_used_again else 2 * found > without

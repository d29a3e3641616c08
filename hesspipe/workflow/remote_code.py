"""Whether a job in a container runs the code that Snakemake has planned with.

A container image has a copy of hesspipe of its own. If it is another one, the job's result would be
recorded as one of the code here. So Snakemake hands a digest of its code to every job, in
$HESSPIPE_CODE, and a job with another digest fails before it computes anything.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import hesspipe
from hesspipe.errors import HesspipeError
from hesspipe.workflow.code_files import code_digest

VARIABLE = "HESSPIPE_CODE"
# Handed to jobs if they are set where Snakemake was started.
_SETTINGS = ("HESSPIPE_STATE", "HESSPIPE_DEVICE", "OMP_NUM_THREADS")


@cache
def package_digest() -> str:
    """Digest the modules of the imported package that decide numbers, without their docstrings."""
    package = Path(hesspipe.__file__).parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in ("workflow", "_workflow"):
            found.update(f"{name.as_posix()} {code_digest(path)}\n".encode())
    return found.hexdigest()


def variables_for_jobs() -> list[str]:
    """Announce the digest in the environment; return the names of what jobs elsewhere are given."""
    os.environ[VARIABLE] = package_digest()
    return [VARIABLE, *(name for name in _SETTINGS if name in os.environ)]


def require_announced_code() -> None:
    """Refuse to run other code than was announced, if any was.

    Raises
    ------
    HesspipeError
    """
    expected = os.environ.get(VARIABLE)
    if expected and expected != package_digest():
        raise HesspipeError(
            f"hesspipe in this container or environment ({Path(hesspipe.__file__).parent}) is not "
            "the one that Snakemake was started with; build the image from the same commit and "
            "name it by --container-image"
        )

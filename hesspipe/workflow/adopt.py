"""Tell Snakemake that files which DVC laid down are its own, up-to-date results.

    python -m hesspipe.workflow.adopt

DVC lays files down in any order and Snakemake compares times, so that after `dvc pull`,
`dvc checkout` or a change of branch it would run everything again. This command asks DVC
whether every file that is there is the one that its lock file names, and then lets Snakemake
record them as they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

# Absent files are built when they are needed; they do not make the others wrong.
_HARMLESS = {"deleted", "not in cache"}


def differences(status: dict[str, Any]) -> list[str]:
    """List what speaks against adoption.

    Parameters
    ----------
    status : dict
        What `dvc status --json` prints.

    Returns
    -------
    list of str
        One line for each file, parameter or command that differs from dvc.lock.
    """
    return [
        f"{stage}: {what}"
        for stage, changes in status.items()
        for change in changes
        for what in _leaves(change)
    ]


def main() -> None:
    """Adopt the results in the current folder, or say why not."""
    found = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(f"dvc status failed: {found.stderr.strip()}")
    against = differences(json.loads(found.stdout))
    if against:
        lines = "\n  ".join(against)
        sys.exit(
            "not adopted: the results may not be those of dvc.lock, from which these differ\n"
            f"  {lines}\n"
            "Run `dvc repro`, or `snakemake --cores all` and then `dvc commit -f`."
        )
    subprocess.run(
        ["snakemake", "--cores", "1", "--quiet", "all", "--touch", "--forceall", "--", "all"],
        check=True,
    )
    print("adopted: Snakemake takes the files that are there as up to date")


def _leaves(change: Any) -> Iterable[str]:
    """What changed, and how, below one entry of the status."""
    if isinstance(change, str):
        yield change
        return
    for kind, entries in change.items():
        if isinstance(entries, str):
            if entries not in _HARMLESS:
                yield f"{kind} is {entries}"
        else:
            yield from _leaves(entries)


if __name__ == "__main__":
    main()

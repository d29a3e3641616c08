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

_ABSENT = {"deleted", "not in cache"}


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
    # A result that is not there is built when it is needed; it does not make the others wrong.
    absent = {
        path
        for changes in status.values()
        for change in changes
        if isinstance(change, dict)
        for path, how in change.get("changed outs", {}).items()
        if how in _ABSENT
    }
    return [
        f"{stage}: {what} is {how}" if how else f"{stage}: {what}"
        for stage, changes in status.items()
        for change in changes
        for what, how in _entries(change)
        if not (how in _ABSENT and what in absent)
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
        ["snakemake", "--cores", "1", "--quiet", "all", "--touch", "--forceall", "--", "offline"],
        check=True,
    )
    print("adopted: Snakemake takes the files that are there as up to date")


def _entries(change: str | dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What one entry of a stage's status names, and how it changed."""
    if isinstance(change, str):
        yield change, ""
        return
    for section in change.values():
        for name, how in section.items():
            # Parameters stand one level deeper, below the name of their file.
            yield from how.items() if isinstance(how, dict) else [(name, how)]


if __name__ == "__main__":
    main()

"""Check every stored result, whatever the times of the files say.

    make verify         (in a clone)
    hesspipe verify     (in a project of `hesspipe new`)

A result is *damaged* if it is not what its job wrote: its content differs from its origin (see
`hesspipe.workflow.origins`) or from its own seal (see `hesspipe.seals`). It is *foreign* if the
present configuration, code and inputs would not make it, or if nothing tells what made it. Each is
listed with the command that rebuilds it, and then the exit code is 1. Nothing is changed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hesspipe.errors import workflow_command
from hesspipe.files import digest
from hesspipe.seals import seal_fault
from hesspipe.workflow import sources
from hesspipe.workflow.adopt import SETTLING, job_graph, jobs_of
from hesspipe.workflow.dvc_lock import unlike_lock
from hesspipe.workflow.failures import one_line_errors
from hesspipe.workflow.origins import Origin, remembered_origin, tracked_origin, tracked_path
from hesspipe.workflow.stages import outputs_on_disk

_SEALED = (".parquet", ".safetensors")
_NUM_IN_A_COMMAND = 20  # files; more are deleted by a script or by hand


@dataclass(frozen=True)
class Stored:
    """A stored file and what is known of it.

    Attributes
    ----------
    path : str
    content : str
        SHA-256 of the file.
    origin : Origin or None
        Of the file, or else of what its job wrote; None if there is no record.
    damage : str
        What is wrong with the file, or empty.
    """

    path: str
    content: str
    origin: Origin | None
    damage: str


def inspect(path: str) -> Stored:
    """Read a file and compare it with its records and its seal."""
    content = digest(path)
    records = [tracked_origin(path), remembered_origin(path)]
    known = [one for one in records if one is not None]
    own = [one for one in known if one.content == content]
    origin = next(iter(own or known), None)
    damage = ""
    if known and not own:
        damage = f"differs from what its job wrote, by {tracked_path(path)}"
    if not damage and path.endswith(_SEALED):
        damage = seal_fault(path)
    return Stored(path, content, origin, damage)


def inspect_all(paths: Sequence[str]) -> list[Stored]:
    """Inspect files in parallel, with a progress bar over their bytes."""
    found = []
    sizes = [Path(path).stat().st_size for path in paths]
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=sum(sizes), unit="B", unit_scale=True, desc="verifying") as bar,
    ):
        for stored, size in zip(pool.map(inspect, paths), sizes, strict=True):
            found.append(stored)
            bar.update(size)
    return found


def foreign(
    stored: Sequence[Stored], snakefile: str, configfiles: Sequence[Path]
) -> tuple[dict[str, str], dict[str, str]]:
    """Find the files that the present configuration, code and inputs would not make.

    Returns
    -------
    others, left_over : dict of str to str
        What would be made differently, and what would not be made at all; what is known of each
        file, by its path.
    """
    by_path = {one.path: one for one in stored}
    contents: dict[str, str | None] = {
        one.path: one.content if one.origin is None else one.origin.content for one in stored
    }
    found: dict[str, str] = {}
    seen: set[str] = set()
    with job_graph(snakefile, {}, configfiles) as graph:
        for job in jobs_of(graph):
            for path in job.inputs:
                if path not in contents:
                    contents[path] = digest(path) if Path(path).is_file() else None
            expected = job.fingerprint(contents)
            seen.update(job.outputs)
            for path in job.outputs:
                if path in by_path:
                    reason = _mismatch(by_path[path].origin, expected)
                    if reason:
                        found[path] = reason
                else:
                    origin = tracked_origin(path)
                    contents[path] = None if origin is None else origin.content
    left_over = sorted({one.path for one in stored} - seen)
    return found, dict.fromkeys(left_over, "no job of this configuration makes it")


def _mismatch(origin: Origin | None, expected: str | None) -> str:
    if origin is None:
        return "no record says what made it"
    if expected is None:
        return "a file that it is made from is missing, and so is its record"
    if origin.fingerprint != expected:
        return "another configuration, code or input made it"
    return ""


def _wrong_records(stored: Sequence[Stored]) -> Iterator[str]:
    """List the versioned records that are not those of their files, which are intact."""
    for one in stored:
        if one.origin is not None and not one.damage and tracked_origin(one.path) != one.origin:
            yield str(tracked_path(one.path))
    expected = sources.sources_texts() if sources.is_versioned() else {}
    for path, text in expected.items():
        if Path(path).is_file() and Path(path).read_bytes() != text.encode():
            yield path


def report(title: str, faults: dict[str, str], command: str) -> None:
    """List faulty files, each with what is wrong, and the command that mends them."""
    if faults:
        print(f"\n{title}:")
        for path, reason in faults.items():
            print(f"  {path}: {reason}")
        print(f"  {command}")


def rebuild_command(paths: Sequence[str]) -> str:
    """Give the command that builds files again: Snakemake takes those that exist for sound."""
    if len(paths) > _NUM_IN_A_COMMAND:
        return f"Delete these files and run: {workflow_command()}"
    listed = shlex.join(paths)
    command = workflow_command()
    before_targets = " --" if command.startswith("snakemake") else ""
    return f"Run: rm -f -- {listed} && {command}{before_targets} {listed}"


def verify(snakefile: str, configfiles: Sequence[Path]) -> bool:
    """Check the current folder, and report.

    Returns
    -------
    bool
        Whether every stored file is intact and of the present configuration and code.
    """
    os.environ[SETTLING] = "1"  # reading the Snakefile must not adopt or move files
    paths = [*outputs_on_disk()]
    stored = inspect_all(paths)
    damaged = {one.path: one.damage for one in stored if one.damage}
    others, left_over = foreign(stored, snakefile, configfiles)
    others = {path: reason for path, reason in others.items() if path not in damaged}
    records = dict.fromkeys(_wrong_records(stored), "is not that of the files here")
    report("Damaged", damaged, rebuild_command([*damaged]))
    report("Not of the present configuration and code", others, rebuild_command([*others]))
    report("Left over", left_over, f"Run: rm -f -- {shlex.join(left_over)}")
    report("Records", records, f"Run: {workflow_command()} -n")
    recorded = unlike_lock() if sources.is_versioned() else []
    uncommitted = [path for path in recorded if path not in damaged]
    if uncommitted:
        print(
            f"\n{len(uncommitted)} files are not those of dvc.lock, such as {uncommitted[0]}; "
            "`dvc commit` records them"
        )
    size = sum(Path(path).stat().st_size for path in paths)
    print(
        f"\n{len(paths)} files ({size / 1e6:.0f} MB): {len(damaged)} damaged, {len(others)} not of "
        f"the present configuration and code, {len(left_over)} left over, {len(records)} wrong "
        "records"
    )
    return not (damaged or others or left_over or records)


def main() -> None:
    """Check the project in the current folder."""
    parser = argparse.ArgumentParser(description="Check every stored result.")
    parser.add_argument("--snakefile", default="Snakefile")
    parser.add_argument("--configfile", nargs="+", type=Path, default=[])
    arguments = parser.parse_args()
    sys.exit(not verify(arguments.snakefile, arguments.configfile))


if __name__ == "__main__":
    with one_line_errors():
        main()

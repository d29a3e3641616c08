"""Make faults of every kind, and count what survives them.

    make test-faults                     all of them, in about 15 minutes on two cores
    make test-faults SEED=7              others of the same kinds
    python tests/faults --part kills     one part
    python tests/faults --part kills --only 17     one fault again, with its traceback
    python tests/faults --short          some of each, as `make test` does

The results are kept in .faults/ and used again until the code changes, so that an interrupted call
goes on. Writes docs/reliability.md after a complete run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # as Snakemake sets it; another number has other last bits
os.environ["HESSPIPE_DEVICE"] = "cpu"
sys.path.append(str(Path(__file__).parents[1]))  # for config_mutations

import configurations
import corruptions
import disks
import forks
import kills
import tiny
import together
import wholes
from cases import Case

from report import PAGE, table, write_page

_PATIENCE = 300.0  # seconds for a fault
STATE = tiny.REPOSITORY / ".faults"
# How many of each, in full and in short.
PARTS: dict[str, tuple[Any, int, int]] = {
    "kills": (kills.plan, 300, 8),
    "runs": (wholes.plan, 66, 0),  # and half as many at changes of files
    "disks": (disks.plan, 200, 5),
    "together": (together.plan, 40, 2),
    "configurations": (configurations.plan, 1000, 20),
    "corruptions": (corruptions.plan, 500, 10),
}


def main() -> None:
    """Make the project, try the faults, print the table."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    if options.only is not None:
        os.environ["FAULTS_TRACEBACKS"] = "1"
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults", ignore_cleanup_errors=True) as folder:
        options.root = Path(folder)
        sys.path.insert(0, str(tiny.make_source(options.root)))
        os.environ["PYTHONPATH"] = sys.path[0]
        code = _digest(options.root / "source", Path(__file__).parent, tiny.PROJECT)
        forks.preload(["torch", "pandas", "pyarrow.parquet", "snakemake.cli"])
        workshop = tiny.make_workshop(options.root, short=options.short)
        results: list[dict[str, Any]] = []
        for part in options.part or PARTS:
            results += _run_part(part, workshop, options, code)
    print("\n".join(table(results)))
    if not (options.part or options.short or options.number or options.only is not None):
        minutes = (time.monotonic() - started) / 60
        conditions = (
            f"Seed {options.seed}, on {platform.system()} with Python {platform.python_version()}, "
            f"{minutes:.0f} minutes with {options.processes} processes."
        )
        write_page(results, conditions, tiny.REPOSITORY)
        print(f"{minutes:.1f} minutes; {PAGE} has the table")
    sys.exit(any(one["outcome"] == "failed" for one in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=[*PARTS], action="append", help="only this one")
    parser.add_argument("--only", type=int, help="only the fault of this number")
    parser.add_argument("--number", type=int, help="faults of a part")
    parser.add_argument("--short", action="store_true", help="some of each, in about 20 s")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def _run_part(
    part: str, workshop: tiny.Workshop, options: argparse.Namespace, code: str
) -> list[dict[str, Any]]:
    """Try the faults of a part, and keep each result when it is there."""
    started, spent = time.monotonic(), _computing()
    plan, full, short = PARTS[part]
    number = options.number or (short if options.short else full)
    cases = list(plan(workshop, number, random.Random(f"{options.seed} {part}")))
    path = STATE / f"{part}-{options.seed}-{number}-{code}.jsonl"
    known = {}
    if path.exists() and options.only is None:
        found = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        known = {one["number"]: one for one in found if one["outcome"] != "failed"}
    if options.short:
        return [*_try(part, cases, options, {})]
    STATE.mkdir(exist_ok=True)
    results = []
    with path.open("a", encoding="utf-8") as file:
        for one in _try(part, cases, options, known):
            results.append(one)
            if one["number"] not in known:
                file.write(json.dumps(one) + "\n")
                file.flush()
    print(
        "\n".join(table(results)),
        f"{part}: {time.monotonic() - started:.0f} s, {_computing() - spent:.0f} s of computing",
        sep="\n",
        flush=True,
    )
    return results


def _computing() -> float:
    """Seconds that this process and its children have computed."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _digest(*folders: Path) -> str:
    """Digest the code, so that results are used again only for the same."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _try(
    part: str, cases: list[Case], options: argparse.Namespace, known: dict[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Try the faults of a part, some at a time."""
    waiting = [one for one in enumerate(cases) if options.only in (None, one[0])]
    running: list[tuple[int, Case, forks.Process]] = []
    while waiting or running:
        while waiting and len(running) < options.processes:
            number, case = waiting.pop(0)
            if number in known:
                yield known[number]
                continue
            process = forks.Process(partial(_verdict, case, f"{part}-{number}"), options.root)
            running.append((number, case, process))
        for one in running[:]:
            number, case, process = one
            if process.has_ended() or process.seconds > _PATIENCE:
                running.remove(one)
                yield _result(part, number, case, process)
        time.sleep(0.002)


def _verdict(case: Case, name: str) -> list[str]:
    verdict = case.body(name)
    return [verdict.outcome, verdict.detail]


def _result(part: str, number: int, case: Case, process: forks.Process) -> dict[str, Any]:
    ended = process.wait(_PATIENCE)
    outcome, detail = ended.value or ("failed", f"the harness: {ended.line}")
    if outcome == "failed":
        print(f"failed: {part} {number}: {case.about}\n    {detail}", flush=True)
    about = {"part": part, "number": number, "kind": case.kind, "about": case.about}
    return about | {"outcome": outcome, "detail": detail, "seconds": round(ended.seconds, 2)}


if __name__ == "__main__":
    main()

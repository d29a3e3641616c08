"""Change the code in small ways, and count the changes that the tests notice.

    make mutants SAMPLE=400              a random sample; with a larger number, it goes on
    make mutants SAMPLE=all              all of them, which takes hours
    python benchmarks/mutants --retry    those that survived, after tests were added

The mutants of the packages linalg, objective and curvature are in the order of their digests, so
that the first ones are a random sample of all, and a change of one module moves only its own. Two
processes at a time run the tests that execute the changed line, those of the module first, and stop
at the first failure. Results are kept in .mutants/ and used again until the module changes. Writes
docs/mutants.md.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import forked
from kinds import Mutant, find_mutants
from selection import Coverage
from tqdm import tqdm

from report import write_report

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".mutants"
# A copy, so that the repository can be edited meanwhile.
SOURCE = STATE / "source"
PACKAGES = [f"hesspipe/{name}" for name in ("linalg", "objective", "curvature")]
# Too slow, and without a part in what a mutant of one line changes.
LEFT_OUT = ["tests/curvature/test_full_size.py"]
SINGLES = ["tests/test_state.py", "tests/test_tolerances.py"]


@dataclass
class Running:
    """A process that tests a mutant."""

    mutant: Mutant
    phases: list[dict[str, float]]
    child: int = 0
    deadline: float = 0.0


class Slot:
    """A copy of the repository, in which one mutant at a time is tested."""

    def __init__(self, number: int) -> None:
        self.tree = STATE / f"tree{number}"
        self.output, self.failed = STATE / f"output{number}", STATE / f"failed{number}"
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.copytree(SOURCE, self.tree)
        self.running: Running | None = None
        self.started = 0.0

    def begin(self, mutant: Mutant, phases: list[dict[str, float]]) -> None:
        """Put the mutant in its place and start its tests."""
        path = self.tree / mutant.path
        path.write_text(mutant.code((SOURCE / mutant.path).read_text()), encoding="utf-8")
        self.started = time.monotonic()
        self.running = Running(mutant, phases)
        self._start()

    def _start(self) -> None:
        assert self.running is not None
        seconds = self.running.phases.pop(0)
        files = sorted({name.split("::")[0] for name in seconds})
        limit = 60 + 5 * int(sum(seconds.values()))
        # For a mutant that waits forever, which takes no processor time.
        self.running.deadline = time.monotonic() + 20 * limit
        self.running.child = forked.start(
            lambda: forked.run_tests(files, seconds, self.failed), self.tree, self.output, limit
        )

    def poll(self) -> dict[str, Any] | None:
        """The result, if there is one."""
        assert self.running is not None
        child, status = os.waitpid(self.running.child, os.WNOHANG)
        if child == 0 and time.monotonic() < self.running.deadline:
            return None
        if child == 0:
            forked.stop(self.running.child)
            return self._end("timeout")
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU:
            return self._end("timeout")
        if code == 0 and self.running.phases:
            self._start()
            return None
        assert code not in (4, 5), self.output.read_text()  # the tests were not found
        return self._end("killed" if code else "survived")

    def _end(self, outcome: str) -> dict[str, Any]:
        assert self.running is not None
        mutant, self.running = self.running.mutant, None
        shutil.copy2(SOURCE / mutant.path, self.tree / mutant.path)
        by = self.failed.read_text() if outcome == "killed" and self.failed.exists() else ""
        self.failed.unlink(missing_ok=True)
        return result_of(mutant, outcome, time.monotonic() - self.started, by)


def result_of(mutant: Mutant, outcome: str, seconds: float = 0.0, by: str = "") -> dict[str, Any]:
    """One line of the results."""
    source = (SOURCE / mutant.path).read_text(encoding="utf-8")
    lines = difflib.unified_diff(
        source.splitlines(), mutant.code(source).splitlines(), n=0, lineterm=""
    )
    change = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    about = {"outcome": outcome, "seconds": round(seconds, 1), "by": by, "change": change}
    return asdict(mutant) | about


def copy_repository() -> None:
    """Copy what is in the repository, without what is built."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists() and not name.endswith(("dvc.yaml", "dvc.lock")):  # DVC finds them
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, SOURCE / name)


def test_files(packages: list[str]) -> list[str]:
    """The test files and the modules with examples that are run, the largest first."""
    found = [path for package in packages for path in (SOURCE / package).glob("*.py")]
    for package in packages:
        found += (SOURCE / "tests" / Path(package).name).glob("test_*.py")
    names = [str(path.relative_to(SOURCE)) for path in found if "__init__" not in path.name]
    chosen = [name for name in names + SINGLES if name not in LEFT_OUT]
    return sorted(chosen, key=lambda name: -(SOURCE / name).stat().st_size)


def record_coverage(slots: list[Slot], packages: list[str]) -> Coverage:
    """Run all the tests once, and record which lines each executes."""
    folder = STATE / "coverage"
    folder.mkdir(exist_ok=True)
    code = b"".join(p.read_bytes() for k in PACKAGES for p in sorted((SOURCE / k).glob("*.py")))
    records, waiting, children = [], [], {}
    for name in test_files(packages):
        key = hashlib.sha256(code + (SOURCE / name).read_bytes()).hexdigest()[:16]
        path = folder / f"{Path(name).stem}-{key}.json"
        records.append(path)
        waiting += [] if path.exists() else [(name, path)]
    bar = tqdm(total=len(waiting), desc="recording", unit="file")
    while waiting or children:
        for slot in slots:
            if slot not in children and waiting:
                name, path = waiting.pop(0)
                children[slot] = name, forked.start(
                    lambda name=name, path=path: forked.record_tests([name], PACKAGES, path),
                    slot.tree, slot.output,
                )  # fmt: skip
        for slot, (name, child) in list(children.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                del children[slot]
                bar.update()
                if os.waitstatus_to_exitcode(status) not in (0, 5):
                    print(f"{name} should pass\n{slot.output.read_text()}")
        time.sleep(0.05)
    return Coverage.of(json.loads(path.read_text()) for path in records)


def read_results() -> dict[str, dict[str, Any]]:
    """The results so far, by name of the mutant; a later one replaces an earlier one."""
    path = STATE / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {result["name"]: result for result in map(json.loads, lines)}


def test_mutants(waiting: list[Mutant], slots: list[Slot], coverage: Coverage) -> None:
    """Test mutants and write each result when it is there."""
    bar = tqdm(total=len(waiting), desc="mutants", unit="mutant")
    with (STATE / "results.jsonl").open("a") as file:
        while waiting or any(slot.running for slot in slots):
            for slot in slots:
                result = slot.poll() if slot.running else None
                if not slot.running and waiting and result is None:
                    mutant = waiting.pop(0)
                    phases = coverage.phases(mutant.path, mutant.line, SOURCE)
                    if phases:
                        slot.begin(mutant, phases)
                    else:
                        result = result_of(mutant, "not executed")
                if result is not None:
                    file.write(json.dumps(result) + "\n")
                    file.flush()
                    bar.update()
            time.sleep(0.02)


def main() -> None:
    """Record the coverage, test the mutants, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", default="all", help="number of mutants, or all")
    parser.add_argument("--modules", nargs="*", default=[], help="names, to try these only")
    parser.add_argument("--retry", action="store_true", help="test those that survived again")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    STATE.mkdir(exist_ok=True)
    copy_repository()
    modules = [path for package in PACKAGES for path in sorted((SOURCE / package).glob("*.py"))]
    paths = [str(path.relative_to(SOURCE)) for path in modules]
    mutants = [mutant for path in paths for mutant in find_mutants(SOURCE, path)]
    mutants.sort(key=lambda mutant: mutant.name)
    chosen = [m for m in mutants if not options.modules or Path(m.path).stem in options.modules]
    if options.sample != "all":
        chosen = chosen[: int(options.sample)]
    results = read_results()
    undecided = ("survived", "not executed") if options.retry else ()
    waiting = [
        m for m in chosen if results.get(m.name, {"outcome": ""})["outcome"] in ("", *undecided)
    ]
    if waiting:
        import matplotlib.figure
        import pandas
        import scipy.optimize
        import scipy.sparse.linalg
        import torch.func

        del matplotlib, pandas, scipy, torch  # a fork has them already
        slots = [Slot(number) for number in range(options.processes)]
        packages = sorted({os.path.dirname(mutant.path) for mutant in waiting})
        test_mutants(waiting, slots, record_coverage(slots, packages))
    results = read_results()
    write_report(mutants, [results[m.name] for m in chosen], ROOT)


if __name__ == "__main__":
    main()

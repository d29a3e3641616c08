"""Damage stored files, and run what reads them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import forks
import tiny
import wholes
from cases import Case, Verdict, expected_of, names, survived
from kills import end_phase, run_again

# Folders of published files, by the datasets that are made from them.
_PUBLISHED = {
    "results/datasets/digits.safetensors": "data/mnist",
    "results/datasets/photographs.safetensors": "data/cifar10",
}
# With fewer, there are no older versions of files, and no whole runs: both take time to prepare.
_FULL = 30
_STATES = (".hesspipe/training", ".hesspipe/eigenpairs")


@dataclass(frozen=True)
class Damage:
    """A way to damage a file.

    Attributes
    ----------
    name : str
    place : float
        In the file, from 0 to 1.
    bit : int
        0 to 7.
    """

    name: str
    place: float
    bit: int

    def apply(self, path: Path, older: Path | None) -> bool:
        """Damage a file and keep its time; return whether it has changed."""
        content, status = path.read_bytes(), path.stat()
        damaged = _DAMAGES[self.name](content, self, older)
        if damaged == content:
            return False
        if damaged is None:
            path.unlink()
            return True
        path.write_bytes(damaged)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return True


def _flip(content: bytes, damage: Damage, older: Path | None) -> bytes:
    place = int(damage.place * len(content))
    return content[:place] + bytes([content[place] ^ 1 << damage.bit]) + content[place + 1 :]


def _zero(content: bytes, damage: Damage, older: Path | None) -> bytes:
    place = int(damage.place * len(content))
    size = min(512, len(content) - place)
    return content[:place] + bytes(size) + content[place + size :]


def _swap(content: bytes, damage: Damage, older: Path | None) -> bytes:
    return older.read_bytes() if older is not None and older.is_file() else content


_DAMAGES: dict[str, Callable[[bytes, Damage, Path | None], bytes | None]] = {
    "a bit flipped": _flip,
    "truncated": lambda content, damage, _: content[: int(damage.place * len(content))],
    "appended to": lambda content, damage, _: content + content[: 1 + int(damage.place * 64)],
    "a block of zeros": _zero,
    "an older version": _swap,
    "deleted": lambda *_: None,
    "emptied": lambda *_: b"",
}
# Flipped bits and older versions are the hardest to notice.
_WEIGHTS = {"a bit flipped": 5, "an older version": 3, "a block of zeros": 2}


def plan(workshop: tiny.Workshop, number: int, draw: random.Random) -> Iterator[Case]:
    """Yield `number` damages of files of every kind, in turn."""
    readers = [*_readers(workshop), *_unfinished(workshop, draw)]
    if number >= _FULL:
        tiny.make_workshop(workshop.root, older=True, only=[job.name for job in workshop.jobs])
        readers += _whole(workshop)
    kinds = sorted({kind for kind, _ in readers})
    for count in range(number):
        kind = kinds[count % len(kinds)]
        body = draw.choice([body for one, body in readers if one == kind])
        weights = [_WEIGHTS.get(name, 1) for name in _DAMAGES]
        name = draw.choices([*_DAMAGES], weights)[0]
        damage = Damage(name, draw.random(), draw.randrange(8))
        pick = draw.random()
        if isinstance(body.args[1], tiny.Job):
            expected_of(workshop, body.args[1])
        yield Case(
            f"damaged: {kind}", f"{body.args[1]}: {damage}, {pick:.6f}", partial(body, damage, pick)
        )


def _readers(workshop: tiny.Workshop) -> Iterator[tuple[str, partial[Verdict]]]:
    """Every job with every stored file that it reads."""
    for job in workshop.jobs:
        for path in job.inputs:
            if path.startswith("results/"):
                yield path.split("/")[1], partial(_damage_input, workshop, job, path)
        if job.outputs[0] in _PUBLISHED:
            body = partial(_damage_input, workshop, job, _PUBLISHED[job.outputs[0]])
            yield "published data", body


def _damage_input(
    workshop: tiny.Workshop, job: tiny.Job, path: str, damage: Damage, pick: float, name: str
) -> Verdict:
    """Damage what a job reads; where it tells, put it right and run it again."""
    expected, _ = expected_of(workshop, job)
    folder = workshop.before(job, name)
    if (folder / path).is_dir():
        files = sorted((folder / path).iterdir())
        path = str(files[int(pick * len(files))].relative_to(folder))
    saved = folder.parent / f"{name}.saved"
    shutil.copy2(folder / path, saved)
    older = workshop.root / "older" / path
    damage.apply(folder / path, older)
    ended = job.run(folder)
    shutil.copy2(saved, folder / path)
    if ended.code == 0:
        return survived(folder, expected)
    if wrong := names(ended, path):
        return Verdict("failed", f"{path}: {wrong}")
    return run_again(job, folder, expected, ended, f"{path} put right")


def _unfinished(
    workshop: tiny.Workshop, draw: random.Random
) -> Iterator[tuple[str, partial[Verdict]]]:
    """Jobs that were killed with an unfinished state, at several moments."""
    for job in workshop.jobs:
        if job.kind in ("train", "find_eigenpairs") and "photographs" not in job.name:
            _, ended = expected_of(workshop, job)
            points = [
                point
                for point, change in enumerate(ended.changes, 1)
                if any(one in change for one in _STATES)
            ]
            end = end_phase(ended.changes).start
            for point in [*draw.sample(points, min(len(points), 12)), end, end + 8]:
                what = "training" if job.kind == "train" else "search"
                yield f"unfinished {what}", partial(_damage_state, workshop, job, point)


def _damage_state(
    workshop: tiny.Workshop, job: tiny.Job, point: int, damage: Damage, pick: float, name: str
) -> Verdict:
    """Damage a file of an unfinished state, and go on."""
    expected, _ = expected_of(workshop, job)
    folder = workshop.before(job, name)
    job.run(folder, die_at=max(point // 2, 1))
    older = folder.parent / f"{name}.older"
    shutil.rmtree(older, ignore_errors=True)
    shutil.copytree(folder, older)
    job.run(folder, die_at=point - max(point // 2, 1))
    files = [
        path
        for root in _STATES
        for path in sorted((folder / root).rglob("*"))
        if path.is_file() and path.stat().st_size
    ]
    if not files:
        return Verdict("survived", "no state")
    path = files[int(pick * len(files))]
    relative = path.relative_to(folder)
    damage.apply(path, older / relative)
    ended = job.run(folder)
    if ended.code == 0:
        logs = "".join(log.read_text(encoding="utf-8") for log in folder.rglob("*.log"))
        if any(path.parent.glob("*.damaged*")) and str(relative) not in logs:
            return Verdict("failed", f"{relative} put aside without a word")
        return survived(folder, expected, set_aside=False)
    if wrong := names(ended, str(relative), str(relative.parent)):
        return Verdict("failed", f"{relative}: {wrong}")
    shutil.rmtree(path.parent)
    again = job.run(folder)
    if again.code:
        return Verdict("failed", f"{relative.parent} deleted: {again.line}")
    verdict = survived(folder, expected, set_aside=False)
    return verdict if verdict.outcome == "failed" else Verdict("told", ended.line)


def _whole(workshop: tiny.Workshop) -> Iterator[tuple[str, partial[Verdict]]]:
    """The records of origin, which Snakemake reads, and all that `make verify` reads."""
    wholes.reference(workshop)
    for folder in (".hesspipe/origins", "results/origins", "results/origins_of_products"):
        yield "records of origin", partial(_damage_record, workshop, folder)
    for folder in ("figures", "tables", "metrics", "claims", "results"):
        yield "any file, and verify", partial(_damage_verified, workshop, folder)


def _damage_record(
    workshop: tiny.Workshop, root: str, damage: Damage, pick: float, name: str
) -> Verdict:
    """Damage a record of origin, and run Snakemake."""
    expected = wholes.reference(workshop)
    folder = workshop.root / name
    shutil.copytree(workshop.root / "whole", folder)
    path = _pick(folder / root, pick)
    damage.apply(path, _other(path))
    run = wholes.run(workshop, folder)
    if run.code:
        return Verdict("failed", f"{path.relative_to(folder)}: {run.output[-800:]}")
    return survived(folder, expected, set_aside=False)


def _damage_verified(
    workshop: tiny.Workshop, root: str, damage: Damage, pick: float, name: str
) -> Verdict:
    """Damage a stored file, and let `make verify` find it."""
    folder = workshop.root / name
    shutil.copytree(workshop.finished, folder)
    path = _pick(folder / root, pick)
    relative = str(path.relative_to(folder))
    if not damage.apply(path, workshop.root / "older" / relative):
        return Verdict("survived", "equal bytes")
    if not path.exists() and "/origins" not in relative:
        return Verdict("survived", "Snakemake builds what is missing")
    output = folder.parent / f"{name}.verified"
    ended = forks.run(partial(_verify, workshop.root / "source/Snakefile", output), folder)
    told = output.read_text(encoding="utf-8")
    # A record names its file.
    named = relative if "/origins" not in relative else path.name.removesuffix(".json")
    if ended.code or ended.value or named not in told:
        return Verdict("failed", f"{relative}: {ended.line} {ended.value} {told[-800:]}")
    return Verdict("told", next(line for line in told.splitlines() if named in line))


def _verify(snakefile: Path, output: Path) -> bool:
    from hesspipe.workflow.verify import verify

    with output.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        return verify(str(snakefile), [])


def _pick(root: Path, pick: float) -> Path:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return files[int(pick * len(files))]


def _other(path: Path) -> Path:
    """Another file in the same folder, if there is one."""
    return next((one for one in sorted(path.parent.iterdir()) if one != path), path)

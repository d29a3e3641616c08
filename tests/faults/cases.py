"""One fault each, and what became of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import forks
import tiny


@dataclass(frozen=True)
class Verdict:
    """What became of a fault.

    Attributes
    ----------
    outcome : str
        "survived": the final files equal those of an undisturbed run. "told": one line named the
        file, and what it advises led to the same files. "failed": neither.
    detail : str
        The line, or what is wrong.
    """

    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """A fault to be tried.

    Attributes
    ----------
    kind : str
        Row of the table.
    about : str
        What is done, in a line.
    body : callable (name of a folder) -> Verdict
        Runs in a process of its own.
    """

    kind: str
    about: str
    body: Callable[[str], Verdict]


def survived(folder: Path, expected: dict[str, str], *, set_aside: bool = True) -> Verdict:
    """Compare every file of a folder with those of an undisturbed run."""
    wrong = tiny.difference(tiny.contents(folder, set_aside=set_aside), expected)
    return Verdict("failed", wrong) if wrong else Verdict("survived")


def names(ended: forks.Ended, *paths: str) -> str:
    """Say what is wrong with an error message; empty if it is one line that names a path."""
    if ended.code < 0:
        return f"ended by signal {-ended.code}"
    if not ended.error:
        return f"exit {ended.code} without a message"
    if "\n" in ended.message.strip():
        return f"more than one line: {ended.line!r}"
    if not any(path in ended.message for path in paths):
        return f"no file is named: {ended.line}"
    return ""


def path_in(message: str) -> str:
    """The first path of a project in a message, else empty."""
    found = re.search(
        r"(?:\.hesspipe|results|figures|tables|claims|metrics|logs|data)[\w./-]*", message
    )
    return found.group() if found else ""


def expected_of(
    workshop: tiny.Workshop, job: tiny.Job, name: str = "expected"
) -> tuple[dict[str, str], forks.Ended]:
    """Run a job undisturbed; its files, and the changes of files that it announced."""
    folder = workshop.before(job, name)
    ended = job.run(folder, record=True)
    assert ended.code == 0, f"{job.name}: {ended.line}"
    return tiny.contents(folder), ended


def spread(
    jobs: list[tiny.Job], seconds: dict[str, float], number: int, draw: random.Random
) -> list[tiny.Job]:
    """Draw jobs with equal probability of each script, but slow ones less often."""
    by_kind: dict[str, list[tiny.Job]] = {}
    for job in jobs:
        by_kind.setdefault(job.kind, []).append(job)
    kinds = sorted(by_kind)
    weights = [1 / max(seconds.get(kind, 0.0), 0.2) for kind in kinds]
    return [draw.choice(by_kind[kind]) for kind in draw.choices(kinds, weights, k=number)]

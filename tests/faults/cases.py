"""One fault each, and what became of it."""

from __future__ import annotations

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
    # A missing file of MNIST is named once for both of its forms.
    if not any(path.removesuffix(".gz") in ended.message for path in paths):
        return f"no file is named: {ended.line}"
    return ""


def path_in(message: str) -> str:
    """The first path of a project in a message, else empty."""
    found = re.search(
        r"(?:\.hesspipe|results|figures|tables|claims|metrics|logs|data)[\w./-]*", message
    )
    return found.group() if found else ""


_KNOWN: dict[str, tuple[dict[str, str], forks.Ended]] = {}


def expected_of(workshop: tiny.Workshop, job: tiny.Job) -> tuple[dict[str, str], forks.Ended]:
    """Run a job undisturbed, once; its files, and the changes of files that it announced."""
    if job.name not in _KNOWN:
        folder = workshop.before(job, "expected")
        ended = job.run(folder, record=True)
        assert ended.code == 0, f"{job.name}: {ended.line}"
        _KNOWN[job.name] = tiny.contents(folder), ended
    return _KNOWN[job.name]

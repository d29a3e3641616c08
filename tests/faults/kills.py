"""Kill jobs, and run them again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import forks
import tiny
from cases import Case, Verdict, expected_of, names, path_in, survived

# Those that keep an unfinished state are killed more often, and a slow one less.
_WEIGHTS = {"train": 6.0, "find_eigenpairs": 4.0, "sample_spikes": 0.2}
_SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT]


def plan(workshop: tiny.Workshop, number: int, draw: random.Random) -> Iterator[Case]:
    """Yield `number` kills at random moments, and one at each change of a file in end phases.

    The end phase of a job begins with the first change of a file that is not its log or unfinished
    state. A job that keeps such a state is killed at each change of it as well.
    """
    jobs = {job.kind: job for job in workshop.jobs if "photographs" not in job.name}
    undisturbed = {kind: expected_of(workshop, job) for kind, job in jobs.items()}
    seconds = {kind: ended.seconds for kind, (_, ended) in undisturbed.items()}
    kinds = sorted(jobs)
    weights = [_WEIGHTS.get(kind, 1.0) for kind in kinds]
    for kind in draw.choices(kinds, weights, k=number):
        moments = [
            (draw.choice(_SIGNALS), draw.uniform(0, 1.1 * seconds[kind]))
            for _ in range(draw.choice([1, 1, 2, 3]))
        ]
        body = partial(_at_moments, workshop, jobs[kind], undisturbed[kind][0], moments)
        told = ", ".join(f"{one.name} after {moment:.3f} s" for one, moment in moments)
        yield Case("jobs killed at random moments", f"{jobs[kind].name}: {told}", body)
    points = [(kind, point) for kind in kinds for point in end_phase(undisturbed[kind][1].changes)]
    points += [
        (kind, point)
        for kind in set(kinds) & {"train", "find_eigenpairs"}
        for point in range(1, end_phase(undisturbed[kind][1].changes).start)
    ]
    if number < 100:
        points = draw.sample(sorted(points), min(number, len(points)))
    for kind, point in points:
        body = partial(_at_change, workshop, jobs[kind], undisturbed[kind][0], point)
        change = undisturbed[kind][1].changes[point - 1]
        yield Case(
            "jobs killed at a change of a file", f"{jobs[kind].name}: at {point}, {change}", body
        )


def end_phase(changes: list[str]) -> range:
    """Numbers, from 1, of the changes from the first one of a result on."""
    first = next(
        (number for number, change in enumerate(changes, 1) if not _is_state(change)), len(changes)
    )
    return range(first, len(changes) + 1)


def _is_state(change: str) -> bool:
    event, path = change.split(" ", 1)
    return event == "os.mkdir" or path.startswith(
        ("logs/", ".hesspipe/training", ".hesspipe/eigenpairs", "#")
    )


def finish(job: tiny.Job, folder: Path, expected: dict[str, str]) -> Verdict:
    """Run a job until it ends, following its advice once, and compare."""
    ended = job.run(folder)
    if ended.code == 0:
        return survived(folder, expected)
    path = path_in(ended.message)
    wrong = names(ended, path or "-")
    if wrong:
        return Verdict("failed", wrong)
    (folder / path).unlink(missing_ok=True)
    return run_again(job, folder, expected, ended, "without it")


def run_again(
    job: tiny.Job, folder: Path, expected: dict[str, str], ended: forks.Ended, what: str
) -> Verdict:
    """Run a job once more after what its message said was done, and compare."""
    again = job.run(folder)
    if again.code:
        return Verdict("failed", f"{ended.line}; {what}, {again.line}")
    verdict = survived(folder, expected)
    return verdict if verdict.outcome == "failed" else Verdict("told", ended.line)


def _at_moments(
    workshop: tiny.Workshop,
    job: tiny.Job,
    expected: dict[str, str],
    moments: list[tuple[signal.Signals, float]],
    name: str,
) -> Verdict:
    folder = workshop.before(job, name)
    for number, moment in moments:
        process = job.start(folder)
        time.sleep(moment)
        process.kill(number)
        process.wait()
    return finish(job, folder, expected)


def _at_change(
    workshop: tiny.Workshop, job: tiny.Job, expected: dict[str, str], point: int, name: str
) -> Verdict:
    folder = workshop.before(job, name)
    ended = job.run(folder, die_at=point)
    if not ended.is_killed:
        return Verdict("failed", f"not killed: {ended.line}")
    return finish(job, folder, expected)

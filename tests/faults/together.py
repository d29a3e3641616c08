"""Run two jobs on one unfinished state, or two whole runs in one folder, at once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial

import tiny
import wholes
from cases import Case, Verdict, expected_of, names, survived


def plan(workshop: tiny.Workshop, number: int, draw: random.Random) -> Iterator[Case]:
    """Yield `number` pairs of jobs, a third of them resuming one state, and some pairs of runs."""
    jobs = [job for job in workshop.jobs if job.kind in ("train", "find_eigenpairs")]
    jobs = [job for job in jobs if "photographs" not in job.name]
    undisturbed = {job.name: expected_of(workshop, job) for job in jobs}
    for count in range(number):
        job = draw.choice(jobs)
        expected, ended = undisturbed[job.name]
        point = draw.randint(1, len(ended.changes)) if count % 3 == 0 else 0
        delay = draw.uniform(0, ended.seconds)
        body = partial(_two_jobs, workshop, job, expected, point, delay)
        what = "training" if job.kind == "train" else "search"
        about = f"{job.name}: the second after {delay:.3f} s" + (
            f", killed at {point} before" if point else ""
        )
        yield Case(f"two at once: one {what}", about, body)
    finished = wholes.reference(workshop) if number >= 10 else {}
    for _ in range(number // 10):
        delay, lock = draw.uniform(0, 3), draw.random() < 0.5
        body = partial(_two_runs, workshop, finished, delay, lock)
        yield Case("two at once: whole runs", f"the second after {delay:.3f} s, lock {lock}", body)


def _two_jobs(
    workshop: tiny.Workshop,
    job: tiny.Job,
    expected: dict[str, str],
    point: int,
    delay: float,
    name: str,
) -> Verdict:
    folder = workshop.before(job, name)
    if point:
        job.run(folder, die_at=point)
    processes = [job.start(folder)]
    time.sleep(delay)
    processes.append(job.start(folder))
    told = ""
    for process in processes:
        ended = process.wait()
        if ended.code:
            told = ended.line
            if wrong := names(ended, ".hesspipe/", *job.outputs):
                return Verdict("failed", wrong)
    if told:
        again = job.run(folder)
        if again.code:
            return Verdict("failed", f"{told}; then {again.line}")
    verdict = survived(folder, expected)
    return verdict if verdict.outcome == "failed" or not told else Verdict("told", told)


def _two_runs(
    workshop: tiny.Workshop, expected: dict[str, str], delay: float, lock: bool, name: str
) -> Verdict:
    folder = workshop.folder(name)
    options = () if lock else ("--nolock",)
    runs = [wholes.Run(workshop, folder, *options)]
    runs[0].serve(delay)
    runs.append(wholes.Run(workshop, folder, *options))
    while not all(run.has_ended() for run in runs):
        for run in runs:
            run.serve(0.01)
    told = [run.output for run in runs if run.code]
    for text in told:
        if lock and "--unlock" not in text and "lock" not in text:
            return Verdict("failed", f"not told: {text[-500:]}")
    if told:
        again = wholes.run(workshop, folder)
        if again.code:
            return Verdict("failed", again.output[-800:])
    verdict = survived(folder, expected)
    return verdict if verdict.outcome == "failed" or not told else Verdict("told", told[0][-200:])

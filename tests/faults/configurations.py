"""Mutate the configuration: one line for each mistake, or a plan, and soon."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import forks
import tiny
import yaml
from cases import Case, Verdict

_SECONDS = 2.0  # of computing, to read and check a configuration
_PLANNED = 10  # one in so many is planned by Snakemake, too


def plan(workshop: tiny.Workshop, number: int, draw: random.Random) -> Iterator[Case]:
    """Yield `number` mutations, half of them of the file's text."""
    from config_mutations import mutated_mappings, mutated_texts

    text = (tiny.PROJECT / "config.yaml").read_text(encoding="utf-8")
    seed = draw.randrange(2**31)
    mappings = islice(mutated_mappings(yaml.safe_load(text), seed), (number + 1) // 2)
    texts = islice(mutated_texts(text, seed), number // 2)
    changes: list[tuple[str, str, object]] = [("keys and values", *one) for one in mappings]
    changes += [("text", *one) for one in texts]
    for count, (kind, about, content) in enumerate(changes):
        body = partial(_read, workshop, content, count % _PLANNED == 0)
        yield Case(f"configurations: {kind}", about[:200], body)


def _read(workshop: tiny.Workshop, content: object, is_planned: bool, name: str) -> Verdict:
    folder = workshop.folder(name)
    path = folder / "config.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif not _dump(content, path):
        return Verdict("survived", "no YAML can say this")
    ended = forks.run(partial(_load, path.name), folder)
    if ended.error and ended.error != "ConfigError":
        return Verdict("failed", ended.line[:500])
    if ended.code < 0 or (ended.value or 0) > _SECONDS:
        return Verdict("failed", f"{ended.value} s, {ended.line}"[:500])
    lines = ended.message.splitlines()
    if any("config.yaml" not in line and "more error" not in line for line in lines):
        return Verdict("failed", f"the file is not named: {ended.message[:500]}")
    if is_planned:
        snakefile = workshop.root / "source/Snakefile"
        planned = forks.run(partial(_plan, snakefile), folder)
        if (planned.code == 0) != (ended.code == 0):
            return Verdict(
                "failed", f"the loader: {ended.line[:300]}; Snakemake: {planned.line[:300]}"
            )
    return Verdict("told", lines[0]) if lines else Verdict("survived", "valid")


def _load(name: str) -> float:
    """Read and check; return the seconds of computing, which other programs do not change."""
    from hesspipe.config.loading import load_config

    started = time.process_time()
    load_config(name)
    return time.process_time() - started


def _plan(snakefile: Path) -> None:
    """Plan every job, as `snakemake --dry-run` does."""
    from snakemake.cli import main

    main(["--snakefile", os.fspath(snakefile), "--cores", "1", "--dry-run", "--quiet", "all"])


def _dump(content: object, path: Path) -> bool:
    try:
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError, ValueError):
        return False
    return True

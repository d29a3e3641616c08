"""Digests of the code, the configuration and the user's files, in one file.

    python -m hesspipe.workflow.sources

Every stage of dvc.yaml depends on it. Snakemake decides which jobs of a stage an edit affects, so
DVC only has to notice that there was one. What is watched are the `deps` of the stage `sources`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import yaml

from hesspipe.files import digest, write_text
from hesspipe.workflow.failures import one_line_errors

PATH = "results/sources.json"


def watched_paths() -> list[str]:
    """List the files and folders that the stage `sources` of dvc.yaml depends on."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return list(stages["sources"]["deps"])


def source_digests() -> dict[str, str]:
    """Collect the SHA-256 of every watched file, by its path."""
    found = [
        path
        for source in map(Path, watched_paths())
        for path in [source, *source.rglob("*")]
        if path.is_file() and path.suffix != ".pyc"
    ]
    return {path.as_posix(): digest(path) for path in sorted(found)}


def sources_text() -> str:
    """Return what the file must hold."""
    return json.dumps(source_digests(), indent=1) + "\n"


def write_sources() -> None:
    """Write the digests in the current folder, unless they are there already."""
    text, path = sources_text(), Path(PATH)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(text, path)


def unwatched_files(paths: Iterable[str]) -> list[str]:
    """Find files that decide a result and that DVC does not watch: their edits would rerun nothing.

    Parameters
    ----------
    paths : iterable of str
        The user's files, relative to the current folder.

    Returns
    -------
    list of str
        In alphabetical order.
    """
    watched = watched_paths()
    return sorted(
        path for path in set(paths) if not any(Path(path).is_relative_to(one) for one in watched)
    )


if __name__ == "__main__":
    with one_line_errors():
        write_sources()

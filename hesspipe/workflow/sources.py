"""Digests of the code and the configuration, in one file.

    python -m hesspipe.workflow.sources

Every stage of dvc.yaml depends on it. Snakemake decides which jobs of a stage an edit affects, so
DVC only has to notice that there was one.
"""

from __future__ import annotations

import json
from pathlib import Path

from hesspipe.files import digest, write_text

PATH = "results/sources.json"
_SOURCES = ("hesspipe", "scripts", "rules", "Snakefile", "config.yaml", "statements.yaml")


def source_digests() -> dict[str, str]:
    """Collect the SHA-256 of every file of the code and the configuration, by its path."""
    found = [
        path
        for source in map(Path, _SOURCES)
        for path in [source, *source.rglob("*")]
        if path.is_file() and path.suffix != ".pyc"
    ]
    return {path.as_posix(): digest(path) for path in sorted(found)}


def write_sources() -> None:
    """Write the digests in the current folder, unless they are there already."""
    text = json.dumps(source_digests(), indent=1) + "\n"
    path = Path(PATH)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(text, path)


if __name__ == "__main__":
    write_sources()

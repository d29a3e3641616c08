"""Digests of the code, the configuration and the user's files, in one file for each stage of DVC.

    python -m hesspipe.workflow.sources

Snakemake decides which jobs of a stage an edit affects, so DVC only has to notice that there was
one. What is watched are the `deps` of the stage `sources` in dvc.yaml. Of the code, a stage's file
has what its jobs run, so that other edits do not even call Snakemake; docstrings do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import yaml

from hesspipe.errors import ConfigError
from hesspipe.files import digest, write_text
from hesspipe.workflow.code_files import code_digest
from hesspipe.workflow.failures import one_line_errors
from hesspipe.workflow.stages import STAGES, code_of

# How every job is made from the configuration.
_WORKFLOW = ("hesspipe/config", "hesspipe/workflow")
_CODE = ("hesspipe", "scripts")


def path_of(stage: str) -> str:
    """Name the file of a stage."""
    return f"results/sources/{stage}.json"


def watched_paths() -> list[str]:
    """List the files and folders that the stage `sources` of dvc.yaml depends on."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return list(stages["sources"]["deps"])


def is_versioned() -> bool:
    """Whether DVC versions this project: its dvc.yaml may be the user's, for something else.

    Raises
    ------
    ConfigError
        If dvc.yaml is not YAML.
    """
    path = Path("dvc.yaml")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"dvc.yaml must be YAML, got {reason}; correct it") from None
    stages = found.get("stages") if isinstance(found, dict) else None
    stage = stages.get("sources") if isinstance(stages, dict) else None
    return isinstance(stage, dict) and "hesspipe.workflow.sources" in str(stage.get("cmd"))


def source_digests() -> dict[str, str]:
    """Collect the SHA-256 of every watched file, by its path."""
    found = sorted(
        path
        for source in map(Path, watched_paths())
        for path in [source, *source.rglob("*")]
        if path.is_file() and path.suffix != ".pyc"
    )
    return {
        path.as_posix(): code_digest(path) if _is_in(path, _CODE) else digest(path)
        for path in found
    }


def sources_texts() -> dict[str, str]:
    """Return what the file of each stage must hold, by its path."""
    found = source_digests()
    always = {path for path in found if _is_in(path, _WORKFLOW) or not _is_in(path, _CODE)}
    texts = {}
    for stage in STAGES:
        runs = always | code_of(stage)
        digests = {path: found[path] for path in found if path in runs}
        texts[path_of(stage)] = json.dumps(digests, indent=1) + "\n"
    return texts


def write_sources() -> None:
    """Write the digests in the current folder, unless they are there already."""
    for name, text in sources_texts().items():
        path = Path(name)
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
    return sorted(path for path in set(paths) if not _is_in(path, watched))


def _is_in(path: str | Path, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


if __name__ == "__main__":
    with one_line_errors():
        write_sources()

"""Outputs that are not those of dvc.lock, by content, because DVC trusts the times of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import yaml

_CACHE = Path(".dvc/cache/files/md5")


def unlike_lock() -> list[str]:
    """List the files here that differ from those of dvc.lock, whose md5 is known.

    The md5 of a folder's files are in DVC's cache, which holds what was committed or pulled here.
    """
    return sorted(path for path, md5 in _recorded() if Path(path).is_file() and _md5(path) != md5)


def _recorded() -> Iterator[tuple[str, str]]:
    lock = Path("dvc.lock")
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    for stage in stages.values():
        for output in stage.get("outs", []):
            path, md5 = output["path"], output["md5"]
            if not md5.endswith(".dir"):
                yield path, md5
                continue
            listed = _CACHE / md5[:2] / md5[2:]
            if listed.is_file():
                for entry in json.loads(listed.read_text(encoding="utf-8")):
                    yield f"{path}/{entry['relpath']}", entry["md5"]


def _md5(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()

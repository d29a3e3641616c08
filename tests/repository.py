"""The repository's folder, and copies of what is in it; imports nothing of hesspipe."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def copy_of_repository(names: Iterable[str], folder: Path) -> None:
    """Copy files and folders of the repository into a folder, without compiled code."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)

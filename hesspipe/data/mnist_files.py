"""Names and contents of MNIST's files.

The workflow asks which of them lie in a folder whenever it is read, so this module must not load
torch.
"""

from __future__ import annotations

from pathlib import Path

# MD5 of their contents without compression, which may be another in each copy; as published by
# https://github.com/pralab/secml and others, who agree.
CONTENTS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def find_file(folder: Path, name: str) -> Path | None:
    """Find one of the files, compressed or not; the compressed one if there are both."""
    paths = (folder / f"{name}.gz", folder / name)
    return next((path for path in paths if path.is_file()), None)


def existing_files(folder: str | Path) -> list[Path]:
    """List which of MNIST's four files a folder has."""
    found = (find_file(Path(folder), name) for name in CONTENTS)
    return [path for path in found if path is not None]

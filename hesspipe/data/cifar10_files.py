"""Names of the files of CIFAR-10's binary version.

The workflow asks which of them a folder lacks whenever it is read, so this module must not load
torch.
"""

from __future__ import annotations

from pathlib import Path

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)


def missing_files(folder: str | Path) -> list[Path]:
    """List which of CIFAR-10's six files a folder lacks."""
    paths = [Path(folder, name) for name in (*TRAIN_FILES, *TEST_FILES)]
    return [path for path in paths if not path.is_file()]

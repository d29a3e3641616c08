"""Names of the files of CIFAR-10's binary version.

The workflow asks which of them a folder lacks whenever it is read, so this module must not load
torch.
"""

from __future__ import annotations

from pathlib import Path

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
# MD5 of the six files, as published by https://github.com/rai-project/dldataset and others, who
# agree; the home page has only that of the archive.
CONTENTS = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


def existing_files(folder: str | Path) -> list[Path]:
    """List which of CIFAR-10's six files a folder has."""
    paths = [Path(folder, name) for name in (*TRAIN_FILES, *TEST_FILES)]
    return [path for path in paths if path.is_file()]


def missing_files(folder: str | Path) -> list[Path]:
    """List which of CIFAR-10's six files a folder lacks."""
    paths = [Path(folder, name) for name in (*TRAIN_FILES, *TEST_FILES)]
    return [path for path in paths if not path.is_file()]

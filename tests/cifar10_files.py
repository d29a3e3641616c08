"""CIFAR-10's binary files, written from the published description of their layout.

One label, then 1,024 bytes of red, of green and of blue, each row by row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hesspipe.data.cifar10_files import TEST_FILES, TRAIN_FILES


def pictures(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of shape (N, row, column, color), in display order, and labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (num_images, 32, 32, 3)), random.integers(0, 10, num_images)


def record(image: np.ndarray, label: int) -> bytes:
    planes = [int(image[row, column, color]) for color in range(3) for row in range(32)
              for column in range(32)]  # fmt: skip
    return bytes([int(label), *planes])


SIZES = dict(zip((*TRAIN_FILES, *TEST_FILES), (3, 2, 1, 2, 4, 5), strict=True))
PICTURES = {name: pictures(size, seed) for seed, (name, size) in enumerate(SIZES.items())}
FILES = {
    name: b"".join(record(*pair) for pair in zip(images, labels, strict=True))
    for name, (images, labels) in PICTURES.items()
}
TRAIN_IMAGES = np.concatenate([PICTURES[name][0] for name in TRAIN_FILES])
TRAIN_LABELS = np.concatenate([PICTURES[name][1] for name in TRAIN_FILES])


def write_files(folder: Path, **changes: bytes | None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        content = changes.get(name.removesuffix(".bin"), content)
        if content is not None:
            (folder / name).write_bytes(content)
    return folder

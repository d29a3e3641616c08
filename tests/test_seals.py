"""A file with a seal is read as it was written, or not at all, whatever happens to it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from problems import network, normal
from safetensors.numpy import load_file, save_file

from hesspipe.data.dataset import Dataset, read_dataset, write_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.files import read_tensors, write_sealed, write_tensors
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.seals import BLANK, check_seal, sealed
from hesspipe.tables.store import Result, read_result, write_result

ABOUT = {
    "experiment": "slow", "num_classes": 3, "seed": 1, "step": 20, "matrix": "hessian",
    "num_parameters": 3, "num_negative": 1, "num_zero": 0,
}  # fmt: skip


def spectrum(num_values: int) -> Result:
    values = np.sort(normal(num_values).numpy())
    table = pd.DataFrame({"rank": range(num_values), "eigenvalue": values})
    return Result("spectrum", table, ABOUT)


def eigenpairs(seed: int) -> Result:
    table = pd.DataFrame(
        {
            "end": ["smallest", "largest"],
            "rank": [0, 8],
            "eigenvalue": [-0.5, 2.0],
            "residual_norm": [1e-9 * seed, 2e-9],
        }
    )
    return Result("eigenpairs", table, ABOUT | {"seed": seed})


def dataset(size: int) -> Dataset:
    return Dataset(
        normal(size, 2), torch.arange(size), normal(1, 2), torch.zeros(1).long(), size, {"seed": 3}
    )


def tensors(seed: int) -> dict[str, torch.Tensor]:
    return {
        "half": torch.full((3,), float(seed), dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "number": torch.tensor(1.5 + seed),
        "empty": torch.zeros(0, 2),
    }


# Writes one of two files of a kind; reads everything that the file holds.
KINDS: dict[str, tuple[str, Callable[[Path, int], Any], Callable[[Path], Any]]] = {
    "dataset": (
        "safetensors",
        lambda path, seed: write_dataset(dataset(4 + seed), path),
        lambda path: vars(read_dataset(path)),
    ),
    "checkpoint": (
        "safetensors",
        lambda path, seed: Checkpoint.of(
            network([2, 3, 2], std=1.0 + seed), seed, {"seed": seed}
        ).write(path),
        lambda path: vars(Checkpoint.read(path)),
    ),
    "tensors": (
        "safetensors",
        lambda path, seed: write_tensors(tensors(seed), path, {"key": f"value {seed}"}),
        read_tensors,
    ),
    "spectrum": (
        "parquet",
        lambda path, seed: write_result(spectrum(50 + seed), path),
        lambda path: vars(read_result(path)),
    ),
    "eigenpairs": (
        "parquet",
        lambda path, seed: write_result(eigenpairs(seed), path),
        lambda path: vars(read_result(path)),
    ),
}


def same(one: Any, other: Any) -> bool:
    """Whether two contents agree to the last bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def faults(content: bytes, other: bytes, seed: int) -> list[bytes]:
    """Everything that is tried on a file; each differs from its content."""
    draw, size = random.Random(seed), len(content)
    start = draw.randrange(size - 20)
    found = [flipped(content, draw.randrange(8 * size)) for _ in range(60)]
    # Headers and footers, where a parser finds its lengths.
    found += [flipped(content, position) for position in range(0, 8 * 12, 5)]
    found += [flipped(content, 8 * size - 1 - position) for position in range(0, 8 * 12, 5)]
    found += [content[: draw.randrange(size)] for _ in range(10)]
    found += [content + b"\0", content + content, content + other, b"\0" + content]
    found += [other[: size // 2] + content[size // 2 :], content[: size // 2] + other[size // 2 :]]
    found += [content[:start] + b"\0" * 20 + content[start + 20 :], content[::-1], b"\0" * size]
    found += [content.replace(b"seed", b"step"), content.replace(b"1", b"2")]
    found += [content.replace(b"zeros", b"ZEROS"), content[:start] + content[start + 1 :]]
    return [one for one in found if one != content]


@pytest.mark.parametrize("kind", KINDS)
def test_reader_never_gives_other_content_when_a_file_has_changed(
    kind: str, tmp_path: Path
) -> None:
    suffix, write, read = KINDS[kind]
    path, second = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    write(path, 0)
    write(second, 1)
    content, expected = path.read_bytes(), read(path)
    assert same(read(path), expected)
    assert not same(read(second), expected)  # the comparison can fail
    for changed in faults(content, second.read_bytes(), seed=1):
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError, match=r"one.*is damaged or incomplete"):
            read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_content_gives_equal_sealed_bytes(kind: str, tmp_path: Path) -> None:
    suffix, write, _ = KINDS[kind]
    for name in ("one", "two"):
        write(tmp_path / f"{name}.{suffix}", 0)
    one, two = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "two"))
    assert one == two


def test_sealed_files_are_read_by_other_programs(tmp_path: Path) -> None:
    write_result(spectrum(9), tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), spectrum(9).table)
    write_tensors({"a": torch.arange(3)}, tmp_path / "file.safetensors", {})
    assert load_file(tmp_path / "file.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["safetensors", "parquet"])
def test_file_of_an_older_version_is_named_as_such(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"old.{kind}"
    if kind == "parquet":
        write_result(spectrum(9), path)
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({"hesspipe": json.dumps(ABOUT)}), path)
        read: Callable[[Path], Any] = read_result
    else:
        save_file({"a": np.ones(2)}, path, {"about": "{}"})
        read = read_tensors
    with pytest.raises(DamagedFileError, match="no SHA-256 of its content, as files of older vers"):
        read(path)


def test_seal_is_the_sha_256_with_zeros_in_its_place(tmp_path: Path) -> None:
    content = b"before " + BLANK.encode() + b" after"
    path = tmp_path / "file"
    write_sealed(content, path)
    found = path.read_bytes()
    stored = found[len(b"before ") + len(BLANK) - 64 : -len(b" after")]
    assert stored.decode() == hashlib.sha256(content).hexdigest()
    assert found.replace(stored, b"0" * 64) == content
    check_seal(path)


@pytest.mark.parametrize("content", [b"", b"none", BLANK.encode()[:-1], BLANK[:-1].encode() + b"1"])
def test_sealed_refuses_content_without_a_blank_seal(content: bytes) -> None:
    with pytest.raises(ValueError, match="content must hold the blank seal first"):
        list(sealed(content))


def test_write_result_seals_a_provenance_that_looks_like_a_seal(tmp_path: Path) -> None:
    result = spectrum(3)
    deceptive = Result("spectrum", result.table, ABOUT | {"note": f"{BLANK[:-64]}abc"})
    path = tmp_path / "table.parquet"
    write_result(deceptive, path)  # the seal comes first
    assert read_result(path).provenance["note"] == f"{BLANK[:-64]}abc"

"""Every file is replaced as a whole, after its content is on the disk, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.figure import Figure
from problems import network, normal

from hesspipe.data.dataset import Dataset, write_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.files import atomic_path, digest, write_json, write_tensors, write_text
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.networks.training_state import TrainingState
from hesspipe.plots import style
from hesspipe.tables.store import Result, read_result, write_result

ABOUT = {
    "experiment": "slow", "num_classes": 3, "seed": 1, "step": 20, "matrix": "hessian",
    "num_parameters": 3, "num_negative": 1, "num_zero": 0,
}  # fmt: skip


def write_copy(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"copied" * 1000)


def write_spectrum(path: Path, num_values: int = 3) -> pd.DataFrame:
    values = np.sort(normal(num_values).numpy())
    table = pd.DataFrame({"rank": range(num_values), "eigenvalue": values})
    write_result(Result("spectrum", table, ABOUT), path)
    return table


def write_figure(path: Path) -> None:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1], [0, 1])
    style.save(figure, path, path.with_suffix(".png"))


def write_history(path: Path) -> None:
    row = {"step": 0, "train_loss": 1.0}
    TrainingState(path.parent).save(row, Checkpoint.of(network([2, 2]), 0, {}))


# Each writes the file at the path; the names are those that the writers give themselves.
WRITERS: dict[str, Callable[[Path], Any]] = {
    "text.md": lambda path: write_text("some text", path),
    "metrics.json": lambda path: write_json({"count": 3}, path),
    "tensors.safetensors": lambda path: write_tensors({"a": torch.ones(5)}, path, {}),
    "checkpoint.safetensors": Checkpoint.of(network([2, 3, 2]), 1, {}).write,
    "dataset.safetensors": lambda path: write_dataset(
        Dataset(normal(3, 2), torch.arange(3), normal(1, 2), torch.zeros(1).long(), 3), path
    ),
    "copy.bin": write_copy,
    "spectrum.parquet": write_spectrum,
    "figure.pdf": write_figure,
    "history.json": write_history,
    "step0.safetensors": write_history,
}


@dataclass
class Calls:
    """The files whose content reached the disk, and those that were renamed."""

    synced: list[tuple[int, bytes]]
    renamed: list[tuple[str, int, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    seen = Calls([], [])
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        seen.synced.append((status.st_ino, os.pread(descriptor, status.st_size, 0)))

    def watched_replace(source: Any, target: Any) -> None:
        seen.renamed.append((str(target), os.stat(source).st_ino, len(seen.synced)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return seen


@pytest.mark.parametrize("name", WRITERS)
def test_writer_never_writes_over_the_old_file(tmp_path: Path, name: str) -> None:
    path, link = tmp_path / name, tmp_path / "link"
    path.write_text("old")
    os.link(path, link)  # a second name of the old file: it shows what happens to its content
    with path.open() as reader:
        WRITERS[name](path)
        assert reader.read() == "old"
    assert link.read_text() == "old"
    assert path.read_bytes() != b"old"
    assert not path.samefile(link)


@pytest.mark.parametrize("name", WRITERS)
def test_writer_puts_the_whole_content_on_the_disk_before_the_rename(
    tmp_path: Path, name: str, calls: Calls
) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    [(inode, num_synced)] = [call[1:] for call in calls.renamed if call[0] == str(path)]
    assert path.stat().st_ino == inode
    assert (inode, path.read_bytes()) in calls.synced[:num_synced]


@pytest.mark.parametrize("name", WRITERS)
def test_writer_that_cannot_rename_leaves_the_old_file_alone(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_text("old")

    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device", str(source))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="could not be written") as caught:
        WRITERS[name](path)
    assert caught.value.errno == 28
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_read_result_gives_never_another_table_when_a_byte_of_a_column_has_changed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spectrum.parquet"
    table = write_spectrum(path, 400)
    content = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    refused = []
    for number in range(group.num_columns):
        column = group.column(number)
        start = min(column.data_page_offset, column.dictionary_page_offset or 2**62)
        for position in range(start, start + column.total_compressed_size, 23):
            changed = bytearray(content)
            changed[position] ^= 4
            path.write_bytes(changed)
            try:
                found = read_result(path, "spectrum").table
            except DamagedFileError:
                refused.append(position)
            else:
                # The byte decides nothing, such as a statistic that is not read.
                pd.testing.assert_frame_equal(found, table, check_exact=True)
    assert len(refused) > 100


def test_atomic_path_gives_each_writer_a_file_of_its_own(tmp_path: Path) -> None:
    # Two processes that write the same result must not share a temporary file.
    path = tmp_path / "result.txt"
    with atomic_path(path) as one, atomic_path(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["result.txt"]


def test_atomic_path_hides_its_temporary_file_from_patterns_of_results(tmp_path: Path) -> None:
    # A killed job leaves it, and `glob` would otherwise take it for a result.
    with atomic_path(tmp_path / "step3.safetensors") as temporary:
        temporary.write_text("half of")
        assert not [*tmp_path.glob("step*.safetensors")]
        assert TrainingState(tmp_path)._accept(network([2, 2])) == ""


def test_digest_sees_every_byte(tmp_path: Path) -> None:
    path, content = tmp_path / "file", bytearray(1 << 19)
    path.write_bytes(content)
    seen = {digest(path)}
    for position in (0, 1, (1 << 18) - 1, 1 << 18, (1 << 19) - 1):
        changed = bytearray(content)
        changed[position] = 1
        path.write_bytes(changed)
        seen.add(digest(path))
    path.write_bytes(content + b"\0")
    assert len(seen | {digest(path)}) == 7

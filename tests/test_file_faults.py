"""Faults of disks and permissions: one message with the path, what was kept, and what to do."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_files_guards import WRITERS, write_spectrum

from hesspipe.data.dataset import read_dataset
from hesspipe.errors import DamagedFileError, UnreadableFileError, UnwritableFileError
from hesspipe.files import (
    atomic_path,
    digest,
    read_tensors,
    require_writable,
    write_tensors,
    write_text,
)
from hesspipe.networks.checkpoints import Checkpoint
from hesspipe.tables.store import read_result

# A word of what to do about each.
ADVICE = {
    errno.ENOSPC: "df -h", errno.EDQUOT: "quota", errno.EFBIG: "ulimit -f", errno.EROFS: "remount",
    errno.EACCES: "permissions", errno.EPERM: "lsattr", errno.ENAMETOOLONG: "shorter name",
    errno.EMFILE: "ulimit -n", errno.ENFILE: "other programs", errno.EIO: "dmesg",
    errno.ENOMEM: "memory", errno.ESTALE: "network disk", errno.EBUSY: "cause",
}  # fmt: skip
# System calls of a write, in their order, and where an error of each names a file.
CALLS = ["open", "write", "fsync", "replace"]


def fail_at(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Let one system call of a write fail; reads pass."""
    error_of = OSError  # which chooses its subclass by the number
    true_open, true_open_file = os.open, io.open

    def refuse_creation(path: Any, flags: int, *mode: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            raise error_of(number, os.strerror(number), str(path))
        return true_open(path, flags, *mode, **options)

    def refuse_writing(path: Any, mode: str = "r", *others: Any, **options: Any) -> Any:
        if "w" in mode:
            raise error_of(number, os.strerror(number))  # as of a write: without a name
        return true_open_file(path, mode, *others, **options)

    def refuse(*arguments: Any) -> None:
        names = [str(one) for one in arguments if isinstance(one, Path)]
        raise error_of(number, os.strerror(number), *names[:1])

    if call == "open":
        monkeypatch.setattr(os, "open", refuse_creation)
    elif call == "write":
        monkeypatch.setattr(io, "open", refuse_writing)
    else:
        monkeypatch.setattr(os, call, refuse)


def check_unwritable(caught: OSError, path: Path, number: int, kept: str) -> None:
    text = str(caught)
    assert caught.errno == number
    assert text.startswith(f"{path} could not be written ({os.strerror(number)}); {kept}. ")
    assert ADVICE[number] in text
    assert text.endswith("then run the same command again")
    assert "\n" not in text
    assert ".tmp" not in text
    assert "Errno" not in text


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
def test_writer_names_its_path_as_given_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.chdir(tmp_path)  # the paths of Snakemake are relative
    old, new = Path("results/old.txt"), Path("results/new.txt")
    write_text("old", old)
    fail_at(monkeypatch, call, number)
    for path, kept in ((old, "the old file was kept"), (new, "nothing was left behind")):
        with pytest.raises(UnwritableFileError) as caught:
            write_text("new", path)
        check_unwritable(caught.value, path, number, kept)
    monkeypatch.undo()
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["old.txt"]
    assert (tmp_path / "results/old.txt").read_text() == "old"


# A history is written after the checkpoint of its step, whose file is then the one that is named.
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "history.json"])
def test_each_writer_ends_in_this_message_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_text("old")
    fail_at(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(UnwritableFileError) as caught:
        WRITERS[name](path)
    monkeypatch.undo()
    check_unwritable(caught.value, path, errno.ENOSPC, "the old file was kept")
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_text() == "old"


def make_file(path: Path) -> None:
    path.write_text("")


def make_dead_link(path: Path) -> None:
    path.symlink_to("absent")


@pytest.mark.parametrize(
    ("make", "obstacle", "reason"),
    [
        (make_file, "a", "a is a file, and must be a folder"),
        (make_file, "a/b", "b is a file, and must be a folder"),
        (make_dead_link, "a", "a is a symbolic link to absent, which does not exist"),
        (Path.mkdir, "a/b/out.txt", "(it is a folder, and must be a file)"),
    ],
)
def test_writer_names_what_stands_in_the_way(
    tmp_path: Path, make: Callable[[Path], None], obstacle: str, reason: str
) -> None:
    (tmp_path / obstacle).parent.mkdir(parents=True, exist_ok=True)
    make(tmp_path / obstacle)
    with pytest.raises(UnwritableFileError, match="Move it away") as caught:
        write_text("text", tmp_path / "a/b/out.txt")
    assert f"{reason}" in str(caught.value)


def test_writer_replaces_a_dead_link_and_not_what_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("read-only copy of DVC")
    for target in ("cache", "absent"):
        path = tmp_path / "out.txt"
        path.symlink_to(target)
        write_text("new", path)
        assert not path.is_symlink()
        assert path.read_text() == "new"
        path.unlink()
    assert (tmp_path / "cache").read_text() == "read-only copy of DVC"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "in.bin"),
        OSError(errno.EIO, "Input/output error", "/elsewhere/in.bin"),
        OSError("an error of a library, without a number"),
        DamagedFileError("in.bin", "truncated"),
        UnreadableFileError("in.bin", OSError(errno.EIO, "Input/output error")),
    ],
    ids=repr,
)
def test_writer_passes_errors_about_other_files(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "out.bin"):
        raise error
    assert caught.value is error
    assert not [*tmp_path.iterdir()]


def test_writer_names_the_copy_when_a_copy_has_two_names(tmp_path: Path) -> None:
    with (
        pytest.raises(UnwritableFileError, match=r"out\.bin could not be written"),
        atomic_path(tmp_path / "out.bin") as temporary,
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "in.bin", None, str(temporary))


READERS: dict[str, Callable[[Path], Any]] = {
    "tensors": read_tensors, "dataset": read_dataset, "checkpoint": Checkpoint.read,
    "result": read_result, "digest": digest,
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EPERM, errno.EMFILE, errno.EIO, errno.ENOMEM, errno.ESTALE],
    ids=errno.errorcode.get,
)  # fmt: skip
def test_reader_tells_a_file_that_cannot_be_read_from_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("file.parquet" if name == "result" else "file.safetensors")
    if name == "result":
        write_spectrum(path)
    else:
        write_tensors({"a": torch.ones(2)}, path, {})

    def refuse(file: Any, *others: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number), str(file))

    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(UnreadableFileError) as caught:
        READERS[name](path)
    monkeypatch.undo()
    text = str(caught.value)
    assert text.startswith(f"{path} could not be read ({os.strerror(number)}); it was not changed")
    assert ADVICE[number] in text
    assert "delete" not in text


@pytest.mark.parametrize("name", READERS)
def test_reader_of_a_dead_link_names_its_target(tmp_path: Path, name: str) -> None:
    path = tmp_path / "link"
    path.symlink_to("/absent/file")
    with pytest.raises(UnreadableFileError, match="symbolic link to /absent/file, which does not"):
        READERS[name](path)


def test_require_writable_tries_each_existing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    require_writable([folder, tmp_path / "absent"])
    assert not [*folder.iterdir()]
    fail_at(monkeypatch, "write", errno.ENOSPC)
    require_writable([tmp_path / "absent"])
    with pytest.raises(UnwritableFileError) as caught:
        require_writable([folder])
    check_unwritable(caught.value, folder, errno.ENOSPC, "no job was started")

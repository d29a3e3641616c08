"""Atomic file writes, sealed tensors in safetensors files, and digests.

A file is written under a temporary name in the same folder, flushed to the disk and renamed. A
killed job or a full disk therefore leaves the old file or none, never a part of the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hesspipe.errors import (
    DamagedFileError,
    HesspipeError,
    UnreadableFileError,
    UnwritableFileError,
    build_command,
)
from hesspipe.seals import BLANK, check_seal, sealed
from hesspipe.temporary_files import temporary_file

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` if the block succeeds.

    The file is removed if the block fails, and recognized as a leftover if the process is killed:
    see `hesspipe.temporary_files`.

    Raises
    ------
    UnwritableFileError
        If the file cannot be written, e.g. on a full disk. Errors about other files pass.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    except OSError as error:
        if not _concerns(error, path, temporary):
            raise
        kept = "the old file was kept" if path.is_file() else "nothing was left behind"
        if temporary is not None and os.path.lexists(temporary):
            kept += f" but {temporary}"
        raise UnwritableFileError(path, error, kept) from None


def _concerns(error: OSError, path: Path, temporary: Path | None) -> bool:
    """Return whether an error is about writing `path` or making its folder."""
    if isinstance(error, HesspipeError) or error.errno is None:  # that of a library, e.g. requests
        return False
    if temporary is None:
        return True
    # An error in the middle of a file has no name, and one of copying a file has both.
    names = [one for one in (error.filename, error.filename2) if isinstance(one, (str, Path))]
    own = {os.path.abspath(path), os.path.abspath(temporary)}
    return not names or not own.isdisjoint(map(os.path.abspath, names))


def require_writable(folders: Iterable[str | Path]) -> None:
    """Raise an error if some existing folder does not take another file, e.g. on a full disk.

    Raises
    ------
    UnwritableFileError
    """
    for folder in map(Path, folders):
        if folder.is_dir():
            try:
                with temporary_file(folder / "free_space") as temporary:
                    temporary.write_bytes(b"taken")
            except OSError as error:
                raise UnwritableFileError(folder, error, "no job was started") from None


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Explain why a file cannot be read, so that it is not taken for a damaged one.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    UnreadableFileError
        If it is a folder or a dead link, or for lack of permission, memory or open files.
    """
    try:
        yield
    except HesspipeError:
        raise
    except OSError as error:
        if error.errno is None:  # of a library that parses it
            raise DamagedFileError(path, error) from None
        if error.errno == errno.ENOENT and not os.path.islink(path):
            message = f"{path} does not exist; build it with: {build_command(path)}"
            raise FileNotFoundError(message) from None
        raise UnreadableFileError(path, error) from None


def write_bytes(content: bytes | memoryview, path: str | Path) -> None:
    """Write bytes atomically.

    Libraries that write files themselves lose the reason on a full disk: let them write into
    memory instead.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(text: str, path: str | Path) -> None:
    """Write a text file atomically."""
    write_bytes(text.encode(), path)


def write_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a mapping as JSON, atomically, in the order of its keys."""
    write_text(json.dumps(content, indent=2) + "\n", path)


def write_sealed(content: bytes, path: str | Path) -> None:
    """Write content that holds a blank seal, atomically, with the seal filled in."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for part in sealed(content):
            file.write(part)


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]
) -> None:
    """Write named tensors and facts about them to a sealed safetensors file, atomically.

    Equal tensors and facts give equal bytes.

    Parameters
    ----------
    tensors : mapping
        Any shapes and dtypes; stored row-major. Tensors that share memory, as tied weights do,
        are stored once per name.
    path : str or Path
        Ends in .safetensors.
    metadata : mapping of str to str
        Stored in the header of the file, as JSON: `about` has the `facts`, after the `digest`.
    """
    from safetensors.torch import save

    contents: dict[str, Tensor] = {}
    seen: set[int] = set()  # safetensors refuses tensors that share memory
    for name, tensor in tensors.items():
        content = tensor.detach().cpu().contiguous()
        start = content.untyped_storage().data_ptr()
        contents[name] = content.clone() if start in seen else content
        seen.add(start)
    # One entry: safetensors writes several in an order that changes from run to run.
    about = json.dumps({"digest": BLANK, "facts": dict(sorted(metadata.items()))})
    # Written by Python, so that a full disk raises an OSError that says so.
    write_sealed(save(contents, metadata={"about": about}), path)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote.

    Returns
    -------
    tensors : dict
        On the CPU.
    metadata : dict of str to str

    Raises
    ------
    DamagedFileError
        If the content does not match its SHA-256, or there is none: the file is damaged, from an
        older version, or not from `write_tensors`.
    FileNotFoundError
        If the file does not exist.
    UnreadableFileError
        If it cannot be read, e.g. for lack of permission.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with reading(path):
            check_seal(path)
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["about"])["facts"]
                names = file.keys()
                # Copies lie at multiples of 64 bytes. In the file, the length of the header would
                # decide where they lie, and with it how sums over them are rounded.
                return {name: file.get_tensor(name).clone() for name in names}, facts
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, error) from None


def digest(path: str | Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with reading(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Atomic file writes, sealed tensors in safetensors files, and digests.

A file is written under a temporary name in the same folder, flushed to the disk and renamed. A
killed job or a full disk therefore leaves the old file or none, never a part of the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hesspipe.errors import DamagedFileError
from hesspipe.seals import BLANK, check_seal, sealed

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` if the block succeeds.

    Raises
    ------
    OSError
        If the file cannot be written, e.g. on a full disk; the message names it. The temporary
        file is removed.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files that only their owner may read; results get the permissions of umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if error.filename and not _concerns(Path(error.filename), path):
            raise  # about another file, which the block reads
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}); nothing was left behind. "
            "Free space or fix the permissions of its folder, then run the same command again",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _concerns(named: Path, path: Path) -> bool:
    """Return whether an error about a file concerns writing `path` or making its folder."""
    return named.parent == path.parent or path.is_relative_to(named)


def write_text(text: str, path: str | Path) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; build it with: snakemake {path}")
    check_seal(path)
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["about"])["facts"]
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, facts
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, error) from None


def digest(path: str | Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

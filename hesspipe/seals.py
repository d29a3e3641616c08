"""Seals: the SHA-256 of a file, in the file's own header or metadata.

A format that is not checked reads a flipped bit as another number. So each dataset, checkpoint,
search and table holds the digest of all of its bytes, taken with zeros in the place of the digest
itself: headers, names, provenance and padding are covered as well as numbers. It is checked before
any library parses the file, because a parser may trust a damaged length. The format stays what it
is, and other programs read the file as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from hesspipe.errors import DamagedFileError

_MARK = b"SHA-256 of this file with zeros here: "
_ZEROS = b"0" * 64
# What a writer puts into the header or the metadata, as text; `sealed` fills it in.
BLANK = (_MARK + _ZEROS).decode()


def sealed(content: bytes) -> Iterator[memoryview]:
    """Fill the blank seal of a file's content.

    Parameters
    ----------
    content : bytes
        With `BLANK` in it, before any other text that is like it.

    Yields
    ------
    memoryview
        The parts of the sealed content, in order, without a copy.

    Raises
    ------
    ValueError
        If the first mark of a seal is not blank.
    """
    start = _start(content)
    whole = memoryview(content)
    if start is None or content[start : start + len(_ZEROS)] != _ZEROS:
        raise ValueError(f"content must hold the blank seal first, {BLANK!r}, and does not")
    yield whole[:start]
    yield memoryview(hashlib.sha256(content).hexdigest().encode())
    yield whole[start + len(_ZEROS) :]


def check_seal(path: str | Path) -> None:
    """Compare the content of a file with its seal.

    Raises
    ------
    DamagedFileError
        If they differ, or there is no seal.
    OSError
        If the file cannot be read.
    """
    fault = seal_fault(path)
    if fault:
        raise DamagedFileError(path, fault)


def seal_fault(path: str | Path) -> str:
    """Say what is wrong with the seal of a file; empty if nothing is."""
    with Path(path).open("rb") as file:
        if not file.seek(0, 2):
            return "it is empty"
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            start = _start(content)
            if start is None:
                return "it has no SHA-256 of its content, as files of older versions have none"
            end = start + len(_ZEROS)
            found = hashlib.sha256()
            with memoryview(content) as whole:
                for part in (whole[:start], memoryview(_ZEROS), whole[end:]):
                    with part:
                        found.update(part)
            agrees = content[start:end] == found.hexdigest().encode()
            return "" if agrees else "its content does not match the SHA-256 in it"


def _start(content: bytes | mmap) -> int | None:
    """Find where the digest begins."""
    mark = content.find(_MARK)
    return None if mark < 0 else mark + len(_MARK)

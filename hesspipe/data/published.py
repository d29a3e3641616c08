"""Comparison of a user's copy of a published dataset with its published checksums."""

from __future__ import annotations

import hashlib


def difference(content: bytes | memoryview, checksum: str) -> str:
    """Say how the content of a file differs from the published one.

    Parameters
    ----------
    content : bytes or memoryview
        Without compression.
    checksum : str
        The published MD5, in hexadecimal. MD5 finds damage, not forgery.

    Returns
    -------
    str
        Both checksums and the setting for files that are meant to differ; empty if they agree.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found == checksum:
        return ""
    return (
        f"the MD5 of its content is {found}, not {checksum}; if it is meant to differ, "
        "set source: own_files"
    )

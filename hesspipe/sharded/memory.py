"""Memory of freed parameters, which glibc would keep.

glibc maps arrays above a threshold, and gives them back once they are freed. The threshold grows
with what is freed, to 32 MB: whole parameters below that lie on the heap then, between others that
live longer, and take some 30 bytes for each parameter of the model in every process.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Of mallopt(3), in malloc.h: a threshold that does not grow, in bytes.
_M_MMAP_THRESHOLD = -3
_THRESHOLD = 2**20


def return_freed_arrays() -> None:
    """Let glibc map all large arrays in this process from now on, unless the user has set it."""
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if adjust is not None:
        adjust(_M_MMAP_THRESHOLD, _THRESHOLD)

"""What glibc does with the memory of large arrays that are freed.

glibc maps arrays above a threshold, and gives them back once they are freed; the next one is new
memory, page by page. The threshold grows with what is freed, to 32 MB. Arrays below it lie on the
heap, where they are used again, but lie between others that live longer.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Of mallopt(3), in malloc.h: free memory at the heap's end from which on it is given back, a
# threshold that does not grow, and the number of arrays that may be mapped.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NAMES = {
    _M_TRIM_THRESHOLD: "MALLOC_TRIM_THRESHOLD_",
    _M_MMAP_THRESHOLD: "MALLOC_MMAP_THRESHOLD_",
    _M_MMAP_MAX: "MALLOC_MMAP_MAX_",
}
_MAPPED_FROM = 2**20
_MOST_FREE = 2**30


def return_freed_arrays() -> None:
    """Let glibc map all large arrays in this process from now on, unless the user has set it.

    Whole parameters below the threshold would take some 30 bytes for each parameter of the model in
    every process.
    """
    _adjust({_M_MMAP_THRESHOLD: _MAPPED_FROM})


def keep_freed_arrays() -> None:
    """Let glibc use the memory of large arrays again from now on, unless the user has set it.

    In passes through convolutions in float64, which write the patches of a batch into an array,
    most of the time is new memory: a product with H takes a third. At its peak the process takes
    some tens of percent more memory, and several times as much where small arrays that live longer
    lie between large ones.
    """
    _adjust({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _MOST_FREE})


def _adjust(settings: dict[int, int]) -> None:
    if sys.platform != "linux" or any(_NAMES[setting] in os.environ for setting in settings):
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if adjust is not None:
        for setting, value in settings.items():
            adjust(setting, value)

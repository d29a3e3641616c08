"""Whether a job may take a GPU; asked before any job starts, so without loading torch."""

from __future__ import annotations

import os
from pathlib import Path

# The control device that NVIDIA's driver makes wherever it is loaded.
_DRIVER = Path("/dev/nvidiactl")


def has_gpu() -> bool:
    """Whether jobs will run on a GPU: $HESSPIPE_DEVICE says so, or one is there."""
    name = os.environ.get("HESSPIPE_DEVICE")
    return name.startswith("cuda") if name else _DRIVER.exists()

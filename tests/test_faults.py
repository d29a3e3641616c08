"""A few faults of every kind; `make test-faults` tries all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FAULTS = Path(__file__).parent / "faults"


def test_faults_leave_equal_bytes_or_one_line() -> None:
    done = subprocess.run(
        [sys.executable, str(FAULTS), "--short", "--processes", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all |" in done.stdout

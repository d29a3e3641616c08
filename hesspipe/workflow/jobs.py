"""What every job of the workflow does around its work."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def logged(path_to_log: str | Path) -> Iterator[None]:
    """Send a job's output, progress bars and traceback to its log file as they come.

    The error itself is raised on, so that the workflow shows it and stops.
    """
    path = Path(path_to_log)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("w", buffering=1, encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            yield
        except Exception:
            traceback.print_exc(file=log)
            raise

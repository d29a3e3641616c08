"""Logging and origin records, the same for every job."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hesspipe.workflow.origins import check_inputs, record_job


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Log a job, check its inputs, and record the origin of its outputs when it succeeds.

    Output, progress bars and traceback are written to the log file immediately. An error is
    raised again, so that Snakemake shows it and stops.

    Parameters
    ----------
    snakemake : Snakemake
        The object that Snakemake defines in a script.
    """
    path = Path(snakemake.log[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("w", buffering=1, encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            check_inputs(map(str, snakemake.input))
            yield
            record_job(snakemake)
        except Exception:
            traceback.print_exc(file=log)
            raise

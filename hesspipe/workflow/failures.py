"""One line for each way a job can fail that is no defect: files, memory, mistakes of the user."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from traceback import extract_tb, walk_tb

from hesspipe.errors import HesspipeError, explain_os_error
from hesspipe.workflow.slurm_reasons import advise_on_refusal

# Their message says what to do; of others see `explain_mistake`.
TELLABLE = (HesspipeError, OSError, MemoryError)
_LOG_OF_BATCH_JOB = r"submitted with SLURM jobid \d+ \(log: (.+\.log)\)"
# How jobs end that could not say why. Slurm's own words are in the logs of its jobs, which
# Snakemake shows (`show-failed-logs`), or are the state that `squeue` tells.
_ENDS = (
    (
        r"[Ee]xceeded (job |step )?memory limit|oom.kill|OUT_OF_MEMORY",
        "A batch job exceeded its memory and was killed. Each further attempt asks for more "
        "(`retries` of the profile). To ask for more at once: --set-resources RULE:mem_mb=16000, "
        "where RULE is the name after `rule` above",
    ),
    (
        r"DUE TO TIME LIMIT|'TIMEOUT'",
        "A batch job reached the end of its time and was killed. Each further attempt asks for "
        "more (`retries` of the profile), and a training or a search goes on from its last state. "
        "To ask for more at once: --set-resources RULE:runtime=1440 (minutes), where RULE is the "
        "name after `rule` above",
    ),
    (
        r"Logfile \S*slurm_logs\S* not found",
        "The log of a batch job is not on this machine. This folder must be on a disk that the "
        "login node and all nodes share; if it is, the disk is slow: raise `latency-wait`",
    ),
)
# What bash and Python call the death of a job by signal 9, which others explain better.
_KILLED = r"Signals\.SIGKILL|(exit status|exit code|returned non-zero.*) 137\b"
_BY_SOMEBODY = (
    "A job was killed by signal 9 and could not say why: by the system, if memory ran out (see "
    "dmesg), by the batch system, at the end of its time, or by a user. Finished files are "
    "kept, and a training or a search goes on from its last state. Run the same command "
    "again, with fewer jobs at once (--cores 1) or more memory"
)


def explain(error: BaseException) -> str:
    """Describe one of the TELLABLE errors in one line, or one for each mistake of a configuration.

    Examples
    --------
    >>> explain(MemoryError())
    'memory ran out'
    """
    if isinstance(error, OSError):
        return explain_os_error(error)
    return str(error) or "memory ran out"


def explain_mistake(error: Exception) -> str | None:
    """Describe in one line an error that the user's code, data or configuration has caused.

    Parameters
    ----------
    error : Exception
        Of a job.

    Returns
    -------
    str or None
        With the line of the user's file that the error went through; None for a defect, which
        needs its traceback.
    """
    from hesspipe.objective.explanations import is_of_hesspipe

    place = place_in_project(error)
    if isinstance(error, TELLABLE):
        return f"{explain(error)}{place}"
    if isinstance(error, ValueError | TypeError | ImportError) and is_of_hesspipe(error):
        return f"{error}{place}"
    if place or _is_of_user_function(error):
        return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
    return None


def place_in_project(error: BaseException) -> str:
    """Name the last line of a file of the project that an error, or its cause, went through.

    Returns
    -------
    str
        " (my_network.py, line 8)" with a space in front, or "".
    """
    for frame in reversed(extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and _is_of_project(path.resolve()):
            return f" ({path.resolve().relative_to(Path.cwd())}, line {frame.lineno})"
    return "" if error.__cause__ is None else place_in_project(error.__cause__)


def _is_of_project(path: Path) -> bool:
    """Whether a file is the user's: not of hesspipe, of an environment, or of Snakemake."""
    if path.is_relative_to(Path(__file__).parents[1]) or not path.is_relative_to(Path.cwd()):
        return False
    parts = path.relative_to(Path.cwd()).parts
    return "site-packages" not in parts and not any(part.startswith(".") for part in parts)


def _is_of_user_function(error: BaseException) -> bool:
    """Whether an error went through a function that the configuration names, also of a package."""
    from hesspipe.imports import call_function

    return any(frame.f_code is call_function.__code__ for frame, _ in walk_tb(error.__traceback__))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End a command with one line on stderr for an error that `explain` can describe."""
    try:
        yield
    except TELLABLE as error:
        raise SystemExit(explain(error)) from None


def explain_kills(paths_to_logs: Iterable[str]) -> str | None:
    """Say why jobs ended without a message, a line for each reason, if any were killed or refused.

    Parameters
    ----------
    paths_to_logs : iterable of str
        Snakemake's own, of one run. Those that they name of batch jobs are read as well: Snakemake
        does not show them if a job was killed before it had a log of its own.
    """
    texts = [Path(path).read_text(encoding="utf-8", errors="replace") for path in paths_to_logs]
    named = [path for text in texts for path in re.findall(_LOG_OF_BATCH_JOB, text)]
    for path in named:
        with contextlib.suppress(OSError):  # those of jobs that succeeded are removed
            texts.append(Path(path).read_text(encoding="utf-8", errors="replace"))
    text = "\n".join(texts)
    found = [advice for sign, advice in _ENDS if re.search(sign, text)]
    if refusal := advise_on_refusal(text):
        found.append(refusal)
    if not found and re.search(_KILLED, text):
        found.append(_BY_SOMEBODY)
    return "\n".join(found) or None

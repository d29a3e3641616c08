"""Every kind of error that hesspipe raises, and what to do about each.

All derive from `HesspipeError`, and each also from the built-in exception that describes it best,
so that both ``except HesspipeError`` and ``except MemoryError`` work. A message says what was
expected and what was found, and ends in advice. An argument that is merely out of range raises
Python's own `ValueError` or `TypeError`.

Input
    `ConfigError`, `DamagedFileError`, `DigitsFileError`, `CIFAR10FileError`,
    `ForeignStateError`
Disks and permissions
    `UnwritableFileError`, `UnreadableFileError`
Model and loss
    `NotTwiceDifferentiableError`, `NotASumOverSamplesError`
Resources
    `TooLargeError`, `InUseError`
Numerics
    `NotConvergedError`, `InconsistentMatrixError`, `DivergedError`, `NoSolutionError`
Several processes
    `RankError`, `LostRankError`
"""

from __future__ import annotations

import difflib
import errno
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class HesspipeError(Exception):
    """Base class of all errors of hesspipe."""


class ConfigError(HesspipeError, ValueError):
    """The configuration has one or more errors, listed one per line.

    Correct the named entries of the configuration file; every error is listed at once.
    """


class DamagedFileError(HesspipeError, ValueError):
    """A result cannot be read, or is not of the expected kind.

    Delete the file and rebuild it: the message has the command.

    Parameters
    ----------
    path : str or Path
    reason : object
        What is wrong with it, e.g. the exception of the reader.
    advice : str, optional
        What to do, by default the command that builds it.

    Attributes
    ----------
    reason : object
    """

    def __init__(self, path: str | Path, reason: object, advice: str | None = None) -> None:
        self.reason = reason
        advice = advice or f"delete it and rebuild it with: {build_command(path)}"
        super().__init__(f"{path} is damaged or incomplete ({reason}); {advice}")


class DigitsFileError(HesspipeError, ValueError):
    """A file of handwritten digits does not have MNIST's layout, or its published content.

    Replace it by MNIST's own file, or delete it and let the pipeline download it.

    Parameters
    ----------
    path : str or Path
    reason : object
        What is wrong with it.
    """

    def __init__(self, path: str | Path, reason: object) -> None:
        super().__init__(
            f"{path} is not MNIST's ({reason}); replace it by MNIST's own file, or delete it and "
            "set source: download"
        )


class CIFAR10FileError(HesspipeError, ValueError):
    """A file does not have CIFAR-10's binary layout, or its published content.

    Replace it by CIFAR-10's own file, or delete it and let the pipeline download it.

    Parameters
    ----------
    path : str or Path
    reason : object
        What is wrong with it.
    """

    def __init__(self, path: str | Path, reason: object) -> None:
        super().__init__(
            f"{path} is not CIFAR-10's ({reason}); replace it by CIFAR-10's own "
            "file, or delete it and set source: download"
        )


class UnwritableFileError(HesspipeError, OSError):
    """A file could not be written, e.g. on a full disk; an older file at its path is kept.

    The message says what to do; then run the same command again. `errno` is that of the cause.

    Parameters
    ----------
    path : str or Path
    cause : OSError
    kept : str
        What is left where the file would be.
    """

    def __init__(self, path: str | Path, cause: OSError, kept: str) -> None:
        reason, advice = _explained(path, cause)
        super().__init__(
            cause.errno,
            f"{path} could not be written ({reason}); {kept}. {advice}, then run the same command "
            "again",
        )

    def __str__(self) -> str:
        return str(self.args[1])


class UnreadableFileError(HesspipeError, OSError):
    """A file could not be opened or read, e.g. for lack of permission; it may be intact.

    The message says what to do; then run the same command again. `errno` is that of the cause.

    Parameters
    ----------
    path : str or Path
    cause : OSError
    """

    def __init__(self, path: str | Path, cause: OSError) -> None:
        reason, advice = _explained(path, cause)
        super().__init__(
            cause.errno,
            f"{path} could not be read ({reason}); it was not changed. {advice}, then run the same "
            "command again",
        )

    def __str__(self) -> str:
        return str(self.args[1])


class NotTwiceDifferentiableError(HesspipeError, ValueError):
    """The model or the loss uses an operation without a correct second derivative.

    The message names the operation; replace it by other operations of torch.
    """


class NotASumOverSamplesError(HesspipeError, ValueError):
    """The loss couples samples, so that no Gauss-Newton matrix of the usual form exists.

    Use a loss that is a sum or a mean of one term per sample, or compute the Hessian only.
    """


class ChangedDataError(HesspipeError, ValueError):
    """Streamed data are not what they were at the first pass.

    The message names the batch. Read the data in a fixed order, without random augmentation.
    """


class TooLargeError(HesspipeError, MemoryError):
    """A result would need more memory than is available; raised before anything is allocated.

    The message has both sizes and names a method, dtype or argument that needs less.
    """


class InUseError(HesspipeError, RuntimeError):
    """Another process works on the same unfinished training or search.

    Wait until it has ended, or end it, then run the same command again.

    Parameters
    ----------
    state : str or Path
        The unfinished work.
    holder : str
        The process: its number, host and command.
    """

    def __init__(self, state: str | Path, holder: str) -> None:
        super().__init__(
            f"{state} is in use by {holder}; wait until it has ended, or end it, then run the "
            "same command again"
        )


class ForeignStateError(HesspipeError, ValueError):
    """The state of an unfinished search belongs to another search.

    Pass another path, or delete the file to start again.
    """


class NotConvergedError(HesspipeError, ArithmeticError):
    """The eigenpairs did not all converge.

    Raise `max_products` or `basis_size`, ask for fewer pairs or a larger tolerance, or estimate
    the density instead where eigenvalues crowd. What did converge is not lost.

    Parameters
    ----------
    message : str
    converged : Eigenpairs

    Attributes
    ----------
    converged : Eigenpairs
        The pairs that did converge.
    """

    def __init__(self, message: str, converged: Any) -> None:
        super().__init__(message)
        self.converged = converged


class InconsistentMatrixError(HesspipeError, ArithmeticError):
    """A result failed a consistency check, e.g. a matrix disagrees with its products.

    Either an operation of the model has a wrong derivative, or this is a defect of hesspipe:
    please report it with the network.
    """


class DivergedError(HesspipeError, ArithmeticError):
    """In training, the loss or a parameter is no longer finite.

    Decrease the step size; the message says at which step it happened.
    """


class NoSolutionError(HesspipeError, RuntimeError):
    """The fixed-point equation of a limiting law was not solved to its tolerance.

    Raise the number of iterations or of scanned points that the message names.
    """


class RankError(HesspipeError, RuntimeError):
    """A process of a `torch.distributed` group has failed; raised in all of them.

    The message names the rank, the error and its message; or what differs between processes.
    Remove the cause in that process. The error is also of the class of the original one, so that
    ``except ValueError`` works in every process.

    Parameters
    ----------
    message : str
    """

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)

    def __str__(self) -> str:
        return str(self.args[0])


class LostRankError(HesspipeError, ConnectionError):
    """A process of a `torch.distributed` group has ended, or does not answer.

    Look at what it has printed: it may have been killed for memory, time or by a signal. The group
    cannot be used any more; start all processes again.

    Parameters
    ----------
    lost : sequence of str
        The processes that are known to have ended.
    what : str
        What the others were waiting for.
    cause : Exception
        That of torch.
    """

    def __init__(self, lost: Sequence[str], what: str, cause: Exception) -> None:
        reason = " ".join(str(cause).split())[:300]
        who = " and ".join(lost) if lost else "another rank"
        how = "ended without a word" if lost else f"ended or does not answer ({reason})"
        super().__init__(
            f"{who} {how}, while this one waited for it ({what}); see what it printed, or whether "
            "the system killed it for memory or time, then start all processes again"
        )


def nearest_names(name: str, known: Sequence[str]) -> str:
    """List the known names that are most like another, for a message.

    Examples
    --------
    >>> nearest_names("0.weigh", ["0.weight", "0.bias", "2.weight"])
    '0.weight, 2.weight, 0.bias'
    """
    return ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3])


def workflow_command() -> str:
    """Give the command that runs the workflow here: there is no Snakefile where it is installed.

    Examples
    --------
    >>> workflow_command()
    'snakemake --cores all'
    """
    is_installed = Path("config.yaml").is_file() and not Path("Snakefile").is_file()
    return "hesspipe run" if is_installed else "snakemake --cores all"


def build_command(path: str | Path) -> str:
    """Give the command that builds a result if it does not exist.

    Examples
    --------
    >>> build_command("results/datasets/mnist.safetensors")
    'snakemake --cores all results/datasets/mnist.safetensors'
    """
    # Snakemake knows results by their paths in the project.
    absolute = Path(os.path.abspath(path))
    inside = absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path
    return f"{workflow_command()} {shlex.quote(str(inside))}"


def explain_os_error(error: OSError) -> str:
    """Describe an error of the system in one line: the path if known, the reason, what to do.

    Examples
    --------
    >>> print(explain_os_error(OSError(28, "No space left on device", "a.bin")))
    a.bin: No space left on device. Free space or files on its disk (see df -h and df -i)
    """
    if isinstance(error, HesspipeError) or error.errno is None:
        return " ".join(str(error).split()) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_path(name)]
    reason, advice = _explained(names[0] if names else None, error)
    return f"{' to '.join(names)}{': ' if names else ''}{reason}. {advice}"


def _is_path(name: object) -> bool:
    return isinstance(name, (str, bytes, os.PathLike))


_ADVICE = {
    errno.ENOSPC: "Free space or files on its disk (see df -h and df -i)",
    errno.EDQUOT: "Free space or files within your quota (see quota -s)",
    errno.EFBIG: "Raise the limit on the size of files (see ulimit -f)",
    errno.ENOENT: "Check the path",
    errno.EROFS: "Run in a folder on another disk, or remount this one so that it can be written",
    errno.EACCES: "Change the permissions of the file or its folder (see ls -ld)",
    errno.EPERM: "Change the permissions of the file or its folder (see ls -ld and lsattr)",
    errno.ENAMETOOLONG: "Choose a shorter name, or a folder with a shorter path",
    errno.EMFILE: "Raise the limit on open files (see ulimit -n)",
    errno.ENFILE: "Close other programs: the system has too many open files",
    errno.ENOMEM: "Free memory, or run fewer jobs at once (--cores 1)",
    errno.EIO: "Check its disk, which reports a fault (see dmesg)",
    errno.ESTALE: "Mount its network disk again",
}

# A file where a folder should be, or the reverse; only making a folder ends in EEXIST.
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP)


def _explained(path: object, error: OSError) -> tuple[str, str]:
    """The reason of an error and what to do, with whatever stands in the way of a path."""
    if path is not None and error.errno in _IN_THE_WAY:
        obstacle = _obstacle(Path(str(path)), error.errno == errno.EEXIST)
        if obstacle is not None:
            return obstacle, "Move it away"
    reason = error.strerror or str(error)
    return reason, _ADVICE.get(error.errno or 0, "Remove the cause")


def _obstacle(path: Path, is_folder: bool) -> str | None:
    """Describe a file where a folder should be, a folder where a file should be, or a dead link."""
    for part in (*reversed(path.parents), path):
        what = "it" if part == path else str(part)
        if os.path.islink(part) and not os.path.exists(part):
            return f"{what} is a symbolic link to {os.readlink(part)}, which does not exist"
        if (part != path or is_folder) and os.path.lexists(part) and not os.path.isdir(part):
            return f"{what} is a file, and must be a folder"
    return "it is a folder, and must be a file" if os.path.isdir(path) else None

"""Every kind of error that hesspipe raises, and what to do about each.

All derive from `HesspipeError`, and each also from the built-in exception that describes it best,
so that both ``except HesspipeError`` and ``except MemoryError`` work. A message says what was
expected and what was found, and ends in advice. An argument that is merely out of range raises
Python's own `ValueError` or `TypeError`.

Input
    `ConfigError`, `DamagedFileError`, `DigitsFileError`, `CIFAR10FileError`
Model and loss
    `NotTwiceDifferentiableError`, `NotASumOverSamplesError`
Resources
    `TooLargeError`
Numerics
    `NotConvergedError`, `InconsistentMatrixError`, `DivergedError`, `NoSolutionError`
"""

from __future__ import annotations

import difflib
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

    Delete the file and run the same command again to rebuild it.

    Parameters
    ----------
    path : str or Path
    reason : object
        What is wrong with it, e.g. the exception of the reader.
    """

    def __init__(self, path: str | Path, reason: object) -> None:
        super().__init__(
            f"{path} is damaged or incomplete ({reason}); delete it and run the same command "
            "again to rebuild it"
        )


class DigitsFileError(HesspipeError, ValueError):
    """A file of handwritten digits does not have MNIST's layout.

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
    """A file does not have CIFAR-10's binary layout.

    Replace it by CIFAR-10's own file, or delete it and let the pipeline download it.

    Parameters
    ----------
    path : str or Path
    reason : object
        What is wrong with it.
    """

    def __init__(self, path: str | Path, reason: object) -> None:
        super().__init__(
            f"{path} is not CIFAR-10's binary layout ({reason}); replace it by CIFAR-10's own "
            "file, or delete it and set source: download"
        )


class NotTwiceDifferentiableError(HesspipeError, ValueError):
    """The model or the loss uses an operation without a correct second derivative.

    The message names the operation; replace it by other operations of torch.
    """


class NotASumOverSamplesError(HesspipeError, ValueError):
    """The loss couples samples, so that no Gauss-Newton matrix of the usual form exists.

    Use a loss that is a sum or a mean of one term per sample, or compute the Hessian only.
    """


class TooLargeError(HesspipeError, MemoryError):
    """A result would need more memory than is available; raised before anything is allocated.

    The message has both sizes and names a method, dtype or argument that needs less.
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


def nearest_names(name: str, known: Sequence[str]) -> str:
    """List the known names that are most like another, for a message.

    Examples
    --------
    >>> nearest_names("0.weigh", ["0.weight", "0.bias", "2.weight"])
    '0.weight, 2.weight, 0.bias'
    """
    return ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3])

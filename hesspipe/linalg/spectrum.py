"""Spectra of dense symmetric matrices, and the number of negative, zero and positive eigenvalues.

torch.linalg.eigvalsh, checked: the matrix must be symmetric, and the eigenvalues must have its
trace and Frobenius norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hesspipe.errors import InconsistentMatrixError
from hesspipe.hardware import require
from hesspipe.seeding import probe
from hesspipe.tolerances import rounding

# Multiple of eps * P * max|eigenvalue|, the backward error of a dense symmetric eigensolver
# (LAPACK Users' Guide, section 4.7), below which an eigenvalue counts as zero.
ZERO_TOLERANCE = 1.0


@dataclass(frozen=True)
class Spectrum:
    """All eigenvalues of a symmetric matrix.

    Attributes
    ----------
    eigenvalues : Tensor, shape (P,)
        float64, ascending, on the CPU.
    num_negative, num_zero, num_positive : int
        The inertia: eigenvalues below -tolerance, within it, above it. They add up to P.
    tolerance : float
        zero_tolerance times the larger of eps * P * max|eigenvalue|, the solver's backward
        error, and the rounding of the matrix itself, which is larger for a very confident network.
    matrix : str
        Name of the matrix, e.g. "hessian".
    method : str
        How the matrix was computed.
    """

    eigenvalues: Tensor
    num_negative: int
    num_zero: int
    num_positive: int
    tolerance: float
    matrix: str
    method: str


def matrix_spectrum(
    values: Tensor,
    *,
    matrix: str,
    method: str,
    rounding: float = 0.0,
    zero_tolerance: float = ZERO_TOLERANCE,
) -> Spectrum:
    """Compute the spectrum of a symmetric matrix, of which the lower triangle is read.

    Rows that are exactly zero (parameters that the outputs do not depend on) are removed
    first: their eigenvalues are exact zeros, and the rest of the matrix is smaller.

    Parameters
    ----------
    values : Tensor, shape (P, P)
        float64, symmetric up to rounding.
    matrix, method : str
        Names for the result.
    rounding : float
        Error that rounding in the entries causes in an eigenvalue.
    zero_tolerance : float
        Multiple of the errors, the solver's and the matrix's, up to which an eigenvalue
        counts as zero; see `Spectrum.tolerance`.

    Returns
    -------
    Spectrum

    Raises
    ------
    ValueError
        If the matrix is not symmetric up to rounding.
    InconsistentMatrixError
        If the eigenvalues do not add up to the trace, or their squares to the squared norm.
    """
    if values.dtype != torch.float64:
        raise ValueError(
            f"values must be float64 for counts of signs, got {values.dtype}; in float32 "
            "eigenvalues near zero are noise"
        )
    _check_symmetric(values, matrix)
    size = len(values)
    is_nonzero = (values != 0).any(1)
    if not is_nonzero.all():
        values = values[is_nonzero][:, is_nonzero]
    require(solver_bytes(len(values)), f"the eigensolver for P = {size:,}", "free some memory")
    nonzero = torch.linalg.eigvalsh(values)
    _check_sums(nonzero, values, matrix)
    eigenvalues = torch.zeros(size, dtype=torch.float64)
    eigenvalues[: len(nonzero)] = nonzero.cpu()
    eigenvalues = eigenvalues.sort().values
    return with_inertia(eigenvalues, matrix, method, rounding, zero_tolerance)


def with_inertia(
    eigenvalues: Tensor, matrix: str, method: str, rounding: float, zero_tolerance: float
) -> Spectrum:
    """Count the signs of ascending eigenvalues (P,); see `matrix_spectrum` for the arguments."""
    size, largest = len(eigenvalues), float(eigenvalues.abs().max())
    tolerance = zero_tolerance * max(torch.finfo(torch.float64).eps * size * largest, rounding)
    num_negative = int((eigenvalues < -tolerance).sum())
    num_positive = int((eigenvalues > tolerance).sum())
    return Spectrum(
        eigenvalues=eigenvalues,
        num_negative=num_negative,
        num_zero=size - num_negative - num_positive,
        num_positive=num_positive,
        tolerance=tolerance,
        matrix=matrix,
        method=method,
    )


def solver_bytes(size: int) -> int:
    """Forecast the memory of torch.linalg.eigvalsh: a copy of the matrix; the rest are vectors."""
    return size**2 * 8


def _check_symmetric(values: Tensor, matrix: str) -> None:
    # A random bilinear form sees an asymmetry anywhere, without a second matrix.
    left, right = probe(values.new_empty(2, len(values)))
    difference = (left @ (values @ right) - right @ (values @ left)).abs()
    tolerance = rounding(values.norm(), values.dtype) * left.norm() * right.norm()
    if difference > tolerance:
        raise ValueError(
            f"{matrix} must be symmetric, got a bilinear form that differs by {difference:.1e} "
            f"when its vectors are exchanged (allowed {tolerance:.1e})"
        )


def _check_sums(eigenvalues: Tensor, values: Tensor, matrix: str) -> None:
    """Trace and Frobenius norm, to the solver's backward error."""
    size = max(1, len(values))
    norm = values.norm()
    slack = 10 * torch.finfo(torch.float64).eps * size * norm
    for what, found, expected, allowed in (
        ("trace", eigenvalues.sum(), values.trace(), slack * size**0.5),
        ("Frobenius norm", eigenvalues.norm(), norm, slack),
    ):
        if not (found - expected).abs() <= allowed:
            raise InconsistentMatrixError(
                f"the eigenvalues of the {matrix} give a {what} of {found:.17g}, the matrix "
                f"{expected:.17g}; the eigensolver failed"
            )

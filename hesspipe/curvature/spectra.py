"""Exact spectra, and how many eigenvalues are negative, zero and positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hesspipe.curvature.dense import MatrixName, exact_matrix, rounding_size
from hesspipe.curvature.factored import factored_eigenvalues, find_factors, is_cheaper
from hesspipe.curvature.factors import Factors
from hesspipe.errors import InconsistentMatrixError
from hesspipe.hardware import require
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective

SpectrumMethod = Literal["auto", "factored", "layers", "convolutions", "columns"]

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
        error, and the matrix's own rounding, which is larger for a very confident network.
    matrix : str
        "hessian", "ggn", "residual", or a name of the caller's.
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


@differentiating()
def spectrum(
    objective: Objective,
    matrix: MatrixName = "hessian",
    method: SpectrumMethod = "auto",
    *,
    zero_tolerance: float = ZERO_TOLERANCE,
    progress: bool = False,
) -> Spectrum:
    """Compute the exact spectrum of H, G or R at the objective's parameters.

    Either the matrix is formed from its own formula and given to a dense symmetric eigensolver,
    or its factors are, whose number does not depend on P. What was solved is compared with
    products by differentiation, and the eigenvalues with its trace and Frobenius norm.

    Parameters
    ----------
    objective : Objective
        In float64: the signs of small eigenvalues are noise in float32.
    matrix : {"hessian", "ggn", "residual"}
    method : {"auto", "factored", "layers", "convolutions", "columns"}
        "factored" computes the spectrum without the matrix, from the Gram matrix of its
        factors (see `hesspipe.curvature.factors`); the others form it first (see
        `hesspipe.curvature.dense`). "auto" takes "factored" where it is cheaper.
    zero_tolerance : float
        Multiple of the errors, the solver's and the matrix's, up to which an eigenvalue
        counts as zero; see `Spectrum.tolerance`.
    progress : bool

    Returns
    -------
    Spectrum

    Raises
    ------
    TooLargeError
        Before allocating, if the matrix and the eigensolver do not fit into memory.
    ValueError
        If "factored" or "layers" is asked for and the network does not allow it, if the
        objective is not float64, or an entry of the matrix is not finite.

    Examples
    --------
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> result = spectrum(objective)
    >>> result.num_negative, result.num_zero, result.num_positive
    (0, 0, 2)
    """
    if objective.dtype != torch.float64:
        raise ValueError(
            f"a spectrum needs dtype float64 for its counts of signs, got {objective.dtype}; "
            "build the Objective with dtype=torch.float64"
        )
    factors = _factors(objective, matrix, method)
    if factors is not None:
        # Nothing is frozen where there are factors, so weight decay moves every eigenvalue alike.
        eigenvalues = factored_eigenvalues(objective.without_weight_decay(), factors, matrix)
        eigenvalues += objective.weight_decay if matrix != "residual" else 0.0
        rounding = rounding_size(objective, matrix)
        return _with_inertia(eigenvalues, matrix, "factored", rounding, zero_tolerance)
    exact = exact_matrix(
        objective,
        matrix,
        "auto" if method == "factored" else method,
        extra_bytes=_solver_bytes(objective.num_parameters),
        progress=progress,
    )
    return matrix_spectrum(
        exact.values,
        matrix=matrix,
        method=exact.method,
        rounding=exact.rounding,
        zero_tolerance=zero_tolerance,
    )


def _factors(objective: Objective, matrix: MatrixName, method: SpectrumMethod) -> Factors | None:
    """The factors, if asked for, or if they promise to be cheaper than the matrix."""
    if method not in ("auto", "factored") or not objective.has_output_rows:
        return None
    size = objective.num_parameters
    num_outputs = len(objective.outputs(objective.theta, objective.batches[0].inputs[:1])[0])
    if method == "auto" and matrix != "residual" and objective.num_data * (num_outputs - 1) > size:
        return None  # A alone has more columns than the matrix
    factors = find_factors(objective, matrix)
    if method == "factored" and factors is None:
        raise ValueError(
            "method 'factored' needs a network of Linear layers, piecewise linear for the hessian "
            "and the residual; use method='auto' for this network"
        )
    return factors if factors is None or method == "factored" or is_cheaper(factors) else None


def matrix_spectrum(
    values: Tensor,
    *,
    matrix: str,
    method: str,
    rounding: float = 0.0,
    zero_tolerance: float = ZERO_TOLERANCE,
) -> Spectrum:
    """Compute the spectrum of a symmetric matrix, of which the lower triangle is read.

    Rows that are exactly zero (parameters that the outputs do not depend on) are taken out
    first: their eigenvalues are zeros without rounding, and the rest is smaller.

    Parameters
    ----------
    values : Tensor, shape (P, P)
        float64, symmetric up to rounding.
    matrix, method : str
        Names for the result.
    rounding : float
        Size of the matrix's own errors, as an eigenvalue; see
        `hesspipe.curvature.dense.ExactMatrix`.
    zero_tolerance : float

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
    require(_solver_bytes(len(values)), f"the eigensolver for P = {size:,}", "free some memory")
    nonzero = torch.linalg.eigvalsh(values)
    _check_sums(nonzero, values, matrix)
    eigenvalues = torch.zeros(size, dtype=torch.float64)
    eigenvalues[: len(nonzero)] = nonzero.cpu()
    eigenvalues = eigenvalues.sort().values
    return _with_inertia(eigenvalues, matrix, method, rounding, zero_tolerance)


def _with_inertia(
    eigenvalues: Tensor, matrix: str, method: str, rounding: float, zero_tolerance: float
) -> Spectrum:
    """Count the signs of the eigenvalues."""
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


def _solver_bytes(size: int) -> int:
    """torch.linalg.eigvalsh works on a copy; its other arrays are a few vectors."""
    return size**2 * 8


def _check_symmetric(values: Tensor, matrix: str) -> None:
    # A random bilinear form sees an asymmetry anywhere, without a second matrix.
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, len(values), generator=generator, dtype=torch.float64).to(values)
    difference = (left @ (values @ right) - right @ (values @ left)).abs()
    tolerance = 1e3 * torch.finfo(torch.float64).eps * values.norm() * left.norm() * right.norm()
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

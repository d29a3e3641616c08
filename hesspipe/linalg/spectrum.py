"""Spectra of dense symmetric matrices, and the number of negative, zero and positive eigenvalues.

torch.linalg.eigvalsh, checked: the matrix must be symmetric, the eigenvalues must have its trace
and Frobenius norm, and the counts of signs are compared with those of another factorization.
Every eigenvalue comes with a bound of its error, which also decides what counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from hesspipe.errors import InconsistentMatrixError
from hesspipe.hardware import require
from hesspipe.imports import require_packages
from hesspipe.linalg.inertia import count_signs
from hesspipe.summaries import ends, summary
from hesspipe.tolerances import rounding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SpectrumPlot = Literal["ordered", "histogram"]

# Multiple of the error bound up to which an eigenvalue counts as zero: within 1, its sign is
# not known.
ZERO_TOLERANCE = 1.0
# The backward error of a dense symmetric eigensolver is at most about eps * P * max|eigenvalue|
# (LAPACK Users' Guide, section 4.7), but does not vanish with P: compared with 50 digits it was up
# to 1.1, 4.2, 4.3, 6.0, 6.1 and 8.9 eps * max|eigenvalue| for P = 2, 3, 4, 5, 7 and 25.
_SMALLEST_FACTOR = 10
# Rows or columns of what is compared at once: some megabytes, which stay in the cache.
_BLOCK_ROWS = 128
# cuSOLVER counts the entries of its work space in 32 bits, and fails with more than 23,170 rows.
MOST_ROWS_ON_A_GPU = 23_000
# P up to which the counts are confirmed unless asked not to: half a second on one core.
_CERTIFIED_SIZE = 3000


@dataclass(frozen=True)
class Spectrum:
    """All eigenvalues of a symmetric matrix.

    Attributes
    ----------
    eigenvalues : Tensor, shape (P,)
        float64, ascending, on the CPU.
    num_negative, num_zero, num_positive : int
        The inertia: eigenvalues below -tolerance, within it, above it. They add up to P.
    error_bound : float
        Bound of the error of every eigenvalue: what rounding adds to the matrix, and the
        eigensolver's backward error.
    tolerance : float
        zero_tolerance * error_bound.
    matrix : str
        Name of the matrix, e.g. "hessian".
    method : str
        How the matrix was computed.
    certificate : str
        How the counts of signs were confirmed without the eigenvalues, e.g. "LDL^T", or why they
        were not.
    provenance : mapping
        What decided the numbers, as far as it is known, for `hesspipe.save`: the settings, the
        dtype, and of an objective the number of samples.
    """

    eigenvalues: Tensor
    num_negative: int
    num_zero: int
    num_positive: int
    error_bound: float
    tolerance: float
    matrix: str
    method: str
    certificate: str
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return summary(
            "Spectrum",
            matrix=str(self.matrix),
            num_parameters=len(self.eigenvalues),
            eigenvalues=ends(self.eigenvalues),
            num_negative=self.num_negative,
            num_zero=self.num_zero,
            num_positive=self.num_positive,
            error_bound=self.error_bound,
            tolerance=self.tolerance,
            method=self.method,
            certificate=self.certificate,
        )

    def plot(self, ax: Axes | None = None, *, kind: SpectrumPlot = "ordered") -> Axes:
        """Draw all eigenvalues, on axes that are linear where they count as zero.

        Beyond the tolerance the axis of eigenvalues is logarithmic, on both sides. The tolerance
        is drawn as a gray band.

        Parameters
        ----------
        ax : Axes of matplotlib, optional
            By default those of a new figure.
        kind : {"ordered", "histogram"}
            Each eigenvalue at its rank, in one color for each sign; or their numbers in bins,
            those that count as zero in one.

        Returns
        -------
        Axes
        """
        if kind not in get_args(SpectrumPlot):
            raise ValueError(f"kind must be 'ordered' or 'histogram', got {kind!r}")
        require_packages("matplotlib", purpose="plot")
        from hesspipe.plots.spectra import plot_histogram, plot_in_order

        values = self.eigenvalues.numpy()
        if kind == "histogram":
            return plot_histogram(ax, values, self.num_zero, self.tolerance, self.matrix)
        signs = self.num_negative, self.num_zero, self.num_positive
        return plot_in_order(ax, values, signs, self.tolerance, self.error_bound, self.matrix)


def matrix_spectrum(
    values: Tensor,
    *,
    matrix: str,
    method: str,
    matrix_error: float = 0.0,
    zero_tolerance: float = ZERO_TOLERANCE,
    certify: bool | None = None,
    others: Tensor | None = None,
    is_gram: bool = False,
) -> Spectrum:
    """Compute the spectrum of a symmetric matrix, of which the lower triangle is read.

    Rows that are exactly zero (parameters that the outputs do not depend on) are removed
    first: their eigenvalues are exact zeros, and the rest of the matrix is smaller. A matrix on a
    GPU with more rows than its eigensolvers take is solved on the CPU.

    Parameters
    ----------
    values : Tensor, shape (P, P)
        float64, symmetric up to rounding.
    matrix, method : str
        Names for the result.
    matrix_error : float
        Bound of the spectral norm of the error in `values`; no eigenvalue moves by more.
    zero_tolerance : float
        Multiple of the error bound up to which an eigenvalue counts as zero.
    certify : bool, optional
        Whether to count the signs a second time, by factorizations L D L^T at both tolerances.
        They take four tenths of the eigensolver's time, so by default they are made up to
        P = 3,000.
    others : Tensor, optional
        Eigenvalues that are known exactly, of a larger matrix of which `values` is a block.
    is_gram : bool
        Whether `values` was computed as A^T A, up to a positive multiple of the identity. Then no
        eigenvalue is negative, which needs no factorization.

    Returns
    -------
    Spectrum

    Raises
    ------
    ValueError
        If the matrix is not symmetric up to rounding, or has an entry that is not finite.
    InconsistentMatrixError
        If the eigenvalues do not add up to the trace, or their squares to the squared norm, or
        L D L^T counts other signs.
    """
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"values must be a square matrix, got shape {tuple(values.shape)}")
    if values.dtype != torch.float64:
        raise ValueError(
            f"values must be float64 for counts of signs, got {values.dtype}; in float32 "
            "eigenvalues near zero are noise"
        )
    sizes = _row_sizes(values, matrix)
    # By which others are divided, so that no square underflows.
    scale = float(sizes.max()) if sizes.any() else 1.0
    norm = _norm(values, scale)
    _check_symmetric(values, matrix, matrix_error, scale, norm)
    is_nonzero = sizes != 0
    # Rounding may leave a row of zeros with a column that is not.
    is_nonzero[~is_nonzero] = values[:, ~is_nonzero].any(0)
    known = values.new_zeros(int((~is_nonzero).sum()))
    known = known if others is None else torch.cat([known, others])
    if not is_nonzero.all():
        values = _principal_part(values, is_nonzero.nonzero().flatten())
    values = _where_solved(values, matrix)
    solved = torch.linalg.eigvalsh(values)
    _check_sums(solved, values.trace(), matrix, scale, norm)
    eigenvalues = torch.cat([solved, known.to(solved)]).sort().values.cpu()
    found = with_inertia(eigenvalues, matrix, method, matrix_error, zero_tolerance)
    if not (len(values) <= _CERTIFIED_SIZE if certify is None else certify):
        return found
    return replace(found, certificate=_confirm_counts(found, solved.cpu(), values, is_gram))


def with_inertia(
    eigenvalues: Tensor, matrix: str, method: str, matrix_error: float, zero_tolerance: float
) -> Spectrum:
    """Count the signs of ascending eigenvalues (P,); see `matrix_spectrum` for the arguments."""
    if not (zero_tolerance >= 0 and zero_tolerance < float("inf")):
        raise ValueError(
            f"zero_tolerance must be a finite number of at least 0, got {zero_tolerance}"
        )
    if not (matrix_error >= 0 and matrix_error < float("inf")):
        raise ValueError(f"matrix_error must be finite and at least 0, got {matrix_error}")
    if not eigenvalues.isfinite().all():
        raise InconsistentMatrixError(
            f"the eigensolver returned {int((~eigenvalues.isfinite()).sum())} eigenvalues of the "
            f"{matrix} that are not finite"
        )
    error_bound = matrix_error + solver_error(eigenvalues)
    tolerance = zero_tolerance * error_bound
    num_negative = int((eigenvalues < -tolerance).sum())
    num_positive = int((eigenvalues > tolerance).sum())
    return Spectrum(
        eigenvalues=eigenvalues,
        num_negative=num_negative,
        num_zero=len(eigenvalues) - num_negative - num_positive,
        num_positive=num_positive,
        error_bound=error_bound,
        tolerance=tolerance,
        matrix=matrix,
        method=method,
        certificate="none: not asked for by certify=True",
        provenance={"dtype": "float64", "zero_tolerance": zero_tolerance},
    )


def solver_error(eigenvalues: Tensor) -> float:
    """Bound the error of a dense symmetric eigensolver in any of all P eigenvalues.

    Parameters
    ----------
    eigenvalues : Tensor, shape (P,)

    Returns
    -------
    float
        eps * max(P, 10) * max|eigenvalue|.
    """
    if len(eigenvalues) == 0:
        return 0.0
    size = max(len(eigenvalues), _SMALLEST_FACTOR)
    return torch.finfo(torch.float64).eps * size * float(eigenvalues.abs().max())


def _where_solved(values: Tensor, matrix: str) -> Tensor:
    """Put a matrix where its eigenvalues are computed, with room for the eigensolver."""
    if not is_solved_in_place(values.device, len(values)):
        require(values.nbytes, f"a copy of the {matrix} on the CPU", "free some memory")
        values = values.cpu()
    require(
        solver_bytes(len(values)),
        f"the eigensolver for P = {len(values):,}",
        "free some memory",
        device=values.device,
    )
    return values


def is_solved_in_place(device: torch.device, size: int) -> bool:
    """Return whether a matrix on this device is not copied to the CPU for the eigensolver."""
    return device.type == "cpu" or size <= MOST_ROWS_ON_A_GPU


def solver_bytes(size: int) -> int:
    """Forecast the memory of torch.linalg.eigvalsh: a copy of the matrix; the rest are vectors.

    The factorizations L D L^T come later and need as much.
    """
    return size**2 * 8


def _check_symmetric(
    values: Tensor, matrix: str, matrix_error: float, scale: float, norm: float
) -> None:
    """Compare all pairs of entries, one by one and by the norm of their differences."""
    error, largest, squares = 2 * matrix_error, 0.0, 0.0
    for part, rest in _block_columns(values):
        difference = (rest - values[part, part.start :].mT) / scale
        largest = max(largest, scale * float(difference.abs().max()))
        squares += float(difference.square().sum())
    for what, found, allowed in (
        ("an entry", largest, rounding(scale, values.dtype) + error),
        (
            "a Frobenius norm",
            scale * math.sqrt(squares),
            rounding(norm, values.dtype) + error * len(values) ** 0.5,
        ),
    ):
        if not found <= allowed:
            raise ValueError(
                f"{matrix} must be symmetric, got {what} of {found:.1e} in the difference from "
                f"its transpose (allowed {allowed:.1e})"
            )


def _check_sums(eigenvalues: Tensor, trace: Tensor, matrix: str, scale: float, norm: float) -> None:
    """Trace and Frobenius norm of the lower triangle's matrix, to the solver's backward error."""
    size = max(1, len(eigenvalues))
    slack = 10 * torch.finfo(torch.float64).eps * size * norm
    for what, found, expected, allowed in (
        ("trace", float(eigenvalues.sum()), float(trace), slack * size**0.5),
        ("Frobenius norm", scale * float((eigenvalues / scale).norm()), norm, slack),
    ):
        if not abs(found - expected) <= allowed:
            raise InconsistentMatrixError(
                f"the eigenvalues of the {matrix} give a {what} of {found:.17g}, the matrix "
                f"{expected:.17g}; the eigensolver failed"
            )


def _row_sizes(values: Tensor, matrix: str) -> Tensor:
    """The largest absolute value of each row."""
    sizes = values.new_empty(len(values))
    for start in range(0, len(values), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        sizes[rows] = values[rows].abs().amax(1)  # nan if any is
    if not sizes.isfinite().all():
        raise ValueError(f"{matrix} must be finite, got an entry that is nan or infinite")
    return sizes


def _principal_part(values: Tensor, kept: Tensor) -> Tensor:
    """Some rows and the same columns of a matrix, without a copy of whole rows."""
    part = values.new_empty(len(kept), len(kept))
    blocks = zip(part.split(_BLOCK_ROWS), kept.split(_BLOCK_ROWS), strict=True)
    for target, rows in blocks:
        torch.index_select(values[rows], 1, kept, out=target)
    return part


def _norm(values: Tensor, scale: float) -> float:
    """Frobenius norm of the symmetric matrix of which the lower triangle is given."""
    squares = 0.0
    for part, rest in _block_columns(values):
        block, below = rest[: len(values[part])] / scale, rest[len(values[part]) :] / scale
        strict = float(block.tril(-1).square().sum()) + float(below.square().sum())
        squares += 2 * strict + float(block.diagonal().square().sum())
    return scale * math.sqrt(squares)


def _block_columns(values: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of columns, from the diagonal downwards, and their places."""
    for start in range(0, len(values), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        yield part, values[start:, part]


def _confirm_counts(found: Spectrum, eigenvalues: Tensor, values: Tensor, is_gram: bool) -> str:
    """Count the signs of the matrix that was solved by L D L^T, at both tolerances if needed."""
    if values.device.type != "cpu":
        return "none: the matrix is on a GPU"
    margin = 2 * solver_error(found.eigenvalues)
    # The error of A^T A may make eigenvalues negative, but none by more than its bound.
    is_gram = is_gram and found.tolerance >= found.error_bound
    num_different = 0
    for sign in (-1, 1):
        is_known = is_gram and sign < 0
        confirmed = 0 if is_known else count_signs(values, sign * found.tolerance)[sign > 0]
        outward = sign * eigenvalues - found.tolerance
        fewest, counted, most = (int((outward > limit).sum()) for limit in (margin, 0, -margin))
        if not fewest <= confirmed <= most:
            raise InconsistentMatrixError(
                f"{counted} eigenvalues of the {found.matrix} lie beyond {sign:+d} times the "
                f"tolerance {found.tolerance:.1e}, "
                f"{'a Gram matrix has' if is_known else 'L D L^T counts'} {confirmed}; the "
                "eigensolver failed"
            )
        num_different += abs(confirmed - counted)
    known = "; a Gram matrix has no negative eigenvalues" if is_gram else ""
    if num_different == 0:
        return f"LDL^T{known}"
    return (
        f"LDL^T, except for {num_different} eigenvalues within {margin:.1e} of a tolerance, on "
        f"whose side the two differ{known}"
    )

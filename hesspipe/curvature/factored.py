"""Exact spectra of networks of Linear layers from a matrix smaller than P x P.

G = A A^T has the eigenvalues of A^T A, of size N (C - 1) for softmax, and zeros. H, R, and G of a
loss that is not convex in the outputs are restricted to a subspace that contains their range, of
dimension at most N (C - 1) + 2 P_2 with P_2 the parameters outside the largest layer. Neither size
depends on P.

Both are compared with products by differentiation, which use no formula for layers, and the
differences bound the error of every eigenvalue.
"""

from __future__ import annotations

import torch

from hesspipe.curvature.compression import compress
from hesspipe.curvature.directions import Directions
from hesspipe.curvature.error_bounds import norm_bound, sample_products
from hesspipe.curvature.factors import Factors, factorize, has_curved_samples
from hesspipe.curvature.gram import gram_matrix
from hesspipe.curvature.layers import Layer
from hesspipe.curvature.matrix import Matrix
from hesspipe.hardware import require
from hesspipe.linalg.spectrum import ZERO_TOLERANCE, Spectrum, matrix_spectrum
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import row_norms

# The formed matrix takes an eigensolver of size P. The factors take one of their own size, and
# about a third more time to form and factorize what is solved, hence 1.1 in size.
_OVERHEAD = 1.1


def find_factors(objective: Objective, layers: list[Layer], matrix: Matrix) -> Factors | None:
    """Compute the factors of H, G or R, if the network has them.

    Networks of Linear layers have them for G, and for H and R if they also are piecewise linear.

    Parameters
    ----------
    objective : Objective
    layers : list of Layer
        From `hesspipe.curvature.layers.find_layers`.
    matrix : Matrix

    Returns
    -------
    Factors, or None
    """
    if not layers or not all(layer.is_linear for layer in layers):
        return None
    if matrix is not Matrix.GGN and has_curved_samples(objective, layers):
        return None
    return factorize(objective, layers, matrix)


def is_cheaper(factors: Factors) -> bool:
    """Whether what is solved is smaller than the matrix without its zero rows."""
    return _OVERHEAD * factors.size < factors.num_rows


@differentiating()
def factored_spectrum(
    objective: Objective,
    factors: Factors,
    matrix: Matrix,
    *,
    zero_tolerance: float = ZERO_TOLERANCE,
    certify: bool | None = None,
) -> Spectrum:
    """Compute the spectrum of H, G or R from its factors.

    Parameters
    ----------
    objective : Objective
    factors : Factors
        From `find_factors`, for the same matrix.
    matrix : Matrix
    zero_tolerance : float
    certify : bool, optional
        See `hesspipe.linalg.spectrum.matrix_spectrum`, as for zero_tolerance.

    Returns
    -------
    Spectrum
        Eigenvalues that are zero because the matrix vanishes outside a subspace are exactly zero,
        or equal to the weight decay.

    Raises
    ------
    TooLargeError
        If the matrix that is solved does not fit into memory; raised before it is allocated.
    InconsistentMatrixError
        If it disagrees with products computed without it, or the eigenvalues with its traces.
    """
    size = factors.size
    num_columns = factors.num_sampled + len(factors.kept)
    # The matrix and the eigensolver's copy. Before, R and a block of rows, with copies.
    largest = size if factors.is_gram else max(size, 2 * num_columns)
    require(
        (2 * largest**2 + factors.coupling.numel() + size * len(factors.positions)) * 8,
        f"the spectrum of the {matrix} from {size:,} columns",
        "use fewer samples or a machine with more memory",
        device=objective.theta.device,
    )
    # Nothing is constant where there are factors, so weight decay moves every eigenvalue alike.
    decay = objective.weight_decay if matrix.has_decay else 0.0
    samples = sample_products(objective.without_weight_decay(), matrix)
    if factors.is_gram:
        values = gram_matrix(factors)
        error = Directions(factors.directions).gram_error(objective, matrix, values, samples)
    else:
        compression = compress(factors, torch.cat([samples.vectors, samples.products]))
        values = compression.values
        before, after = compression.coordinates.split(len(samples.vectors))
        outside = compression.outside[len(samples.vectors) :]
        differences = torch.hypot(row_norms(after - before @ values), outside)
        error = norm_bound(samples, differences, matrix)
    values.diagonal().add_(decay)
    return matrix_spectrum(
        values,
        matrix=matrix,
        method="factored",
        matrix_error=error,
        zero_tolerance=zero_tolerance,
        certify=certify,
        others=values.new_full((objective.num_parameters - len(values),), decay),
        is_gram=factors.is_gram and decay >= 0,
    )

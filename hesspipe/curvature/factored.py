"""Exact spectrum from thin factors of the matrix, without the matrix.

M = F D F^T, with D = diag(+-1) and F from `hesspipe.curvature.factors`, has the same non-zero
eigenvalues as

    L^T D L,    K = F^T F = L L^T

where the Cholesky factorization is pivoted, because K may be singular. The cost depends on the
number of columns of F, at most N (C - 1) + 2 P_2 with P_2 the parameters outside the largest
layer, and not on P.

K is compared with products of M and of the network's Jacobian that use no formula for layers.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dlauum, dpstrf
from torch import Tensor

from hesspipe.curvature import columns
from hesspipe.curvature.dense import eigenvalue_rounding
from hesspipe.curvature.factors import Factors, factorize, has_curved_samples
from hesspipe.curvature.gram import gram_matrix
from hesspipe.curvature.layers import Layer
from hesspipe.curvature.matrix import Matrix
from hesspipe.errors import InconsistentMatrixError
from hesspipe.hardware import require
from hesspipe.objective.objective import Objective
from hesspipe.seeding import probe
from hesspipe.tolerances import NUM_ROUNDINGS

# The formed matrix takes an eigensolver of size P. The factors take one of the number of columns,
# and about a third more time for K, its factorization and the product, hence 1.1 in size.
_OVERHEAD = 1.1


def find_factors(objective: Objective, layers: list[Layer], matrix: Matrix) -> Factors | None:
    """Compute the factors of H, G or R, if the network has them.

    For networks of Linear layers, G has factors if the loss is convex in the outputs, and H and R
    if the network also is piecewise linear.

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
    """Whether the factors have fewer columns than the matrix has rows that are not zero."""
    return _OVERHEAD * factors.num_columns < factors.num_rows


def factored_eigenvalues(objective: Objective, factors: Factors, matrix: Matrix) -> Tensor:
    """Compute all P eigenvalues of H, G or R from its factors.

    Parameters
    ----------
    objective : Objective
    factors : Factors
        From `find_factors`, for the same matrix.
    matrix : Matrix

    Returns
    -------
    Tensor, shape (P,)
        float64, ascending, on the CPU. Eigenvalues that are zero because there are fewer
        columns than parameters are exactly zero.

    Raises
    ------
    TooLargeError
        If the Gram matrix does not fit into memory; raised before it is allocated.
    InconsistentMatrixError
        If the Gram matrix disagrees with products computed without it, or the eigenvalues with
        its traces.
    """
    size = factors.num_columns
    if size == 0:  # the residual of a linear network
        return torch.zeros(objective.num_parameters, dtype=torch.float64)
    num_other = sum(layer.num_parameters for layer in factors.others)
    require(
        # K and the eigensolver's copy; then A^T in the other layers, and the coupling.
        (2 * size**2 + factors.coupling.numel() + size * num_other) * 8,
        f"the spectrum of the {matrix} from {size:,} columns",
        "use fewer samples or a machine with more memory",
    )
    gram, signs = gram_matrix(factors)
    _check_gram(objective, factors, gram, signs, matrix)
    trace, squares = map(float, _moments(gram, signs))
    nonzero = torch.linalg.eigvalsh(_signed_product(gram.cpu(), signs.cpu()), UPLO="U")
    slack = 10 * torch.finfo(torch.float64).eps * size * squares**0.5
    for what, found, expected, allowed in (
        ("trace", float(nonzero.sum()), trace, slack * size**0.5),
        ("Frobenius norm", float(nonzero.norm()), squares**0.5, slack),
    ):
        if not abs(found - expected) <= allowed:
            raise InconsistentMatrixError(
                f"the eigenvalues of the {matrix} give a {what} of {found:.17g}, its factors "
                f"{expected:.17g}; the factorization failed"
            )
    eigenvalues = torch.zeros(objective.num_parameters, dtype=torch.float64)
    eigenvalues[: len(nonzero)] = nonzero
    return eigenvalues.sort().values


def _moments(gram: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """tr(D K) and tr(D K D K), the sums of the eigenvalues and of their squares."""
    squares = torch.stack([row.square() @ signs for row in gram])
    return signs @ gram.diagonal(), signs @ squares


def _signed_product(gram: Tensor, signs: Tensor) -> Tensor:
    """L^T D L with K = L L^T; the upper triangle of a row-major matrix. Overwrites K."""
    # The transpose of a symmetric row-major matrix is the column-major one that LAPACK overwrites.
    values = gram.numpy().T
    tolerance = 4 * np.finfo(np.float64).eps * float(gram.diagonal().max())
    lower, pivots, rank, info = dpstrf(values, tol=tolerance, lower=1, overwrite_a=1)
    if info < 0:
        raise InconsistentMatrixError(f"dpstrf refused its argument {-info}")
    is_negative = signs.numpy()[pivots - 1] < 0
    negative = np.asfortranarray(lower[is_negative, :rank])
    # dpstrf leaves other values above the diagonal.
    negative[np.flatnonzero(is_negative)[:, None] < np.arange(rank)] = 0
    below = np.asfortranarray(lower[rank:, :rank])
    packed = lower.reshape(-1, order="F")
    for column in range(rank if len(below) else 0):  # drop the rows below, in place
        packed[column * rank : (column + 1) * rank] = lower[:rank, column]
    square = packed[: rank**2].reshape(rank, rank, order="F")
    product, info = dlauum(square, lower=1, overwrite_c=1)
    if len(below):
        product = dsyrk(1.0, below, beta=1.0, c=product, trans=1, lower=1, overwrite_c=1)
    if len(negative):
        product = dsyrk(-2.0, negative, beta=1.0, c=product, trans=1, lower=1, overwrite_c=1)
    return torch.from_numpy(product.T)


def _check_gram(
    objective: Objective, factors: Factors, gram: Tensor, signs: Tensor, matrix: Matrix
) -> None:
    """Compare K with products by differentiation, at a random point of the factors' span.

    For v = A u + E W t, which is F w with w = (u, S^-1 t / sqrt 2, -S^-1 t / sqrt 2), the norms of
    v and M v and the form v^T M v follow from K w alone.
    """
    num_samples, num_directions, _ = factors.whitened.shape
    weights = probe(gram.diagonal())
    vector = torch.zeros_like(objective.theta)
    num_sampled = num_samples * num_directions
    if num_sampled:
        by_sample = weights[:num_sampled].view(num_samples, num_directions, 1)
        cotangents = (factors.directions @ by_sample).squeeze(2)
        vector += columns.combine_gradients(objective, cotangents)
    if len(factors.sizes):
        # S on both sides, so that no column of F gets a huge weight.
        units = weights[num_sampled : num_sampled + len(factors.sizes)] * factors.sizes.sqrt()
        vector[factors.positions] += factors.rotation @ units
        units = units / (2 * factors.sizes).sqrt()
        weights[num_sampled:] = torch.cat([units, -units])
    product = columns.multiply(objective, matrix, vector.unsqueeze(0))[0]
    image = signs * (gram @ weights)
    eps, size, norm = torch.finfo(torch.float64).eps, gram.norm(), vector.norm()
    noise = eps * size + eigenvalue_rounding(objective, matrix)  # of M, as an eigenvalue
    for what, found, expected, scale in (
        ("v.v", weights @ (signs * image), norm**2, eps * size * weights.norm() ** 2),
        ("v.Mv", image @ (signs * image), vector @ product, noise * norm**2),
        ("Mv.Mv", image @ (gram @ image), product @ product, noise * (size + noise) * norm**2),
    ):
        if not (found - expected).abs() <= NUM_ROUNDINGS * scale:
            raise InconsistentMatrixError(
                f"the factors of the {matrix} give {what} = {found:.17g}, differentiation "
                f"{expected:.17g}; please report it with the network"
            )

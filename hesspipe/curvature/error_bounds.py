"""Bounds of the error of a computed matrix, by products that do not use it.

For a computed matrix M^ of H, G or R, E = M^ - M, and k standard normal vectors g_i

    ||E||_2 <= 10 sqrt(2 / pi) max_i ||E g_i||     with probability at least 1 - 10^-k

(Halko, Martinsson and Tropp 2011, Lemma 4.1). M g is computed by differentiating twice, without
M^; so

    ||E g|| <= ||M^ g - (M g)^|| + ||(M g)^ - M g||

where the first term is observed, and the second, rounding, is measured by
`hesspipe.objective.rounding`. By Weyl's inequality, ||E||_2 bounds the error of each eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hesspipe.curvature.loss_derivatives import decay_diagonal
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import BatchProduct
from hesspipe.errors import InconsistentMatrixError
from hesspipe.linalg.operator import require_digits
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.finiteness import require_finite_matrix
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import row_norms
from hesspipe.objective.rounding import measured_rounding
from hesspipe.seeding import generator

# The bound fails with probability 10^-3 for the worst matrix of errors, one of rank 1. For errors
# of full rank, like rounding, max ||E g|| is itself about ||E||_F.
NUM_PROBES = 3
_ALPHA = 10.0
# Largest difference between a matrix and a product, in units of the product's rounding. The sums
# of a matrix's entries are formed in another order; the largest ratio that was seen is 0.6, for
# 1,000 data, and it grows with the square root of their number.
_LARGEST_RATIO = 50.0


@dataclass(frozen=True)
class ProductSamples:
    """Products of a matrix with random vectors, computed without the matrix.

    Attributes
    ----------
    vectors, products : Tensor, shape (k, P)
        One a row.
    rounding : float
        Norm of the rounding error of a product.
    """

    vectors: Tensor
    products: Tensor
    rounding: float


def matrix_error(
    objective: Objective,
    matrix: Matrix | str,
    formed: Callable[[Tensor], Tensor],
    samples: ProductSamples | None = None,
) -> float:
    """Bound the spectral norm of a computed matrix's error.

    Parameters
    ----------
    objective : Objective
    matrix : {"hessian", "ggn", "residual"}
    formed : callable (Tensor (k, P)) -> Tensor (k, P) or (K, k, P)
        Multiplies the computed matrix with vectors; K results if there are several ways.
    samples : ProductSamples, optional
        Of this matrix, where they are known.

    Returns
    -------
    float
        Bound of ||E||_2, with probability at least 0.999.

    Raises
    ------
    InconsistentMatrixError
        If the products differ by more than rounding.
    """
    matrix = Matrix(matrix)
    samples = sample_products(objective, matrix) if samples is None else samples
    errors = formed(samples.vectors) - samples.products  # (..., k, P)
    differences = row_norms(errors.view(-1, errors.shape[-1])).view(-1, NUM_PROBES)
    return norm_bound(samples, differences.amax(0), matrix)


def samples_of_sum(
    objective: Objective, ggn: ProductSamples, residual: ProductSamples
) -> ProductSamples:
    """Add products with G and R to products with H, and compare them with H's own.

    Parameters
    ----------
    objective : Objective
    ggn, residual : ProductSamples
        Of the same vectors.

    Returns
    -------
    ProductSamples
        The rounding is at most that of both and of the sum.

    Raises
    ------
    InconsistentMatrixError
        If they differ from the products of H by more than rounding.
    """
    products = ggn.products + residual.products
    adding = torch.finfo(products.dtype).eps * float(row_norms(products).max())
    added = ProductSamples(ggn.vectors, products, ggn.rounding + residual.rounding + adding)
    own = _multiply(objective, Matrix.HESSIAN, added.vectors)
    norm_bound(added, row_norms(own - products), Matrix.HESSIAN)
    return added


def product_error(objective: Objective, matrix: Matrix | str) -> float:
    """Bound the spectral norm of the error of products by differentiation themselves.

    Parameters
    ----------
    objective : Objective
    matrix : {"hessian", "ggn", "residual"}

    Returns
    -------
    float
        With probability at least 0.999.
    """
    samples = sample_products(objective, Matrix(matrix))
    return norm_bound(samples, samples.products.new_zeros(1), Matrix(matrix))


def norm_bound(samples: ProductSamples, differences: Tensor, matrix: Matrix) -> float:
    """Bound the spectral norm of an error by the norms of its products with random vectors.

    Parameters
    ----------
    samples : ProductSamples
    differences : Tensor, shape (k,)
        ||E g_i||, up to the rounding of the samples.
    matrix : Matrix
        Its name, for the message.

    Returns
    -------
    float

    Raises
    ------
    InconsistentMatrixError
        If a difference is larger than rounding.
    """
    largest = float(differences.max())  # nan if any is
    if not largest <= _LARGEST_RATIO * samples.rounding:
        raise InconsistentMatrixError(
            f"the {matrix} disagrees with a product computed without it by {largest:.1e} "
            f"(rounding is {samples.rounding:.1e}); an operation of the network has a wrong "
            "second derivative, or the network a structure that was misread: compare with "
            "method='columns'"
        )
    return _ALPHA * math.sqrt(2 / math.pi) * (largest + samples.rounding)


@differentiating()
def sample_products(objective: Objective, matrix: Matrix) -> ProductSamples:
    """Multiply H, G or R with random vectors, and measure the rounding.

    Parameters
    ----------
    objective : Objective
    matrix : Matrix

    Returns
    -------
    ProductSamples
    """
    vectors = torch.randn(
        NUM_PROBES,
        objective.num_parameters,
        generator=generator(0, "matrix error"),
        dtype=torch.float64,
        device="cpu",
    ).to(objective.theta)
    products = _multiply(objective, matrix, vectors)
    require_finite_matrix(objective, products, matrix)
    require_digits(float(products.abs().max()), products.dtype, matrix)
    one = vectors[:1]
    rounding = measured_rounding(
        lambda: _multiply(objective, matrix, one),
        products[:1],
        lambda change: row_norms(change)[0],
        f"products with the {matrix}",
    )
    return ProductSamples(vectors, products, float(rounding))


def _multiply(objective: Objective, matrix: Matrix, vectors: Tensor) -> Tensor:
    """Multiply vectors (k, P), one at a time, without the rules for several."""
    products = decay_diagonal(objective, matrix) * vectors
    for batch in objective.batches:
        multiply = BatchProduct(objective, matrix, batch)
        for row, vector in zip(products, vectors, strict=True):
            row += multiply(vector.unsqueeze(0))[0]
    return products

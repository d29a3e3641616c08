"""Trace and Frobenius norm of a symmetric operator, estimated with standard errors.

Both are split by an orthonormal basis Q of a few directions in which the operator is large:

    tr(A)      = tr(Q^T A Q) + tr(Z A Z),              Z = 1 - Q Q^T
    ||A||_F^2  = ||A Q||_F^2 + ||A Z||_F^2,

The first terms are computed exactly. The second ones are averages of g^T Z A Z g and ||A Z g||^2
over vectors g of random signs, from the same products. The Hessian of a network has few large
eigenvalues, and the remainder without them has a much smaller variance. Q spans A times random
vectors, as in Hutch++; these are independent of the g, so the estimates are unbiased.

References
----------
Meyer, Musco, Musco, Woodruff (2021), Hutch++: Optimal Stochastic Trace Estimation.
Hutchinson (1989), A stochastic estimator of the trace of the influence matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hesspipe.hardware import require
from hesspipe.linalg.operator import SymmetricProduct, symmetric_product
from hesspipe.seeding import generator

# Default: thirty directions are more than the outliers of a ten-class network, and an average of
# thirty has a standard error of a fifth of the spread.
NUM_PRODUCTS = 90


@dataclass(frozen=True)
class Estimate:
    """An unbiased random estimate.

    Attributes
    ----------
    value : float
    standard_error : float
        Estimated from the spread of the random part; 0 if the value is exact.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class NormEstimates:
    """Estimates of the trace and the Frobenius norm.

    Attributes
    ----------
    trace : Estimate
        Sum of the eigenvalues.
    squared_frobenius_norm : Estimate
        Sum of their squares.
    num_products : int
    """

    trace: Estimate
    squared_frobenius_norm: Estimate
    num_products: int

    @property
    def frobenius_norm(self) -> Estimate:
        """Square root of the sum of squares; the standard error is to first order."""
        squares = self.squared_frobenius_norm
        norm = math.sqrt(squares.value)
        return Estimate(norm, squares.standard_error / (2 * norm) if norm > 0 else 0.0)


def estimate_norms(
    operator: Any, *, num_products: int = NUM_PRODUCTS, seed: int = 0
) -> NormEstimates:
    """Estimate trace and Frobenius norm of a symmetric operator.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_products : int
        Number of products, at least 6: a third each for Q, for A Q and for the averages, as in
        Meyer et al. (2021). If a third reaches P, both results are exact.
    seed : int

    Returns
    -------
    NormEstimates

    Raises
    ------
    ValueError
        If num_products is too small.
    TooLargeError
        Before allocating, if the vectors do not fit into memory.

    Examples
    --------
    >>> found = estimate_norms(torch.diag(torch.arange(1.0, 101.0)), num_products=60)
    >>> abs(found.trace.value - 5050) < 4 * found.trace.standard_error
    True
    """
    if num_products < 6:
        raise ValueError(f"num_products must be at least 6, got {num_products}")
    product = symmetric_product(operator)
    num_directions = min(num_products // 3, product.dim)
    if product.device.type == "cpu":
        require(
            3 * num_directions * product.dim * torch.finfo(product.dtype).bits // 8,
            f"{num_directions} vectors of length P = {product.dim:,}",
            "pass a smaller num_products",
        )
    basis = _large_directions(product, num_directions, seed)
    trace = squares = 0.0
    for direction in basis.T:
        image = product.multiply(direction.contiguous())
        trace += float(direction @ image)
        squares += float(image.square().sum())
    if num_directions == product.dim:
        return NormEstimates(Estimate(trace, 0.0), Estimate(squares, 0.0), 2 * num_directions)
    rest = num_products - 2 * num_directions
    forms, norms = _averages(product, basis, rest, seed)
    return NormEstimates(
        trace=_estimate(trace, forms),
        squared_frobenius_norm=_estimate(squares, norms),
        num_products=num_products,
    )


def _large_directions(product: SymmetricProduct, num_directions: int, seed: int) -> Tensor:
    """Compute Q (P, num_directions), which spans A times random signs."""
    random = generator(seed, "large directions")
    images = [product.multiply(_signs(product, random)) for _ in range(num_directions)]
    basis: Tensor = torch.linalg.qr(torch.stack(images, dim=1)).Q
    return basis


def _averages(
    product: SymmetricProduct, basis: Tensor, num_vectors: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Compute g^T Z A Z g and ||A Z g||^2, each (num_vectors,), for vectors g of random signs."""
    random = generator(seed, "averages")
    forms, norms = [], []
    for _ in range(num_vectors):
        signs = _signs(product, random)
        projected = signs - basis @ (basis.T @ signs)  # Z g, (P,)
        image = product.multiply(projected)
        forms.append(float(projected @ image))
        norms.append(float(image.square().sum()))
    return torch.tensor(forms, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)


def _signs(product: SymmetricProduct, random: torch.Generator) -> Tensor:
    signs = 2 * torch.randint(2, (product.dim,), generator=random) - 1
    return signs.to(product.device, product.dtype)


def _estimate(exact: float, samples: Tensor) -> Estimate:
    return Estimate(exact + float(samples.mean()), float(samples.std()) / math.sqrt(len(samples)))

"""Lanczos tridiagonalization of a symmetric operator, with full reorthogonalization.

    A Q^T = Q^T T + beta r e_last^T,   Q Q^T = I,   T tridiagonal

Rows of Q are the basis here. Without reorthogonalization, rounding brings directions that have
converged back in, and their eigenvalues are found again and again ("ghosts"). Each new vector is
therefore orthogonalized against all earlier ones, and twice: what one pass leaves is of the size
of its own rounding, which is no longer small beside a vector that has shrunk.

References
----------
Lanczos (1950); Parlett, The Symmetric Eigenvalue Problem (1998), section 6.9 ("twice is enough")
and chapter 13; Daniel, Gragg, Kaufman, Stewart (1976).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hesspipe.curvature.operators import OPERATORS, CurvatureOperator
from hesspipe.objective.objective import Objective

# A vector that a pass shrinks by less than this is orthogonal to working precision.
# Daniel, Gragg, Kaufman, Stewart (1976) take 1/sqrt(2).
_ENOUGH = 0.5**0.5


@dataclass(frozen=True)
class SymmetricProduct:
    """A symmetric operator as the methods of this package use it.

    Attributes
    ----------
    multiply : callable (Tensor (dim,)) -> Tensor (dim,)
    dim : int
    dtype, device
    name : str
        "hessian", "ggn", "residual", or "operator" for one of the caller's.
    """

    multiply: Callable[[Tensor], Tensor]
    dim: int
    dtype: torch.dtype
    device: torch.device
    name: str


def symmetric_product(operator: Any, matrix: str = "hessian") -> SymmetricProduct:
    """Take an objective's matrix, or any symmetric operator, as a product.

    Parameters
    ----------
    operator : Objective, or any object with `shape`, `dtype` and `@`
        An operator of this package, a tensor, a NumPy or SciPy matrix or LinearOperator.
    matrix : str
        Which matrix of an objective.

    Returns
    -------
    SymmetricProduct

    Raises
    ------
    ValueError
        If it is not square, real and symmetric: the last is tried with two products.
    """
    if isinstance(operator, Objective):
        if matrix not in OPERATORS:
            raise ValueError(f"matrix must be one of {sorted(OPERATORS)}, got {matrix!r}")
        operator = OPERATORS[matrix](operator)
    if isinstance(operator, CurvatureOperator):
        return SymmetricProduct(
            operator.__matmul__,
            operator.shape[0],
            operator.dtype,
            operator.device,
            operator.matrix,
        )
    product = _foreign_product(operator)
    _check_symmetric(product)
    return product


def _foreign_product(operator: Any) -> SymmetricProduct:
    shape = tuple(operator.shape)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"operator must be square, got shape {shape}")
    if isinstance(operator.dtype, torch.dtype):
        dtype, multiply = operator.dtype, operator.__matmul__
    else:
        dtype = torch.from_numpy(np.empty(0, dtype=operator.dtype)).dtype

        def multiply(vector: Tensor) -> Tensor:
            product: Tensor = torch.from_numpy(np.asarray(operator @ vector.numpy()))
            return product

    if not dtype.is_floating_point:
        raise ValueError(f"operator must be real and of floating point, got dtype {dtype}")
    device = torch.device(getattr(operator, "device", None) or "cpu")
    return SymmetricProduct(multiply, shape[0], dtype, device, "operator")


def _check_symmetric(product: SymmetricProduct) -> None:
    """Exchange the vectors of a random bilinear form."""
    generator = torch.Generator().manual_seed(0)
    left, right = (random_unit(product, generator) for _ in range(2))
    from_left, from_right = product.multiply(left), product.multiply(right)
    difference = float((left @ from_right - right @ from_left).abs())
    scale = float(from_left.norm() + from_right.norm())
    if not difference <= 1e3 * torch.finfo(product.dtype).eps * scale:
        raise ValueError(
            f"operator must be symmetric, got a bilinear form that differs by {difference:.1e} "
            f"when its vectors are exchanged, where products have norm {scale:.1e}"
        )


def random_unit(
    product: SymmetricProduct, generator: torch.Generator, basis: Tensor | None = None
) -> Tensor:
    """Draw a random direction, orthogonal to the rows of a basis: shape (dim,)."""
    vector = torch.randn(product.dim, generator=generator, dtype=torch.float64)
    unit: Tensor = vector.to(product.device, product.dtype)
    unit /= unit.norm()
    if basis is None or len(basis) == 0:
        return unit
    unit, _, norm = orthogonalize(unit, basis)
    return unit / norm


def orthogonalize(vector: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, float]:
    """Take the part of a vector that is orthogonal to the rows of a basis.

    At least two passes of classical Gram-Schmidt, and more until a pass leaves the norm as it is.

    Parameters
    ----------
    vector : Tensor, shape (P,)
    basis : Tensor, shape (k, P)
        Orthonormal rows.

    Returns
    -------
    vector : Tensor, shape (P,)
        Not normalized.
    coefficients : Tensor, shape (k,)
        What was taken away, on the basis.
    norm : float
        Of the result.
    """
    if len(basis) == 0:
        return vector, basis.new_zeros(0), float(vector.norm())
    total = basis.new_zeros(len(basis))
    before, num_passes = float(vector.norm()), 0
    while True:
        projection = basis @ vector
        vector = vector - basis.T @ projection
        total += projection
        num_passes += 1
        norm = float(vector.norm())
        if num_passes >= 2 and not norm < _ENOUGH * before:
            return vector, total, norm
        if norm == 0 or num_passes == 5:  # inside the span of the basis
            return vector, total, norm
        before = norm


@dataclass(frozen=True)
class Tridiagonalization:
    """A Krylov space in which the operator is tridiagonal.

    Attributes
    ----------
    diagonal : Tensor, shape (k,)
    off_diagonal : Tensor, shape (k - 1,)
        Positive.
    basis : Tensor, shape (k, P)
        Orthonormal rows.
    residual : Tensor, shape (P,)
        Unit vector orthogonal to the basis, or zero.
    residual_norm : float
        beta; 0 if the space is invariant, so that T's eigenvalues are the operator's.
    """

    diagonal: Tensor
    off_diagonal: Tensor
    basis: Tensor
    residual: Tensor
    residual_norm: float

    @property
    def matrix(self) -> Tensor:
        """T, shape (k, k)."""
        return (
            torch.diag(self.diagonal)
            + torch.diag(self.off_diagonal, 1)
            + torch.diag(self.off_diagonal, -1)
        )


def tridiagonalize(
    operator: Any, start: Tensor, num_steps: int, *, steps: Iterable[int] | None = None
) -> Tridiagonalization:
    """Run Lanczos from a start vector.

    Parameters
    ----------
    operator : SymmetricProduct, or what `symmetric_product` takes
    start : Tensor, shape (P,)
        Of the operator's dtype; normalized here.
    num_steps : int
        Products to make, at most P. Fewer are made if the Krylov space is invariant before.
    steps : iterable of int, optional
        range(num_steps) behind a progress bar.

    Returns
    -------
    Tridiagonalization
        k = num_steps, or the dimension of the invariant space.

    Raises
    ------
    ValueError
        If the number of steps is not in 1..P, or the start is zero or not finite.

    Examples
    --------
    >>> found = tridiagonalize(torch.diag(torch.tensor([1.0, 1.0, 4.0])), torch.ones(3), 3)
    >>> torch.linalg.eigvalsh(found.matrix)  # the space is invariant after two steps
    tensor([1., 4.])
    """
    product = operator if isinstance(operator, SymmetricProduct) else symmetric_product(operator)
    _check_start(product, start, num_steps)
    basis = start.new_empty(num_steps, product.dim)
    diagonal, off_diagonal = [], []
    vector, norm, scale = start / start.norm(), 0.0, 0.0
    for step in steps if steps is not None else range(num_steps):
        basis[step] = vector
        image = product.multiply(vector)
        vector, coefficients, norm = orthogonalize(image, basis[: step + 1])
        diagonal.append(coefficients[-1])
        scale = max(scale, float(image.norm()))
        if norm <= breakdown(scale, product):
            norm = 0.0
            break
        vector = vector / norm
        off_diagonal.append(norm)
    size = len(diagonal)
    return Tridiagonalization(
        diagonal=torch.stack(diagonal),
        off_diagonal=torch.tensor(off_diagonal[: size - 1], dtype=start.dtype).to(start.device),
        basis=basis[:size],
        residual=vector if norm > 0 else torch.zeros_like(vector),
        residual_norm=norm,
    )


def breakdown(scale: float, product: SymmetricProduct) -> float:
    """Norm below which the rest of a product is the product's own rounding."""
    return 10 * torch.finfo(product.dtype).eps * scale


def _check_start(product: SymmetricProduct, start: Tensor, num_steps: int) -> None:
    if not 1 <= num_steps <= product.dim:
        raise ValueError(f"num_steps must be 1 to P = {product.dim}, got {num_steps}")
    if not 0 < float(start.norm()) < float("inf"):
        raise ValueError(f"start must be finite and not zero, got norm {float(start.norm())}")

"""Lanczos tridiagonalization of a symmetric operator, with full reorthogonalization.

    A Q^T = Q^T T + beta r e_last^T,   Q Q^T = I,   T tridiagonal

The rows of Q are the basis. Without reorthogonalization, rounding reintroduces directions that have
already converged, and their eigenvalues are found again and again ("ghosts"). Each new vector is
therefore orthogonalized against all earlier ones; see `hesspipe.linalg.orthogonalization`.

References
----------
Lanczos (1950); Parlett, The Symmetric Eigenvalue Problem (1998), chapter 13.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hesspipe.linalg.operator import SymmetricProduct, symmetric_product
from hesspipe.linalg.orthogonalization import orthogonalize


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
    operator : SymmetricProduct, or any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    start : Tensor, shape (P,)
        Of the operator's dtype; normalized here.
    num_steps : int
        Number of products, at most P. Fewer are made if the Krylov space becomes invariant.
    steps : iterable of int, optional
        range(num_steps), e.g. wrapped in a progress bar.

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
    product = symmetric_product(operator)
    _check_start(product, start, num_steps)
    basis = start.new_empty(num_steps, product.dim)
    diagonal, off_diagonal = [], []
    vector, norm, scale = start / start.norm(), 0.0, 0.0
    for step in steps if steps is not None else range(num_steps):
        basis[step] = vector
        image = product.multiply(vector)  # (P,)
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
    """Return the norm below which the remainder of a product is rounding."""
    return 10 * torch.finfo(product.dtype).eps * scale


def _check_start(product: SymmetricProduct, start: Tensor, num_steps: int) -> None:
    if not 1 <= num_steps <= product.dim:
        raise ValueError(f"num_steps must be 1 to P = {product.dim}, got {num_steps}")
    if not 0 < float(start.norm()) < float("inf"):
        raise ValueError(f"start must be finite and not zero, got norm {float(start.norm())}")

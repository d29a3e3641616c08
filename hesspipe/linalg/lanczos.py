"""Lanczos tridiagonalization of a symmetric operator, with full reorthogonalization.

    A Q^T = Q^T T + beta r e_last^T,   Q Q^T = I,   T tridiagonal

The rows of Q are the basis. Without reorthogonalization, rounding reintroduces directions that have
already converged, and their eigenvalues are found again and again ("ghosts"). Each new vector is
therefore orthogonalized against all earlier ones; see `hesspipe.linalg.orthogonalization`, and
`hesspipe.linalg.lanczos_basis` for earlier ones of fewer bits.

References
----------
Lanczos (1950); Parlett, The Symmetric Eigenvalue Problem (1998), chapter 13.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hesspipe.linalg.lanczos_basis import LanczosBasis
from hesspipe.linalg.operator import SymmetricProduct, scaled, symmetric_product

# Largest asymmetry in units of the measured rounding of a product; see
# `hesspipe.curvature.error_bounds`.
_MOST_ROUNDINGS = 50.0


@dataclass(frozen=True)
class Tridiagonalization:
    """A Krylov space in which the operator is tridiagonal.

    Attributes
    ----------
    diagonal : Tensor, shape (k,)
    off_diagonal : Tensor, shape (k - 1,)
        Positive.
    basis : Tensor, shape (k, P)
        Orthonormal rows; none if they were rounded.
    residual : Tensor, shape (P,)
        Unit vector orthogonal to the basis, or zero.
    residual_norm : float
        beta; 0 if the space is invariant, so that T's eigenvalues are the operator's.
    asymmetry : float
        Largest norm, over the steps, by which the projection of a product on the basis differs
        from the column of T that symmetry demands: the rounding of the products, and more if the
        operator is not symmetric or changes. That of rounded rows is added.
    """

    diagonal: Tensor
    off_diagonal: Tensor
    basis: Tensor
    residual: Tensor
    residual_norm: float
    asymmetry: float

    @property
    def matrix(self) -> Tensor:
        """T, shape (k, k)."""
        return (
            torch.diag(self.diagonal)
            + torch.diag(self.off_diagonal, 1)
            + torch.diag(self.off_diagonal, -1)
        )


def tridiagonalize(
    operator: Any,
    start: Tensor,
    num_steps: int,
    *,
    steps: Iterable[int] | None = None,
    basis: LanczosBasis | None = None,
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
    basis : LanczosBasis, optional
        An empty one, for num_steps rows.

    Returns
    -------
    Tridiagonalization
        k = num_steps, or the dimension of the invariant space.

    Raises
    ------
    ValueError
        If the number of steps is not in 1..P, the start is zero or not finite, a product is not
        finite, or the asymmetry exceeds the root of eps times the size of the operator.

    Examples
    --------
    >>> found = tridiagonalize(torch.diag(torch.tensor([1.0, 1.0, 4.0])), torch.ones(3), 3)
    >>> torch.linalg.eigvalsh(found.matrix)  # the space is invariant after two steps
    tensor([1., 4.])
    """
    product, scaling = scaled(symmetric_product(operator))
    vector = _unit_start(product, start, num_steps)
    del start  # if the caller has no use for it either
    basis = basis or LanczosBasis(product, num_steps)
    diagonal: list[Tensor] = []
    off_diagonal: list[float] = []
    scale = asymmetry = 0.0
    for step in steps if steps is not None else range(num_steps):
        vector = basis.append(vector)
        image = product.multiply(vector)  # (P,)
        scale = max(scale, float(product.space.norm(image)))
        vector, coefficients, norm = basis.orthogonalize(image)
        del image
        diagonal.append(coefficients[-1])
        last_norm = off_diagonal[-1] if off_diagonal else 0.0
        asymmetry = max(asymmetry, basis.asymmetry(coefficients, last_norm, scale))
        _require_symmetric(product, asymmetry, scale, step, scaling.unit)
        is_invariant = norm <= breakdown(scale, product)
        off_diagonal.append(0.0 if is_invariant else norm)
        if is_invariant:
            break
        vector /= norm
    size, unit = len(diagonal), scaling.unit
    norms = torch.tensor(off_diagonal, dtype=torch.float64, device="cpu") * unit
    return Tridiagonalization(
        diagonal=(torch.stack(diagonal).double() * unit).to(vector.dtype),
        off_diagonal=norms[: size - 1].to(vector),
        basis=basis.rows,
        residual=vector if off_diagonal[-1] > 0 else torch.zeros_like(vector),
        residual_norm=float(norms[-1]),
        asymmetry=(asymmetry + basis.deviation(scale)) * unit,
    )


def _require_symmetric(
    product: SymmetricProduct, asymmetry: float, scale: float, step: int, unit: float
) -> None:
    allowed = math.sqrt(torch.finfo(product.dtype).eps) * scale
    if asymmetry > allowed and product.rounding is not None:
        # Terms cancel in the products, whose norms say nothing of the rounding then.
        allowed = max(allowed, _MOST_ROUNDINGS * product.rounding() / unit)
    if asymmetry > allowed:
        raise ValueError(
            f"the {product.name} must be symmetric and the same in every product, got an "
            f"asymmetry of {asymmetry / scale:.1e} of its size in step {step + 1}, where rounding "
            f"explains {allowed / scale:.0e}; compute in float64, or make the products "
            "deterministic"
        )


def breakdown(scale: float, product: SymmetricProduct) -> float:
    """Return the norm below which the remainder of a product is rounding."""
    return 10 * torch.finfo(product.dtype).eps * scale


def _unit_start(product: SymmetricProduct, start: Tensor, num_steps: int) -> Tensor:
    """Return the start divided by its norm."""
    if not 1 <= num_steps <= product.dim:
        raise ValueError(f"num_steps must be 1 to P = {product.dim}, got {num_steps}")
    space = product.space
    if start.shape != (space.length,) or start.dtype != product.dtype:
        raise ValueError(
            f"start must be a vector of length {space.length} and {product.dtype}, got shape "
            f"{tuple(start.shape)} and {start.dtype}"
        )
    largest = space.largest_entry(start)
    if not 0 < largest < math.inf:
        raise ValueError(f"start must be finite and not zero, got norm {largest}")
    # Squares of tiny or huge entries would be zero or infinite.
    exponent = math.frexp(largest)[1]
    near_one: Tensor = start * 2.0 ** -(exponent // 2) * 2.0 ** -(exponent - exponent // 2)
    near_one /= space.norm(near_one)
    return near_one

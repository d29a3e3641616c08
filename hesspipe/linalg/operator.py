"""Symmetric operators that are known by their products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hesspipe.linalg.orthogonalization import orthogonalize
from hesspipe.seeding import probe_generator
from hesspipe.tolerances import rounding


@dataclass(frozen=True)
class SymmetricProduct:
    """A symmetric operator as the methods of this package use it.

    Attributes
    ----------
    multiply : callable (Tensor (dim,)) -> Tensor (dim,)
    dim : int
    dtype, device
    name : str
        For messages and results, e.g. "hessian"; "operator" by default.
    """

    multiply: Callable[[Tensor], Tensor]
    dim: int
    dtype: torch.dtype
    device: torch.device
    name: str = "operator"


def symmetric_product(operator: Any) -> SymmetricProduct:
    """Wrap any symmetric operator as a product.

    Parameters
    ----------
    operator : SymmetricProduct, or any object with `shape`, `dtype` and `@`
        A tensor, a NumPy or SciPy matrix or LinearOperator, or an operator of
        `hesspipe.curvature`. A SymmetricProduct is returned unchanged, without a check.

    Returns
    -------
    SymmetricProduct

    Raises
    ------
    TypeError
        If it has no shape and dtype.
    ValueError
        If it is not square, real and symmetric; symmetry is tested with two products.
    """
    if isinstance(operator, SymmetricProduct):
        return operator
    product = _foreign_product(operator)
    _check_symmetric(product)
    return product


def _foreign_product(operator: Any) -> SymmetricProduct:
    if not (hasattr(operator, "shape") and hasattr(operator, "dtype")):
        raise TypeError(
            "operator must have shape, dtype and @, as a tensor has, got "
            f"{type(operator).__name__}; hesspipe.eigenpairs, density and estimate_norms take an "
            "Objective, too"
        )
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
    return SymmetricProduct(multiply, shape[0], dtype, device)


def _check_symmetric(product: SymmetricProduct) -> None:
    """Compare a random bilinear form with the same form of exchanged vectors."""
    generator = probe_generator()
    left, right = (random_unit(product, generator) for _ in range(2))
    from_left, from_right = product.multiply(left), product.multiply(right)
    difference = float((left @ from_right - right @ from_left).abs())
    scale = float(from_left.norm() + from_right.norm())
    if not difference <= rounding(scale, product.dtype):
        raise ValueError(
            f"operator must be symmetric, got a bilinear form that differs by {difference:.1e} "
            f"when its vectors are exchanged, where products have norm {scale:.1e}"
        )


def random_normal(product: SymmetricProduct, generator: torch.Generator) -> Tensor:
    """Draw a vector of standard normal numbers (dim,): its direction is uniform."""
    vector = torch.randn(product.dim, generator=generator, dtype=torch.float64)
    return vector.to(product.device, product.dtype)


def random_unit(
    product: SymmetricProduct, generator: torch.Generator, basis: Tensor | None = None
) -> Tensor:
    """Draw a random unit vector (dim,), orthogonal to the rows of a basis."""
    unit = random_normal(product, generator)
    unit /= unit.norm()
    if basis is None or len(basis) == 0:
        return unit
    unit, _, norm = orthogonalize(unit, basis)
    return unit / norm

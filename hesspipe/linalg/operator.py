"""Symmetric operators that are known by their products with vectors.

The squares of numbers below 1e-19 or above 1e19 are zero or infinite in float32. Methods that
compute norms of products therefore divide the operator by a power of two near its size (`scaled`),
which rounds nothing, and multiply their results by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hesspipe.linalg.orthogonalization import orthogonalize
from hesspipe.linalg.vector_space import VectorSpace
from hesspipe.seeding import probe_generator
from hesspipe.tolerances import rounding

# Allowed asymmetry of a random bilinear form. In units of eps of the terms: sums of thousands of
# terms have errors of tens (`hesspipe.tolerances`), and the form averages over them. In units of
# the measured error of a product, divided by sqrt(P): the form multiplies the error with an
# independent random unit vector, so that it is a normal number of that size.
_OF_TERMS = 100.0
_OF_ERROR = 100.0
# Powers of two below this one, and their inverses, are numbers of float32.
_ONE_STEP = 120
# Terms may be so many times larger than products; noise beyond that is no rounding.
_MOST_CANCELED = 100.0


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
    rounding : callable () -> float, optional
        Measures the norm of the rounding error of a product with a unit vector.
    start : callable () -> Tensor or None, optional
        A vector that is likely to lie near the extreme eigenvectors: a search starts from it and
        from a random one of the same length.
    sharded : VectorSpace, optional
        Where the vectors lie, if not in this process as a whole: those that `multiply` takes and
        returns have its length.
    multiply_into : callable (Tensor (dim,), Tensor (dim,)) -> object, optional
        Writes the product with the first into the second, where that saves a copy.
    """

    multiply: Callable[[Tensor], Tensor]
    dim: int
    dtype: torch.dtype
    device: torch.device
    name: str = "operator"
    rounding: Callable[[], float] | None = None
    sharded: VectorSpace | None = None
    start: Callable[[], Tensor | None] | None = None
    multiply_into: Callable[[Tensor, Tensor], object] | None = None

    def write(self, vector: Tensor, image: Tensor) -> None:
        """Write the product with a vector into another one, both (dim,)."""
        if self.multiply_into is None:
            image.copy_(self.multiply(vector))
        else:
            self.multiply_into(vector, image)

    @property
    def space(self) -> VectorSpace:
        """The space of its vectors."""
        return self.sharded or VectorSpace(self.dim)

    @property
    def origin(self) -> dict[str, str]:
        """What a result records of where it was computed."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"dtype": dtype, "device": self.device.type}


@dataclass
class Scaling:
    """The power of two that an operator is divided by.

    Attributes
    ----------
    exponent : int, optional
        That of the largest entry of the first product that is not zero; None before.
    num_products : int
        Products made.
    """

    exponent: int | None = None
    num_products: int = 0

    @property
    def unit(self) -> float:
        """The power of two."""
        return math.ldexp(1.0, self.exponent or 0)


def scaled(product: SymmetricProduct) -> tuple[SymmetricProduct, Scaling]:
    """Divide an operator by a power of two near its size, and check each of its products.

    Parameters
    ----------
    product : SymmetricProduct

    Returns
    -------
    product : SymmetricProduct
        Its `multiply` raises ValueError or TypeError if a product is not a finite real vector of
        the operator's length and precision, or so small that it has lost digits.
    scaling : Scaling
        Its exponent is set by the first product.
    """
    scaling = Scaling()

    def multiply(vector: Tensor, out: Tensor | None = None) -> Tensor:
        image = product.multiply(vector)
        scaling.num_products += 1
        _check_image(product, image, scaling.num_products)
        if scaling.exponent is None:
            largest = product.space.largest_entry(image)
            require_digits(largest, product.dtype, product.name)
            if largest > 0:
                scaling.exponent = math.frexp(largest)[1] - 1
        return _divided(image, scaling.exponent or 0, out)

    return replace(product, multiply=multiply, multiply_into=multiply), scaling


def _divided(image: Tensor, exponent: int, out: Tensor | None) -> Tensor:
    """Divide by a power of two, whose inverse overflows if it is tiny: then in two steps."""
    if abs(exponent) < _ONE_STEP:
        return torch.mul(image, 2.0**-exponent, out=out)
    half = exponent // 2
    return torch.mul(image, 2.0**-half, out=out).mul_(2.0 ** -(exponent - half))


def require_digits(largest: float, dtype: torch.dtype, name: str) -> None:
    """Raise an error for a product that is so small that numbers next to it lose digits.

    Parameters
    ----------
    largest : float
        The largest absolute value of a product.
    dtype : torch.dtype
    name : str
        Of the operator, for the message.

    Raises
    ------
    ValueError
    """
    least = torch.finfo(dtype).tiny / torch.finfo(dtype).eps
    if 0 < largest < least:
        raise ValueError(
            f"the {name} must not be so small that its products lose digits ({least:.0e} in "
            f"{dtype}), got one of {largest:.1e}; multiply the loss by a constant, or compute in "
            "float64"
        )


def _check_image(product: SymmetricProduct, image: Tensor, number: int) -> None:
    if image.dtype != product.dtype:
        raise TypeError(
            f"a product with the {product.name} must be of {product.dtype}, as the operator says, "
            f"got {image.dtype} in product {number}"
        )
    length = product.space.length
    if image.shape != (length,):
        raise ValueError(
            f"a product with the {product.name} must be a vector of length {length}, got "
            f"shape {tuple(image.shape)} in product {number}"
        )
    # The sum is a thirtieth of the work; it may overflow where all entries are finite.
    is_finite = math.isfinite(float(image.sum())) or bool(torch.isfinite(image).all())
    if not product.space.holds(is_finite):
        raise ValueError(
            f"a product with the {product.name} must be finite, got nan or inf in product {number}"
        )


def symmetric_product(operator: Any, size_of_terms: float = 0.0) -> SymmetricProduct:
    """Wrap any symmetric operator as a product.

    Parameters
    ----------
    operator : SymmetricProduct, or any object with `shape`, `dtype` and `@`
        A tensor, a NumPy or SciPy matrix or LinearOperator, or an operator of
        `hesspipe.curvature`. A SymmetricProduct is returned unchanged, without a check.
    size_of_terms : float
        Norm of the numbers of which products are sums or parts, where it is known to be larger
        than theirs: the entries of a small block are as uncertain as those of the whole.

    Returns
    -------
    SymmetricProduct

    Raises
    ------
    TypeError
        If it has no shape, dtype and `@`, or its products are not tensors or arrays.
    ValueError
        If it is not square, real and symmetric, of float64 or float32; symmetry is tested
        with two products, and with a third where they seem not to be.
    """
    if isinstance(operator, SymmetricProduct):
        return operator
    product = _foreign_product(operator)
    _check_symmetric(*scaled(product), size_of_terms)
    return product


def _foreign_product(operator: Any) -> SymmetricProduct:
    needed = ("shape", "dtype", "__matmul__")
    if isinstance(operator, type) or not all(hasattr(operator, name) for name in needed):
        raise TypeError(
            "operator must have shape, dtype and @, as a tensor has, got "
            f"{type(operator).__name__}; hesspipe.eigenpairs, density and estimate_norms take an "
            "Objective, too"
        )
    size = _size(operator.shape)
    is_of_torch = isinstance(operator.dtype, torch.dtype)
    dtype = operator.dtype if is_of_torch else _torch_dtype(operator.dtype)
    if not dtype.is_floating_point:
        raise ValueError(f"operator must be real and of floating point, got dtype {dtype}")
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"operator must be of float64 or float32, got dtype {dtype}; convert it")
    # NumPy's arrays have a `device`, too, and those of libraries like it one of another type.
    device = torch.device(getattr(operator, "device", None) or "cpu" if is_of_torch else "cpu")
    if device.type == "meta":
        raise ValueError("operator must hold numbers, got a tensor on the meta device")
    multiply = _torch_multiply if is_of_torch else _numpy_multiply
    return SymmetricProduct(partial(multiply, operator), size, dtype, device)


def _size(shape: Any) -> int:
    """Return P of a shape (P, P)."""
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, Integral) for n in shape):
        raise TypeError(f"operator must have a shape of two integers, got {shape!r}")
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"operator must be square, got shape {tuple(shape)}")
    if shape[0] == 0:
        raise ValueError("operator must have at least one row, got shape (0, 0)")
    return int(shape[0])


def _torch_multiply(operator: Any, vector: Tensor) -> Tensor:
    image = operator @ vector
    if not isinstance(image, Tensor):
        raise TypeError(
            "a product with the operator must be a tensor, as its dtype is one of torch, got "
            f"{type(image).__name__}"
        )
    return image.detach()


def _numpy_multiply(operator: Any, vector: Tensor) -> Tensor:
    image = np.asarray(operator @ vector.numpy())
    _torch_dtype(image.dtype)
    native: Tensor = torch.from_numpy(image.astype(image.dtype.newbyteorder("="), copy=False))
    return native


def _torch_dtype(dtype: Any) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, dtype=np.dtype(dtype).newbyteorder("="))).dtype
    except TypeError:
        raise ValueError(
            f"operator must be real and of floating point, got dtype {dtype}"
        ) from None


def _check_symmetric(product: SymmetricProduct, scaling: Scaling, size_of_terms: float) -> None:
    """Compare a random bilinear form with the same form of exchanged vectors.

    Terms that cancel in a product leave their rounding in it. It is measured by how far the
    products are from linear, and believed where it is small.
    """
    generator = probe_generator()
    left, right = (random_unit(product, generator) for _ in range(2))
    from_left, from_right = product.multiply(left), product.multiply(right)
    space = product.space
    difference = float((space.inner(left, from_right) - space.inner(right, from_left)).abs())
    scale = float(space.norm(from_left) + space.norm(from_right))
    eps = torch.finfo(product.dtype).eps
    allowed = max(rounding(scale, product.dtype), _OF_TERMS * eps * size_of_terms / scaling.unit)
    if not difference <= allowed:
        error = float(space.norm(product.multiply(left + right) - from_left - from_right))
        believed = min(_MOST_CANCELED * rounding(scale, product.dtype), eps**0.5 * scale)
        allowed = max(allowed, min(_OF_ERROR * error / product.dim**0.5, believed))
    if not difference <= allowed:
        raise ValueError(
            f"operator must be symmetric, got a bilinear form that differs by {difference:.1e} "
            f"when its vectors are exchanged, where products have norm {scale:.1e}"
        )


def random_normal(product: SymmetricProduct, generator: torch.Generator) -> Tensor:
    """Draw a vector of standard normal numbers (dim,): its direction is uniform."""
    return product.space.normal(generator).to(product.device, product.dtype)


def random_unit(
    product: SymmetricProduct, generator: torch.Generator, basis: Tensor | None = None
) -> Tensor:
    """Draw a random unit vector (dim,), orthogonal to the rows of a basis."""
    unit = random_normal(product, generator)
    unit /= product.space.norm(unit)
    if basis is None or len(basis) == 0:
        return unit
    # One pass leaves most of it, unless the basis spans nearly everything.
    unit, _, norm = orthogonalize(unit, basis, product.space, least_passes=1)
    unit /= norm
    return unit

"""A space that grows vector by vector, the products with its basis, and the Ritz pairs in it.

Sums over the entries of float32 vectors are made in blocks that are added in float64. They have six
digits at less than a quarter of the time of `hesspipe.linalg.vector_space`, which has seven: enough
for searches of some tens of products to three to five digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hesspipe.hardware import require
from hesspipe.linalg.lanczos import breakdown
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.orthogonalization import orthogonalize
from hesspipe.linalg.vector_space import VectorSpace, norm, rough_inner

# A vector that Gram-Schmidt shrinks by more is rounding, and leads nowhere.
_ROUNDING_LEFT = 0.1
# A vector that one pass shrinks by more takes a second one.
_SHRUNK = 0.1
# Memory of a space that is kept for the next one.
_MOST_KEPT = 2**30

Floats = NDArray[np.float64]


class BlockSums(VectorSpace):
    """Vectors in this process, with inner products from sums over blocks."""

    def inner(self, rows: Tensor, vectors: Tensor, *, is_rough: bool = False) -> Tensor:
        """Inner products of rows (k, P) with a vector (P,)."""
        return rough_inner(rows, vectors)


@dataclass
class Workspace:
    """Memory for one space after another, where it is small.

    The pages of new memory take a tenth of the time of a search with small products.
    """

    _kept: Tensor | None = None

    def take(self, capacity: int, product: SymmetricProduct) -> Tensor:
        """Return memory for a basis and its products, of shape (2, capacity, P).

        Raises
        ------
        TooLargeError
            If it does not fit.
        """
        shape, kept = (2, capacity, product.dim), self._kept
        if kept is not None and (kept.shape, kept.dtype, kept.device) == (
            shape, product.dtype, product.device,
        ):  # fmt: skip
            return kept
        self._kept = None
        num_bytes = 2 * capacity * product.dim * product.dtype.itemsize
        require(
            num_bytes + product.dim * product.dtype.itemsize,
            f"a basis of {capacity} vectors of length P = {product.dim:,}, and its products,",
            "pass a smaller max_products",
            device=product.device,
        )
        taken = torch.empty(shape, dtype=product.dtype, device=product.device)
        self._kept = taken if num_bytes <= _MOST_KEPT else None
        return taken


@dataclass
class RitzSpace:
    """An orthonormal basis V of m vectors, and what is known of A from the products A V.

    Attributes
    ----------
    product : SymmetricProduct
        A.
    basis, images : Tensor, shape (capacity, P)
        Rows are the basis and its products.
    projected : array, shape (capacity, capacity)
        V^T A V in its first m rows and columns.
    gram : array, shape (capacity, capacity)
        (A V)^T (A V), likewise.
    size : int
        m.
    """

    product: SymmetricProduct
    basis: Tensor
    images: Tensor
    projected: Floats
    gram: Floats
    size: int = 0

    @classmethod
    def begin(cls, product: SymmetricProduct, capacity: int, workspace: Workspace) -> RitzSpace:
        """Begin with no vector, in the memory of a workspace.

        Raises
        ------
        TooLargeError
            If the basis and its products do not fit into memory.
        """
        basis, images = workspace.take(capacity, product)
        return cls(product, basis, images, *np.zeros((2, capacity, capacity)))

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another vector."""
        return self.size == len(self.basis)

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole space."""
        return self.size == self.product.dim

    @property
    def rounding(self) -> float:
        """Norm below which a residual is rounding."""
        return breakdown(float(np.abs(self.projected).max(initial=0.0)), self.product)

    def orthogonal(self, vector: Tensor) -> tuple[Tensor, float]:
        """Make the unit vector of the part that is orthogonal to the basis, and its share."""
        length = float(norm(vector))
        if not length > 0:
            return vector, 0.0
        space = BlockSums(self.product.dim)
        rest, _, left = orthogonalize(
            vector / length, self.basis[: self.size], space, least_passes=1
        )
        return (rest / left if left > 0 else rest), left

    def extend(self, vector: Tensor, least: float = 0.0) -> bool:
        """Add and multiply what is new of a vector, if there is room.

        False if the vector is no longer than `least`, or nothing but rounding of it is new.

        Raises
        ------
        ValueError
            If the product is not finite, or too small for its precision.
        """
        if self.is_full or not float(norm(vector)) > least:
            return False
        unit, left = self.orthogonal(vector)
        if left < _ROUNDING_LEFT:
            return False
        self.append(unit)
        return True

    def append(self, unit: Tensor) -> None:
        """Add and multiply a unit vector that is orthogonal to the basis; see `extend`."""
        size, space = self.size, BlockSums(self.product.dim)
        self.basis[size] = unit
        image = self.product.multiply(self.basis[size])  # (P,)
        require_ordinary(float(norm(image)), self.product)
        self.images[size] = image
        for matrix, rows in ((self.projected, self.basis), (self.gram, self.images)):
            column = space.inner(rows[: size + 1], image).double().cpu().numpy()
            matrix[: size + 1, size] = matrix[size, : size + 1] = column
        self.size += 1

    def rest(self) -> tuple[Tensor, float]:
        """Make the unit vector of what is new in the last product, and its norm in that product."""
        image, basis = self.images[self.size - 1], self.basis[: self.size]
        column = torch.from_numpy(self.projected[: self.size, self.size - 1]).to(basis)
        vector = image - column @ basis
        length, before = float(norm(vector)), float(norm(image))
        if length > _SHRUNK * before:
            return vector / length, length
        unit, left = self.orthogonal(vector)
        return unit, length * left

    def matrix(self) -> Floats:
        """V^T A V, of shape (m, m)."""
        return self.projected[: self.size, : self.size]

    def excess(self) -> Floats:
        """R^T R of the residuals R = A V - V (V^T A V), of shape (m, m)."""
        found: Floats = self.gram[: self.size, : self.size] - self.matrix() @ self.matrix()
        return found

    def rows(self, coefficients: Floats) -> Tensor:
        """Combine the basis by columns of coefficients (m, k): rows (k, P)."""
        weights = torch.from_numpy(coefficients.T.copy()).to(self.basis)
        found: Tensor = weights @ self.basis[: self.size]
        return found

    def residuals(self, coefficients: Floats) -> Tensor:
        """Combine the columns of R by columns of coefficients (m, k): rows (k, P)."""
        weights = torch.from_numpy(coefficients.T.copy()).to(self.images)
        inside = self.rows(self.matrix() @ coefficients)
        return torch.addmm(inside, weights, self.images[: self.size], beta=-1)


def require_ordinary(size: float, product: SymmetricProduct) -> None:
    """Refuse products whose squares overflow or underflow: `scaled` would cost two more passes."""
    limits = torch.finfo(product.dtype)
    if not math.isfinite(size):
        raise ValueError(f"a product with the {product.name} must be finite, got norm {size}")
    if 0 < size < math.sqrt(limits.tiny) / limits.eps:
        raise ValueError(
            f"products with the {product.name} must not be so small that their squares lose digits "
            f"in {product.dtype}, got one of norm {size:.1e}; multiply the loss by a constant, or "
            "compute in float64"
        )

"""A space that grows vector by vector, and the Ritz pairs and residuals in it.

Of the products with its basis V only what leaves the space is kept, which is little. Each residual
R = A V - V M is a combination of a few open ones,

    A V = V M + F G,

where F has a column for each vector that the space began with: one that is added because it is a
residual closes one column, and its product opens another. With a single vector this is the Lanczos
relation. A step takes one pass of Gram-Schmidt over the basis and none over the products; residual
norms follow from F^T F, without the cancellation of |A v|^2 - |M v|^2.

Sums over the entries of float32 vectors are made in blocks that are added in float64. They have six
digits at less than a quarter of the time of `hesspipe.linalg.vector_space`, which has seven: enough
for searches of some tens of products to three to five digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
# Residuals that become so much smaller are measured anew, instead of by differences of squares.
_SHRUNK = 0.1
# A residual that is so small, in units of the largest entry of M, is not orthogonal to the basis:
# it has the rounding errors of products.
_CANCELED = 0.03
# A vector whose norm is 1 up to so many eps is a unit vector.
_UNIT = 8.0
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
        """Return memory for a basis and its open residuals, of shape (2, capacity, P).

        Of the latter there are few, and a CPU's memory is taken only where it is written.

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
            f"a basis of {capacity} vectors of length P = {product.dim:,}, and its residuals,",
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
    basis, open : Tensor, shape (capacity, P)
        V^T of the module docstring in the first m rows of the one, and F^T in the first p of the
        other. The latter are orthogonal to the basis, but not to each other.
    projected : array, shape (capacity, capacity)
        M = V^T A V in its first m rows and columns.
    shares : array, shape (p, m)
        G.
    gram : array, shape (p, p)
        F^T F.
    size : int
        m.
    """

    product: SymmetricProduct
    basis: Tensor
    open: Tensor
    projected: Floats
    shares: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    gram: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    size: int = 0

    @classmethod
    def begin(cls, product: SymmetricProduct, capacity: int, workspace: Workspace) -> RitzSpace:
        """Begin with no vector, in the memory of a workspace.

        Raises
        ------
        TooLargeError
            If the basis and its open residuals do not fit into memory.
        """
        basis, residuals = workspace.take(capacity, product)
        return cls(product, basis, residuals, np.zeros((capacity, capacity)))

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
        """Make the unit vector of the part that is orthogonal to the basis, and its share.

        It lies where the next vector of the basis does, if there is room.
        """
        unit, length = self._next(), float(norm(vector))
        if not length > 0:
            return unit.zero_(), 0.0
        torch.div(vector, length, out=unit)
        if self.size == 0:
            return unit, 1.0
        space = BlockSums(self.product.dim)
        rest, _, left = orthogonalize(unit, self.basis[: self.size], space, least_passes=1)
        return (torch.div(rest, left, out=unit) if left > 0 else unit.zero_()), left

    def _next(self) -> Tensor:
        """Memory of the next vector of the basis, or new memory if there is none."""
        return torch.empty_like(self.basis[0]) if self.is_full else self.basis[self.size]

    def extend(self, vector: Tensor) -> bool:
        """Add and multiply what is new of a vector, if there is room and it is not rounding.

        Raises
        ------
        ValueError
            If the product is not finite, or too small for its precision.
        """
        if self.is_full:
            return False
        unit, left = self.orthogonal(vector)
        if left < _ROUNDING_LEFT:
            return False
        self.append(unit)
        return True

    def extend_by_residual(self, coefficients: Floats) -> bool:
        """Add and multiply the residual of a combination (m,) of the basis, likewise."""
        if self.is_full:
            return False
        unit, length = self.residual(coefficients)
        if length <= self.rounding:
            return False
        self.append(unit, self.shares @ coefficients)
        return True

    def residual(self, coefficients: Floats) -> tuple[Tensor, float]:
        """Make the unit vector of the residual of a combination (m,) of the basis, and its norm.

        It lies where the next vector of the basis does, if there is room.
        """
        weights = self.shares @ coefficients  # (p,)
        length = float(self._lengths(weights[:, None])[0])
        vector = self._next()
        if length == 0:
            return vector.zero_(), 0.0
        share = torch.from_numpy(weights / length).to(vector)
        torch.mv(self.open[: len(weights)].T, share, out=vector)
        if (left := float(norm(vector))) == 0:
            return vector, 0.0
        if abs(left - 1) > _UNIT * torch.finfo(vector.dtype).eps:
            vector /= left
        length *= left
        if length > _CANCELED * float(np.abs(self.matrix()).max()):
            return vector, length
        unit, left = self.orthogonal(vector)
        return unit, length * left if left >= _ROUNDING_LEFT else 0.0

    def append(self, unit: Tensor, closed: Floats | None = None) -> None:
        """Add and multiply a unit vector that is orthogonal to the basis; see `extend`.

        It closes a residual if it is the combination (p,) `closed` of open ones.
        """
        self._remove(unit, closed)
        size, place = self.size, len(self.shares)
        if unit.data_ptr() != self.basis[size].data_ptr():
            self.basis[size] = unit
        column, products = self._open(self.product.multiply(self.basis[size]), place)
        self.projected[: size + 1, size] = self.projected[size, : size + 1] = column
        self.size += 1
        self.shares, self.gram = np.pad(self.shares, (0, 1)), np.pad(self.gram, (0, 1))
        self.shares[place, size] = 1.0  # (p + 1, m + 1)
        self.gram[place] = self.gram[:, place] = products

    def _remove(self, unit: Tensor, closed: Floats | None) -> None:
        """Make the open residuals orthogonal to a vector, which may be one of them."""
        if len(self.shares) == 0:
            return
        if closed is not None:
            # The combination is zero now: the one that it has most of is one of the others.
            parts = np.abs(closed) * np.sqrt(self.gram.diagonal())
            gone, last = int(parts.argmax()), len(closed) - 1
            self.shares = self.shares - np.outer(closed / closed[gone], self.shares[gone])
            if gone < last:
                self.open[gone] = self.open[last]
            kept = [last if place == gone else place for place in range(last)]
            self.shares, self.gram = self.shares[kept], self.gram[np.ix_(kept, kept)]
        rows = self.open[: len(self.shares)]
        if len(rows):
            along = BlockSums(self.product.dim).inner(rows, unit)  # (p,)
            rows.addr_(along, unit, alpha=-1)
            numbers = along.double().cpu().numpy()
            before, self.gram = self.gram, self.gram - np.outer(numbers, numbers)
            if (self.gram.diagonal() <= _SHRUNK**2 * before.diagonal()).any():
                self.gram = np.stack([self._products(row, len(rows)) for row in rows])

    def _products(self, vector: Tensor, number: int) -> Floats:
        """Inner products of the first open residuals with a vector."""
        found = BlockSums(self.product.dim).inner(self.open[:number], vector)
        products: Floats = found.double().cpu().numpy()
        return products

    def _open(self, image: Tensor, place: int) -> tuple[Floats, Floats]:
        """Note what a product has outside of the space.

        Returns its components inside, (m + 1,), and the inner products of the new residual with all
        open ones, (p + 1,).
        """
        rows, vector = self.basis[: self.size + 1], self.open[place]
        column = BlockSums(self.product.dim).inner(rows, image)
        torch.addmv(image, rows.T, column, alpha=-1, out=vector)
        found = column.double().cpu().numpy()
        products = self._products(vector, place + 1)
        length = math.hypot(float(np.linalg.norm(found)), math.sqrt(products[-1]))
        require_ordinary(length, self.product)
        return found, products

    def matrix(self) -> Floats:
        """V^T A V, of shape (m, m)."""
        return self.projected[: self.size, : self.size]

    def excess(self) -> Floats:
        """R^T R of the residuals R = A V - V (V^T A V), of shape (m, m)."""
        found: Floats = self.shares.T @ self.gram @ self.shares
        return found

    def residual_norms(self, coefficients: Floats) -> Floats:
        """Residual norms (k,) of combinations of the basis by columns of coefficients (m, k)."""
        return self._lengths(self.shares @ coefficients)

    def _lengths(self, weights: Floats) -> Floats:
        """Norms (k,) of combinations of open residuals by columns of weights (p, k)."""
        squares = np.einsum("ik,ij,jk->k", weights, self.gram, weights)
        lengths: Floats = np.sqrt(np.maximum(squares, 0.0))
        return lengths

    def rows(self, coefficients: Floats) -> Tensor:
        """Combine the basis by columns of coefficients (m, k): rows (k, P)."""
        weights = torch.from_numpy(coefficients.T.copy()).to(self.basis)
        found: Tensor = weights @ self.basis[: self.size]
        return found


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

"""The basis of a Lanczos process, whole or rounded to half of its bits.

Where memory has no room for the basis Q, its rows before the last two are kept in half of their
bits, as q_j + d_j: float16 for float32, float32 for float64. The tridiagonal T is as good then:

1. A new vector is made orthogonal to all q_j + d_j, and its part in the space of the q_j is at most
   w = |D|, with the d_j as rows of D: 2^-11 or 2^-24 times the root of their number.
2. Gram-Schmidt makes an orthonormal N of Q, with Q = L N and a lower triangular L. The terms H by
   which the recurrence differs from T, where a new vector is made orthogonal to earlier ones, lie
   above the diagonals of T. Hence

       N A N^T  =  L^T (T + H) L^-T,

   whose diagonal and subdiagonal have no term of H, and of L only the diagonal, 1 but for w^2, and
   the products of neighbors. Those are zero to full precision if the last two rows are whole, but
   for w^2. The matrix is symmetric, so that the rest follows.

T is therefore the projection of A on the Krylov space but for 4 w^2 |A|, a bound that is below the
rounding which `hesspipe.linalg.spectral_density.Density.resolution` assumes anyway. No eigenvalue
is found twice, as it is without reorthogonalization. Scalar products with Ritz vectors hold to
some w only, which is too little to count eigenvalues exactly by them.

References
----------
Simon (1984), The Lanczos algorithm with partial reorthogonalization, Mathematics of Computation 42.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.orthogonalization import ENOUGH, orthogonalize

HALF_OF = {torch.float64: torch.float32, torch.float32: torch.float16}
# Entries of all rows that are made whole again at once, in a few MB that stay in the cache. BLAS
# adds so many products in float32 with an error of some eps, far below that of the rows.
_ENTRIES_AT_ONCE = 2**14
# Passes over all rows, as of `orthogonalize`.
_MOST_PASSES = 5
# Scaled by at most this power of two, no entry of a unit vector overflows in float16.
_LARGEST_EXPONENT = 15


class LanczosBasis:
    """Orthonormal rows that are appended one by one.

    Parameters
    ----------
    product : SymmetricProduct
    capacity : int
        Number of rows.

    Attributes
    ----------
    size : int
    """

    def __init__(self, product: SymmetricProduct, capacity: int) -> None:
        self.space, self.size = product.space, 0
        self._vectors = _empty(capacity, self.space.length, product, product.dtype)

    @property
    def rows(self) -> Tensor:
        """The rows so far that are whole and in one place, (size, length)."""
        return self._vectors[: self.size]

    def append(self, row: Tensor) -> Tensor:
        """Append a unit vector (length,) that is orthogonal to the rows, and return it."""
        self._vectors[self.size] = row
        self.size += 1
        return row

    def orthogonalize(self, vector: Tensor) -> tuple[Tensor, Tensor, float]:
        """See `hesspipe.linalg.orthogonalization.orthogonalize`."""
        return orthogonalize(vector, self.rows, self.space)

    def asymmetry(self, coefficients: Tensor, last_norm: float, scale: float) -> float:
        """Norm of what the coefficients of a product with the last row have and symmetry forbids.

        Parameters
        ----------
        coefficients : Tensor, shape (size,)
            All but the last two are zero for a symmetric operator.
        last_norm : float
            What the last but one is then.
        scale : float
            Of the operator.
        """
        upper = coefficients[:-1].double()  # (size - 1,)
        if len(upper) == 0:
            return 0.0
        return math.hypot(float(upper[:-1].norm()), float(upper[-1]) - last_norm)

    def deviation(self, scale: float) -> float:
        """By how much T may differ from the projection beside rounding, as a norm of a column.

        Parameters
        ----------
        scale : float
            Of the operator.
        """
        return 0.0


class RoundedBasis(LanczosBasis):
    """The same with rows in half of their bits, but the last two; see the module docstring."""

    def __init__(self, product: SymmetricProduct, capacity: int) -> None:
        half = HALF_OF[product.dtype]
        super().__init__(product, 0)
        num_rounded, length = max(0, capacity - 2), product.space.length
        self._rounded = _empty(num_rounded, length, product, half)
        self._last = _empty(2, length, product, product.dtype)
        # One array for all blocks: mapping new memory for each would take longer than the products.
        self._whole = _empty(num_rounded, min(length, _ENTRIES_AT_ONCE), product, product.dtype)
        # Entries of about one have all digits of float16.
        exponent = min(_LARGEST_EXPONENT, math.ceil(math.log2(product.dim) / 2))
        self._unit = 2.0**exponent if half == torch.float16 else 1.0
        self._unit_roundoff = torch.finfo(half).eps / 2

    def append(self, row: Tensor) -> Tensor:
        """Append a unit vector (length,), round the last row but one, and return the new one."""
        if self.size >= 2:
            torch.mul(self._last[0], self._unit, out=self._last[0])
            self._rounded[self.size - 2] = self._last[0]
        self._last[0] = self._last[1]
        self._last[1] = row
        self.size += 1
        return self._last[1]

    def orthogonalize(self, vector: Tensor) -> tuple[Tensor, Tensor, float]:
        """Remove first what is along the last two rows, which is almost all, then the rest.

        The argument is overwritten: there is no room for another vector.
        """
        of_last, of_rounded = self._remove_last(vector), vector.new_zeros(self._num_rounded)
        norm = float(self.space.norm(vector))
        for _ in range(_MOST_PASSES):
            before = norm
            of_rounded += self._remove(vector)
            of_last += self._remove_last(vector)
            norm = float(self.space.norm(vector))
            if norm >= ENOUGH * before or norm == 0:
                break
        return vector, torch.cat([of_rounded, of_last]), norm

    def asymmetry(self, coefficients: Tensor, last_norm: float, scale: float) -> float:
        """See `LanczosBasis`.

        The coefficients of rounded rows are not zero but for rounding. How far the last one is from
        what it should be stands for them.
        """
        upper = coefficients[:-1].double()
        if len(upper) == 0:
            return 0.0
        of_rounded = max(0.0, float(upper[:-1].norm()) - self._loss * scale)
        of_last = math.sqrt(len(upper)) * (float(upper[-1]) - last_norm)
        return math.hypot(of_rounded, of_last)

    def deviation(self, scale: float) -> float:
        """See `LanczosBasis`: a quarter of the bound, as asymmetries are of what they stand for."""
        return self._loss**2 * scale

    @property
    def _loss(self) -> float:
        """Bound w of the part of a new vector in the space of the rounded rows."""
        return self._unit_roundoff * math.sqrt(self._num_rounded)

    @property
    def _num_rounded(self) -> int:
        return max(0, self.size - 2)

    def _remove_last(self, vector: Tensor) -> Tensor:
        """Subtract what is along the last rows, in place; return the coefficients."""
        rows = self._last[-min(self.size, 2) :]
        found = self.space.inner(rows, vector)
        vector.addmv_(rows.T, found, alpha=-1)
        return found

    def _remove(self, vector: Tensor) -> Tensor:
        """Subtract what is along the rounded rows, in place; return the coefficients."""
        own = vector.new_zeros(self._num_rounded, dtype=torch.float64)
        for rows, entries in self._blocks(vector):
            own += rows @ entries
        found = (self.space.sum(own) / self._unit).to(vector)
        for rows, entries in self._blocks(vector):
            entries.addmv_(rows.T, found / self._unit, alpha=-1)
        return found

    def _blocks(self, vector: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some entries of the rounded rows, whole until the next ones, and those of a vector."""
        rounded = self._rounded[: self._num_rounded]
        for rows, entries in zip(
            rounded.split(_ENTRIES_AT_ONCE, dim=1), vector.split(_ENTRIES_AT_ONCE), strict=True
        ):
            whole = self._whole.flatten()[: rows.numel()].view(rows.shape)
            yield whole.copy_(rows), entries


def _empty(num_rows: int, length: int, product: SymmetricProduct, dtype: torch.dtype) -> Tensor:
    return torch.empty(num_rows, length, dtype=dtype, device=product.device)

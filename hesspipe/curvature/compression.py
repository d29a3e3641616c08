"""H, G and R of a network of Linear layers, restricted to a subspace that contains their range.

Let L be the largest layer, and A and Y as in `hesspipe.curvature.factors`. With the rows of A split
into A_L and A_o, and

    [A_L, Y] = Q [R_A, R_Y]         Q orthonormal, R_A and R_Y from a Householder factorization

the matrix M in the orthonormal basis [Q, E] of a subspace outside which it is zero is

    T = [ R_A D R_A^T             R_A D A_o^T + R_Y                ]
        [ A_o D R_A^T + R_Y^T     A_o D A_o^T + R_(other,other)    ]

The eigenvalues of T and M agree to eps ||M||, because the factorization is backward stable in every
column. A Cholesky factorization of [A_L, Y]^T [A_L, Y], which is cheaper, would lose half of the
digits: where a direction adds and subtracts much to an eigenvalue near zero, its error is
sqrt(eps) ||M||.

[A_L, Y] is formed and factorized in blocks of rows, and Q never. In a unit of L, A_L is the product
of the transposed inputs with a number for each sample and direction, which is zero where a ReLU is.
If X = (Q' R')^T are the inputs of the samples for which it is not, Q'^T times the unit's rows has

    R'[k,n] B_L[n,c]     in row k and column (n,c), which is zero for all samples before the k-th

and rows that begin with zeros enter the factorization where these end: a third of the work, of
fewer rows. Rotating the rows changes no R.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dtpqrt
from torch import Tensor

from hesspipe.curvature.factors import Factors
from hesspipe.errors import InconsistentMatrixError
from hesspipe.hardware import zeros

# Matrix products with this many columns run at the processor's speed; a panel's own does not.
_COLUMNS_AT_ONCE = 128
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Compression:
    """M in the basis [Q, E], and other vectors in the same basis.

    Attributes
    ----------
    values : Tensor, shape (K, K)
        T.
    coordinates : Tensor, shape (V, K)
        The vectors' components in the subspace.
    outside : Tensor, shape (V,)
        Norms of what is left of them.
    """

    values: Tensor
    coordinates: Tensor
    outside: Tensor


def compress(factors: Factors, vectors: Tensor) -> Compression:
    """Restrict the matrix to the subspace, and express vectors in the subspace's basis.

    Parameters
    ----------
    factors : Factors
    vectors : Tensor, shape (V, P)
        In theta's coordinates.

    Returns
    -------
    Compression
    """
    reduced, lost = _reduce(factors, vectors)  # (V, U, K), (V,)
    triangle = _triangle(factors, reduced)  # (at most N r + Q + V, N r + Q + V)
    num_sampled = factors.num_sampled
    num_columns = num_sampled + len(factors.kept)
    num_spanned = min(num_columns, factors.num_reduced)
    spanned, rest = triangle[:num_spanned], triangle[num_spanned:, num_columns:]
    sampled, coupled = spanned[:, :num_sampled], spanned[:, num_sampled:num_columns]
    signs, outer = factors.signs.flatten(), _other_rows(factors)  # (N r), (N r, P_2)
    size = num_spanned + len(factors.positions)
    values = triangle.new_zeros(size, size)
    inner, cross = slice(None, num_spanned), slice(num_spanned, None)
    _square(sampled, signs, values[inner, inner])
    torch.mm(outer.mT * signs, sampled.mT, out=values[cross, inner])
    values[num_spanned + factors.kept, inner] += coupled.mT
    values[inner, cross] = values[cross, inner].mT
    values[cross, cross] = (outer.mT * signs) @ outer + factors.inner
    coordinates = torch.cat([spanned[:, num_columns:].mT, vectors[:, factors.positions]], 1)
    return Compression(values, coordinates, torch.hypot(lost, rest.norm(dim=0)))


def _square(triangle: Tensor, signs: Tensor, out: Tensor) -> None:
    """R D R^T of upper triangular R, in blocks that leave out the zeros and half of the result."""
    for start in range(0, len(triangle), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(triangle))
        rows = triangle[start:stop, start:] * signs[start:]
        out[start:stop, :stop] = rows @ triangle[:stop, start:].mT
        out[:start, start:stop] = out[start:stop, :start].mT


def _reduce(factors: Factors, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate vectors in the largest layer to its reduced inputs; the norms of what is left."""
    layer = factors.largest
    weights = vectors[:, layer.weights].unflatten(1, (layer.num_units, layer.num_inputs))
    biases = vectors[:, layer.biases].unsqueeze(2)
    rows = torch.cat([weights, biases], 2) if layer.bias is not None else weights
    reduced = rows @ factors.reduction
    lost = rows - reduced @ factors.reduction.mT
    return reduced, lost.flatten(1).norm(dim=1)


def _triangle(factors: Factors, vectors: Tensor) -> Tensor:
    """R of [A_L, Y, vectors] = Q R, by blocks of about as many rows as there are columns."""
    num_columns = factors.num_sampled + len(factors.kept) + len(vectors)
    units = torch.arange(factors.largest.num_units, device="cpu")
    if factors.num_reduced <= num_columns:
        rows = torch.cat([_rows(factors, vectors, int(unit))[0] for unit in units])
        whole: Tensor = torch.linalg.qr(rows, mode="r").R
        return whole
    num_inputs = factors.reduction.shape[1]
    triangle = zeros(vectors, num_columns, num_columns)
    for some in units.split(-(-num_columns // num_inputs)):
        rows = vectors.new_empty(len(some) * num_inputs, num_columns)
        starts = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
        for number, unit in enumerate(some):
            part = slice(number * num_inputs, (number + 1) * num_inputs)
            rows[part], starts[part] = _rows(factors, vectors, int(unit))
        starts, order = starts.sort()
        _absorb(triangle, rows[order], starts)
    return triangle


def _rows(factors: Factors, vectors: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Rotated rows of [A_L, Y, vectors] for one unit of the largest layer: (K, columns).

    Also the column before which each row is zero. The inputs are rotated so that those of the
    samples that reach the unit, in their order, are a triangle: Q R is the product of their
    transpose.
    """
    inputs = factors.inputs[factors.largest.name]  # (N, K)
    slopes = factors.whitened[:, :, factors.largest.first_unit + unit]  # (N, r)
    reached = slopes.any(1).nonzero().flatten()
    rotation, corner = torch.linalg.qr(inputs[reached].mT, mode="complete")  # (K, K), (K, n)
    sampled = inputs.new_zeros(inputs.shape[1], *slopes.shape)  # (K, N, r)
    sampled[:, reached] = corner.unsqueeze(2) * slopes[reached]
    others = torch.cat([factors.coupling[:, unit], vectors[:, unit]])  # (Q + V, K)
    starts = torch.full_like(inputs[0], factors.num_sampled, dtype=torch.int64)
    leading = reached[: len(starts)]
    starts[: len(leading)] = leading * slopes.shape[1]
    return torch.cat([sampled.flatten(1), (others @ rotation).mT], 1), starts


def _absorb(triangle: Tensor, rows: Tensor, starts: Tensor) -> None:
    """Replace the triangle by R of [triangle; rows] = Q R, and the rows by anything.

    Parameters
    ----------
    triangle : Tensor, shape (n, n)
    rows : Tensor, shape (m, n)
    starts : Tensor, shape (m,)
        The column before which a row is zero, ascending: a panel of columns takes the first rows
        only.
    """
    size = len(triangle)
    for start in range(0, size, _COLUMNS_AT_ONCE):
        stop = min(start + _COLUMNS_AT_ONCE, size)
        few = rows[: int(torch.searchsorted(starts, stop))]
        if len(few) == 0:
            continue
        corner = triangle[start:stop, start:stop]
        upper, lower, scales = _panel(corner, few[:, start:stop])
        corner.copy_(upper)
        # Q^T = 1 - [1; V] T^T [1; V]^T, of the columns to the right
        above, below = triangle[start:stop, stop:], few[:, stop:]
        changes = scales.mT @ torch.addmm(above, lower.mT, below)
        above -= changes
        below.addmm_(lower, changes, alpha=-1)


def _panel(corner: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R, V and T of [corner; rows] = (1 - [1; V] T [1; V]^T) [R; 0], where corner is a triangle."""
    upper, lower, scales, info = dtpqrt(
        0,
        len(corner),
        np.asfortranarray(corner.numpy(force=True)),
        np.asfortranarray(rows.numpy(force=True)),
        overwrite_b=1,
    )
    if info != 0:
        raise InconsistentMatrixError(f"dtpqrt refused its argument {-info}")
    return _tensor(upper, corner), _tensor(lower, corner), _tensor(scales, corner)


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like)


def _other_rows(factors: Factors) -> Tensor:
    """A^T in the parameters of the other layers: (N r, P_2)."""
    columns = [factors.whitened.new_empty(factors.num_sampled, 0)]
    for layer in factors.others:
        slopes = factors.whitened[:, :, layer.units]
        inputs = factors.inputs[layer.name]
        outer = slopes.unsqueeze(3) * inputs[:, None, None, : layer.num_inputs]  # (N, r, U, K)
        columns.append(outer.flatten(2).flatten(0, 1))
        if layer.bias is not None:
            columns.append(slopes.flatten(0, 1))
    return torch.cat(columns, 1)

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

[A_L, Y] is formed and factorized in blocks of rows, and Q never.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dtpqrt
from torch import Tensor

from hesspipe.curvature.factors import Factors
from hesspipe.errors import InconsistentMatrixError

# Measured for 2,400 columns on one core: 1.15, 1.12, 1.0 and 0.94 s for 32, 64, 128 and 192, and
# 1.5 s where the triangle is a full matrix.
_COLUMNS_AT_ONCE = 192


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
    torch.mm(sampled * signs, sampled.mT, out=values[inner, inner])
    torch.mm(outer.mT * signs, sampled.mT, out=values[cross, inner])
    values[num_spanned + factors.kept, inner] += coupled.mT
    values[inner, cross] = values[cross, inner].mT
    values[cross, cross] = (outer.mT * signs) @ outer + factors.inner
    coordinates = torch.cat([spanned[:, num_columns:].mT, vectors[:, factors.positions]], 1)
    return Compression(values, coordinates, torch.hypot(lost, rest.norm(dim=0)))


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
    """R of [A_L, Y, vectors] = Q R, by blocks of at least as many rows as there are columns."""
    num_columns = factors.num_sampled + len(factors.kept) + len(vectors)
    step = -(-num_columns // max(1, factors.reduction.shape[1]))
    triangle: Tensor | None = None
    for units in torch.arange(factors.largest.num_units, device="cpu").split(step):
        rows = torch.cat([_rows(factors, vectors, int(unit)) for unit in units])
        if triangle is None:
            triangle = torch.linalg.qr(rows, mode="r").R
        else:
            triangle = _extended(triangle, rows)
    assert triangle is not None
    return triangle


def _extended(triangle: Tensor, rows: Tensor) -> Tensor:
    """R of [triangle; rows] = Q R."""
    if rows.device.type != "cpu":
        whole: Tensor = torch.linalg.qr(torch.cat([triangle, rows]), mode="r").R
        return whole
    # LAPACK skips the zeros of the triangle, which saves two fifths of the work.
    upper, _, _, info = dtpqrt(
        0,
        min(_COLUMNS_AT_ONCE, rows.shape[1]),
        np.asfortranarray(triangle.numpy()),
        np.asfortranarray(rows.numpy()),
        overwrite_a=1,
        overwrite_b=1,
    )
    if info != 0:
        raise InconsistentMatrixError(f"dtpqrt refused its argument {-info}")
    return torch.from_numpy(np.ascontiguousarray(upper))


def _rows(factors: Factors, vectors: Tensor, unit: int) -> Tensor:
    """Rows of [A_L, Y, vectors] for one unit of the largest layer: (K, columns)."""
    inputs = factors.inputs[factors.largest.name]  # (N, K)
    slopes = factors.whitened[:, :, factors.largest.first_unit + unit]  # (N, r)
    sampled = (inputs.mT.unsqueeze(2) * slopes).flatten(1)
    return torch.cat([sampled, factors.coupling[:, unit].mT, vectors[:, unit].mT], 1)


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

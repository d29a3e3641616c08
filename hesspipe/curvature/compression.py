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

and rows that begin with zeros enter the factorization where these end. Rotating the rows changes no
R. The columns' order does not matter, so samples that reach few units come first, and more rows
begin with more zeros. About as many as there are columns are rows of a first R as they are. This
leaves about a quarter of the work, of fewer rows.
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
# Within a panel, LAPACK factorizes as many columns at once.
_PANEL_COLUMNS = 32


@dataclass(frozen=True)
class _Sampled:
    """The non-zero columns of A, in the order in which they are factorized.

    Attributes
    ----------
    samples : Tensor, shape (n,)
        The sample of each; those of one sample are next to each other.
    slopes : Tensor, shape (n, D)
        The directions' derivatives by all pre-activations.
    signs : Tensor, shape (n,)
        Their entries in D.
    """

    samples: Tensor
    slopes: Tensor
    signs: Tensor

    def reaching(self, unit: int) -> tuple[Tensor, Tensor]:
        """The samples that reach a unit, in their order, and their first columns that do."""
        hit = self.slopes[:, unit].nonzero().flatten()
        samples, counts = self.samples[hit].unique_consecutive(return_counts=True)
        return samples, hit[counts.cumsum(0) - counts]


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
    columns = _sampled_columns(factors)
    triangle = _triangle(factors, columns, reduced)  # (at most n + Q + V, n + Q + V)
    num_sampled = len(columns.samples)
    num_columns = num_sampled + len(factors.kept)
    num_spanned = min(num_columns, factors.num_reduced)
    spanned, rest = triangle[:num_spanned], triangle[num_spanned:, num_columns:]
    sampled, coupled = spanned[:, :num_sampled], spanned[:, num_sampled:num_columns]
    signs, outer = columns.signs, _other_rows(factors, columns)  # (n,), (n, P_2)
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


def _sampled_columns(factors: Factors) -> _Sampled:
    """The non-zero columns of A; samples that reach the fewest units for their columns first."""
    is_used = factors.whitened.any(2)  # (N, r)
    num_reached = factors.whitened[:, :, factors.largest.units].any(1).sum(1)
    order = (num_reached / is_used.sum(1).clamp(min=1)).argsort(stable=True)
    numbers, directions = is_used[order].nonzero().unbind(1)
    samples = order[numbers]
    return _Sampled(
        samples, factors.whitened[samples, directions], factors.signs[samples, directions]
    )


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


def _triangle(factors: Factors, columns: _Sampled, vectors: Tensor) -> Tensor:
    """R of [A_L, Y, vectors] = Q R, by blocks of about as many rows as there are columns."""
    num_columns = len(columns.samples) + len(factors.kept) + len(vectors)
    units = torch.arange(factors.largest.num_units, device="cpu")
    if factors.num_reduced <= num_columns:
        rows = torch.cat([_rows(factors, columns, vectors, int(unit)) for unit in units])
        whole: Tensor = torch.linalg.qr(rows, mode="r").R
        return whole
    num_inputs = factors.reduction.shape[1]
    triangle = zeros(vectors, num_columns, num_columns)
    for some in units.split(-(-num_columns // num_inputs)):
        rows, starts = _sorted_rows(factors, columns, vectors, some.tolist())
        if some[0] == 0:
            rows, starts = _begin(triangle, rows, starts)
        _absorb(triangle, rows, starts)
    return triangle


def _sorted_rows(
    factors: Factors, columns: _Sampled, vectors: Tensor, units: list[int]
) -> tuple[Tensor, Tensor]:
    """Rows of some units, those that begin with more zeros later, and how many these are."""
    num_inputs = factors.reduction.shape[1]
    starts = columns.samples.new_full((len(units), num_inputs), len(columns.samples))
    for row, unit in zip(starts, units, strict=True):
        firsts = columns.reaching(factors.largest.first_unit + unit)[1][:num_inputs]
        row[: len(firsts)] = firsts
    ordered, order = starts.flatten().sort()
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    num_columns = len(columns.samples) + len(factors.kept) + len(vectors)
    rows = vectors.new_empty(len(order), num_columns)
    for unit, targets in zip(units, places.split(num_inputs), strict=True):
        rows[targets] = _rows(factors, columns, vectors, unit)
    return rows, ordered


def _rows(factors: Factors, columns: _Sampled, vectors: Tensor, unit: int) -> Tensor:
    """Rotated rows of [A_L, Y, vectors] for one unit of the largest layer: (K, columns).

    The inputs are rotated so that those of the samples that reach the unit, in their order, are a
    triangle: Q R is the product of their transpose.
    """
    inputs = factors.inputs[factors.largest.name]  # (N, K)
    position = factors.largest.first_unit + unit
    reached, _ = columns.reaching(position)
    rotation, corner = torch.linalg.qr(inputs[reached].mT, mode="complete")  # (K, K), (K, n)
    rotated = zeros(inputs, *inputs.shape[::-1])  # (K, N)
    rotated[:, reached] = corner
    sampled = rotated.index_select(1, columns.samples).mul_(columns.slopes[:, position])
    others = torch.cat([factors.coupling[:, unit], vectors[:, unit]])  # (Q + V, K)
    return torch.cat([sampled, (others @ rotation).mT], 1)


def _begin(triangle: Tensor, rows: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Move to a triangle of zeros the rows that begin with enough zeros; return the others."""
    begun, row, firsts = [], 0, starts.tolist()
    for place in range(len(triangle)):
        while row < len(firsts) and firsts[row] < place:
            row += 1
        if row == len(firsts):
            break
        begun.append(row)
        row += 1
    taken = torch.tensor(begun, dtype=torch.int64, device=rows.device)
    torch.index_select(rows, 0, taken, out=triangle[: len(begun)])
    is_left = torch.ones_like(starts, dtype=torch.bool)
    is_left[taken] = False
    return rows[is_left], starts[is_left]


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
    """R, V and T of [corner; rows] = (1 - [1; V] T [1; V]^T) [R; 0], where corner is a triangle.

    T is the inverse of diag(1 / tau) + striu([1; V]^T [1; V]); a tau is zero where nothing is
    reflected.
    """
    size = len(corner)
    at_once = min(_PANEL_COLUMNS, size)
    upper, lower, blocks, info = dtpqrt(
        0,
        at_once,
        np.asfortranarray(corner.numpy(force=True)),
        np.asfortranarray(rows.numpy(force=True)),
        overwrite_b=1,
    )
    if info != 0:
        raise InconsistentMatrixError(f"dtpqrt refused its argument {-info}")
    places = np.arange(size)
    taus, reflected = _tensor(blocks[places % at_once, places], corner), _tensor(lower, corner)
    products = taus.unsqueeze(1) * (reflected.mT @ reflected).triu(1)
    scales = torch.linalg.solve_triangular(products, taus.diag(), upper=True, unitriangular=True)
    return _tensor(upper, corner), reflected, scales


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like)


def _other_rows(factors: Factors, columns: _Sampled) -> Tensor:
    """A^T in the parameters of the other layers: (n, P_2)."""
    rows = [columns.slopes.new_empty(len(columns.samples), 0)]
    for layer in factors.others:
        slopes = columns.slopes[:, layer.units]
        inputs = factors.inputs[layer.name][columns.samples, : layer.num_inputs]
        rows.append((slopes.unsqueeze(2) * inputs.unsqueeze(1)).flatten(1))
        if layer.bias is not None:
            rows.append(slopes)
    return torch.cat(rows, 1)

"""The Gram matrix of the factors of H, G and R, without the factors.

With F = [A, F+, F-] as in `hesspipe.curvature.factors`, (A^T A)[(n,c),(m,c')] is a sum over layers
of (a~_l[n].a~_l[m]) (B_l[n,c].B_l[m,c']), and the rest are products with the few parameters outside
the largest layer: nothing here has P rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.curvature.factors import Factors

# Samples whose rows of A^T A are made at once.
_BLOCK_SAMPLES = 32


def gram_matrix(factors: Factors) -> tuple[Tensor, Tensor]:
    """Compute K = F^T F and the signs D.

    Returns
    -------
    gram : Tensor, shape (M, M)
        Symmetric and positive semidefinite; columns in the order of A, F+, F-.
    signs : Tensor, shape (M,)
        +1 and -1.
    """
    num_samples, num_directions, _ = factors.whitened.shape
    num_own, num_coupled = num_samples * num_directions, len(factors.sizes)
    gram = factors.whitened.new_empty(factors.num_columns, factors.num_columns)
    if num_own:
        _fill_own(gram[:num_own, :num_own], factors)
    signs = gram.new_ones(factors.num_columns)
    if num_coupled:
        signs[num_own + num_coupled :] = -1
        _fill_residual(gram, factors)
    return gram, signs


def _fill_own(own: Tensor, factors: Factors) -> None:
    """A^T A, a sum of elementwise products of the layers' own Gram matrices.

    By blocks of samples, so that what is multiplied stays in the cache, and below the
    diagonal only.
    """
    num_samples, num_directions, _ = factors.whitened.shape
    pairs = [
        (factors.whitened[:, :, layer.units].flatten(0, 1), factors.inputs[layer.name])
        for layer in (factors.largest, *factors.others)
    ]
    for part in torch.arange(num_samples).split(_BLOCK_SAMPLES):
        first, stop = int(part[0]), int(part[-1]) + 1
        rows = slice(first * num_directions, stop * num_directions)
        columns = slice(0, rows.stop)
        block = own[rows, columns].zero_()
        by_sample = block.unflatten(0, (-1, num_directions)).unflatten(2, (-1, num_directions))
        for slopes, inputs in pairs:
            products = (slopes[rows] @ slopes[columns].mT).view(by_sample.shape)
            by_sample.addcmul_(products, (inputs[first:stop] @ inputs[:stop].mT)[:, None, :, None])
        own[: rows.start, rows] = block[:, : rows.start].mT
        square = own[rows, rows]
        square.copy_(square.tril() + square.tril(-1).mT)


def _fill_residual(gram: Tensor, factors: Factors) -> None:
    """Products of A, F+ and F- with F+ and F-."""
    num_coupled = len(factors.sizes)
    num_own = len(gram) - 2 * num_coupled
    scales = factors.sizes.sqrt()
    # (E W S)^T (Y W S^-1), of which the largest layer has no part
    mixed = factors.rotation.mT @ factors.inner @ factors.rotation / 2
    mixed = scales[:, None] * mixed / scales
    plus = slice(num_own, num_own + num_coupled)
    minus = slice(num_own + num_coupled, None)
    squares = torch.diag(2 * factors.sizes)
    gram[plus, plus] = (squares + mixed + mixed.mT) / 2
    gram[minus, minus] = (squares - mixed - mixed.mT) / 2
    gram[plus, minus] = (mixed - mixed.mT) / 2
    gram[minus, plus] = gram[plus, minus].mT
    if num_own:
        with_unit = _other_rows(factors)[:, factors.kept]  # A^T E
        with_coupling = _own_with_coupling(factors) + with_unit @ factors.inner / 2  # A^T Y
        with_unit = with_unit @ factors.rotation * scales
        with_coupling = with_coupling @ factors.rotation / scales
        for place, sign in ((plus, 1.0), (minus, -1.0)):
            gram[:num_own, place] = (with_coupling + sign * with_unit) / 2**0.5
            gram[place, :num_own] = gram[:num_own, place].mT


def _own_with_coupling(factors: Factors) -> Tensor:
    """A^T times the largest layer's part of Y, unit by unit: (N r, Q)."""
    inputs = factors.inputs[factors.largest.name]
    slopes = factors.whitened[:, :, factors.largest.units]
    total = slopes.new_zeros(len(factors.kept), *slopes.shape[:2])
    is_coupled = (factors.coupling != 0).any(2)
    for unit in range(factors.largest.num_units):
        places = is_coupled[:, unit].nonzero().flatten()
        if len(places):
            along = factors.coupling[places, unit] @ inputs.mT
            total[places] += slopes[:, :, unit] * along.unsqueeze(2)
    return total.flatten(1).mT


def _other_rows(factors: Factors) -> Tensor:
    """A^T in the parameters of the other layers: (N r, P_2)."""
    columns = []
    for layer in factors.others:
        slopes = factors.whitened[:, :, layer.units]
        inputs = factors.inputs[layer.name]
        outer = slopes.unsqueeze(3) * inputs[:, None, None, : layer.num_inputs]
        columns.append(outer.flatten(2).flatten(0, 1))
        if layer.bias is not None:
            columns.append(slopes.flatten(0, 1))
    num_rows = factors.whitened.shape[0] * factors.whitened.shape[1]
    return torch.cat(columns, 1) if columns else factors.whitened.new_empty(num_rows, 0)

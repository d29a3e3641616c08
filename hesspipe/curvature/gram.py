"""Gram matrix K = F^T F of the factors of H, G and R, computed without the factors.

With F = [A, F+, F-] as in `hesspipe.curvature.factors`,

    (A^T A)[(n,c),(m,c')] = sum_l (a~_l[n].a~_l[m]) (B_l[n,c].B_l[m,c'])
    A^T F+-   = (A^T Y W S^-1 +- A^T E W S) / sqrt 2
    F+-^T F+- = Sigma +- (M + M^T) / 2,   F+^T F- = (M - M^T) / 2,   M = S W^T E^T Y W S^-1

where E^T Y = R_(other,other) / 2 involves only the few parameters outside the largest layer. No
array has P rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.curvature.factors import Factors

# Samples whose rows of A^T A are computed at once.
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
    num_sampled, num_coupled = num_samples * num_directions, len(factors.sizes)
    gram = factors.whitened.new_empty(factors.num_columns, factors.num_columns)
    if num_sampled:
        _fill_samples(gram[:num_sampled, :num_sampled], factors)
    signs = gram.new_ones(factors.num_columns)
    if num_coupled:
        signs[num_sampled + num_coupled :] = -1
        _fill_residual(gram, factors)
    return gram, signs


def _fill_samples(gram: Tensor, factors: Factors) -> None:
    """A^T A, a sum of elementwise products of two Gram matrices per layer.

    Computed below the diagonal only, in blocks of samples that fit into the cache.
    """
    num_samples, num_directions, _ = factors.whitened.shape
    pairs = [
        # B_l (N r, U) and a~_l (N, width)
        (factors.whitened[:, :, layer.units].flatten(0, 1), factors.inputs[layer.name])
        for layer in (factors.largest, *factors.others)
    ]
    for part in torch.arange(num_samples).split(_BLOCK_SAMPLES):
        first, stop = int(part[0]), int(part[-1]) + 1
        rows = slice(first * num_directions, stop * num_directions)
        columns = slice(0, rows.stop)
        block = gram[rows, columns].zero_()
        by_sample = block.unflatten(0, (-1, num_directions)).unflatten(2, (-1, num_directions))
        for slopes, inputs in pairs:
            products = (slopes[rows] @ slopes[columns].mT).view(by_sample.shape)  # (n, r, m, r)
            by_sample.addcmul_(products, (inputs[first:stop] @ inputs[:stop].mT)[:, None, :, None])
        gram[: rows.start, rows] = block[:, : rows.start].mT
        square = gram[rows, rows]
        square.copy_(square.tril() + square.tril(-1).mT)


def _fill_residual(gram: Tensor, factors: Factors) -> None:
    """Products of A, F+ and F- with F+ and F-."""
    num_coupled = len(factors.sizes)
    num_sampled = len(gram) - 2 * num_coupled
    scales = factors.sizes.sqrt()
    # M = (E W S)^T (Y W S^-1), to which the largest layer does not contribute
    mixed = factors.rotation.mT @ factors.inner @ factors.rotation / 2
    mixed = scales[:, None] * mixed / scales
    plus = slice(num_sampled, num_sampled + num_coupled)
    minus = slice(num_sampled + num_coupled, None)
    squares = torch.diag(2 * factors.sizes)
    gram[plus, plus] = (squares + mixed + mixed.mT) / 2
    gram[minus, minus] = (squares - mixed - mixed.mT) / 2
    gram[plus, minus] = (mixed - mixed.mT) / 2
    gram[minus, plus] = gram[plus, minus].mT
    if num_sampled:
        with_unit = _other_rows(factors)[:, factors.kept]  # A^T E (N r, Q)
        with_coupling = (
            _samples_with_coupling(factors) + with_unit @ factors.inner / 2
        )  # A^T Y (N r, Q)
        with_unit = with_unit @ factors.rotation * scales
        with_coupling = with_coupling @ factors.rotation / scales
        for part, sign in ((plus, 1.0), (minus, -1.0)):
            gram[:num_sampled, part] = (with_coupling + sign * with_unit) / 2**0.5
            gram[part, :num_sampled] = gram[:num_sampled, part].mT


def _samples_with_coupling(factors: Factors) -> Tensor:
    """A^T times the rows of Y in the largest layer, unit by unit: (N r, Q)."""
    inputs = factors.inputs[factors.largest.name]
    slopes = factors.whitened[:, :, factors.largest.units]
    total = slopes.new_zeros(len(factors.kept), *slopes.shape[:2])
    is_coupled = (factors.coupling != 0).any(2)
    for unit in range(factors.largest.num_units):
        coupled = is_coupled[:, unit].nonzero().flatten()
        if len(coupled):
            along = factors.coupling[coupled, unit] @ inputs.mT  # (coupled, N)
            total[coupled] += slopes[:, :, unit] * along.unsqueeze(2)
    return total.flatten(1).mT


def _other_rows(factors: Factors) -> Tensor:
    """A^T in the parameters of the other layers: (N r, P_2)."""
    columns = []
    for layer in factors.others:
        slopes = factors.whitened[:, :, layer.units]
        inputs = factors.inputs[layer.name]
        outer = slopes.unsqueeze(3) * inputs[:, None, None, : layer.num_inputs]  # (N, r, U, K)
        columns.append(outer.flatten(2).flatten(0, 1))
        if layer.bias is not None:
            columns.append(slopes.flatten(0, 1))
    num_rows = factors.whitened.shape[0] * factors.whitened.shape[1]
    return torch.cat(columns, 1) if columns else factors.whitened.new_empty(num_rows, 0)

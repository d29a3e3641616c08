"""Gram matrix A^T A of the columns of G = A A^T, computed without A.

    (A^T A)[(n,c),(m,c')] = sum_l (a~_l[n].a~_l[m]) (B_l[n,c].B_l[m,c'])

with A and B_l as in `hesspipe.curvature.factors`: for each layer, an elementwise product of two
Gram matrices. A^T A has the eigenvalues of G other than zero, and those of a computed A^T A are off
by no more than its own error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.curvature.factors import Factors

# Samples whose rows are computed at once, in blocks that fit into the cache.
_BLOCK_SAMPLES = 32


def gram_matrix(factors: Factors) -> Tensor:
    """Compute A^T A.

    Returns
    -------
    Tensor, shape (N r, N r)
        Symmetric and positive semidefinite.
    """
    num_samples, num_directions = factors.signs.shape
    gram = factors.whitened.new_empty(factors.num_sampled, factors.num_sampled)
    if len(gram) == 0:
        return gram
    pairs = [
        # B_l (N r, U) and a~_l (N, width)
        (factors.whitened[:, :, layer.units].flatten(0, 1), factors.inputs[layer.name])
        for layer in (factors.largest, *factors.others)
    ]
    for part in torch.arange(num_samples, device="cpu").split(_BLOCK_SAMPLES):
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
    return gram

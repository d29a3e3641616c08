"""Parts of H, G and R of networks of Linear layers, from which they are computed without P x P.

For a network of Linear layers, with S_n = T_n D_n T_n^T (T_n of shape C x r; r = C - 1 for softmax;
D_n = 1 for a loss that is convex in the outputs),

    G = A D A^T,           A = [J_n^T T_n], one column for each sample n and direction c of T_n

In the parameters of layer l, a column of A is the outer product B_l[n,c,:] x a~_l[n,:] with
B_l = T_n^T df_n/dz_l.

If the network is piecewise linear, R has no block of a layer with itself. Let L be the largest
layer, E the unit vectors of all other parameters, and Y = R_(L,other). Then

    R = [[0, Y], [Y^T, R_(other,other)]],      H = G + R

so in the parameters of L, the columns of A and Y span the range of all three matrices.

No array has P rows: inputs of the largest layer that are zero in every sample are dropped, and if
there are more inputs than samples, they are rotated into as many as there are samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hesspipe.curvature.layers import Layer, evaluate_linear
from hesspipe.curvature.linear import (
    add_cross_block,
    extended_inputs,
    jacobian_rows,
    sample_arrays,
)
from hesspipe.curvature.loss_derivatives import curvature_factors
from hesspipe.curvature.matrix import Matrix
from hesspipe.objective.batches import Batch
from hesspipe.objective.objective import Objective


@dataclass(frozen=True)
class Factors:
    """Arrays that determine A and R, for N samples and P_2 parameters outside layer L.

    Attributes
    ----------
    directions : Tensor, shape (N, C, r)
        T_n; r is 0 where there is no A.
    signs : Tensor, shape (N, r)
        The diagonals of D_n: 1, -1, or 0 where the direction is zero.
    whitened : Tensor, shape (N, r, D)
        T_n^T df_n/dz over all pre-activations.
    inputs : dict
        By layer name, a~_l (N, width); the largest layer's reduced.
    reduction : Tensor, shape (width, K)
        Orthonormal columns: the largest layer's reduced inputs are a~ times it. None for G where it
        is solved as a Gram matrix, which needs inner products of inputs only.
    largest : Layer
        As in the network; K of its rows in each unit are not zero, after the reduction.
    others : list of Layer
        The other layers, at consecutive positions in P_2.
    positions : Tensor, shape (P_2,)
        Positions in theta of the parameters of the other layers.
    kept : Tensor, shape (Q,)
        Positions in P_2 of the non-zero columns of Y; empty for G.
    coupling : Tensor, shape (Q, U, K)
        Y, transposed, at the kept positions, for the U units of the largest layer.
    inner : Tensor, shape (P_2, P_2)
        R_(other,other); zero for G.
    num_rows : int
        Rows of the matrix without those that are zero because an input is zero in every sample.
    """

    directions: Tensor
    signs: Tensor
    whitened: Tensor
    inputs: dict[str, Tensor]
    reduction: Tensor
    largest: Layer
    others: list[Layer]
    positions: Tensor
    kept: Tensor
    coupling: Tensor
    inner: Tensor
    num_rows: int

    @property
    def num_sampled(self) -> int:
        """Columns of A."""
        return self.signs.numel()

    @property
    def num_reduced(self) -> int:
        """U K, the parameters of the largest layer after the reduction."""
        return self.largest.num_units * self.reduction.shape[1]

    @property
    def is_gram(self) -> bool:
        """Whether the matrix is A A^T, with fewer columns than rows: A^T A has its eigenvalues."""
        is_square = not len(self.kept) and not self.inner.any() and not (self.signs < 0).any()
        return is_square and self.num_sampled <= self.num_rows

    @property
    def size(self) -> int:
        """Rows of the matrix that is solved."""
        if self.is_gram:
            return self.num_sampled
        return min(self.num_sampled + len(self.kept), self.num_reduced) + len(self.positions)


def has_curved_samples(objective: Objective, layers: list[Layer]) -> bool:
    """Whether R has a second derivative in the pre-activations at any sample, exactly.

    `hesspipe.curvature.layers.is_piecewise_linear` tests some samples only; a factorization would
    silently leave out what it misses in the others.
    """
    return any(
        samples.curvatures.any()
        for batch in objective.batches
        for samples in sample_arrays(objective, layers, batch, Matrix.RESIDUAL)
    )


def factorize(objective: Objective, layers: list[Layer], matrix: Matrix) -> Factors:
    """Compute the factors of H, G or R.

    Parameters
    ----------
    objective : Objective
    layers : list of Layer
        In the order in which they are called; piecewise linear between them, for H and R.
    matrix : Matrix

    Returns
    -------
    Factors
    """
    parts = [_whiten(objective, layers, batch) for batch in objective.batches]
    directions, signs, whitened = (
        torch.cat(arrays) for arrays in zip(*(part[:3] for part in parts), strict=True)
    )  # (N, C, C), (N, C), (N, C, D)
    is_used = directions.abs().amax((0, 1)) > (torch.inf if matrix is Matrix.RESIDUAL else 0.0)
    inputs = {
        layer.name: torch.cat([entering[layer.name] for *_, entering in parts]) for layer in layers
    }
    num_rows = sum(layer.num_units * int(inputs[layer.name].any(0).sum()) for layer in layers)
    index = max(range(len(layers)), key=lambda number: layers[number].num_parameters)
    largest, others = layers[index], layers[:index] + layers[index + 1 :]
    signs = signs[:, is_used]
    entering = inputs[largest.name]
    if matrix is Matrix.GGN and signs.numel() <= num_rows and not (signs < 0).any():
        reduction = entering.new_empty(entering.shape[1], 0)
        inputs[largest.name] = entering[:, entering.any(0)]
    else:
        # Later layers' inputs depend on parameters, so that R has derivatives of them, too.
        reduction = _reduction(entering, is_first=index == 0)
        inputs[largest.name] = entering @ reduction
    positions = _positions(others, directions.device)
    factors = Factors(
        directions=directions[:, :, is_used],
        signs=signs,
        whitened=whitened[:, is_used],  # (N, r, D)
        inputs=inputs,
        reduction=reduction,
        largest=largest,
        others=_place_in_turn(others),
        positions=positions,
        kept=positions[:0],
        coupling=directions.new_empty(0, largest.num_units, reduction.shape[1]),
        inner=directions.new_zeros(len(positions), len(positions)),
        num_rows=num_rows,
    )
    return factors if matrix is Matrix.GGN else _couple(objective, layers, index, factors)


def _couple(objective: Objective, layers: list[Layer], index: int, factors: Factors) -> Factors:
    """Add Y, the blocks of R between different layers, to the factors."""
    others, size = factors.others, len(factors.positions)
    # The bias counts as one of the reduced inputs.
    num_inputs = factors.reduction.shape[1]
    largest = replace(factors.largest, num_inputs=num_inputs, weight=0, bias=None)
    # R_(other,L), where the other layer is called after L and before it; R_(other,other)
    to_largest = factors.whitened.new_zeros(size, factors.num_reduced)
    from_largest = to_largest.new_zeros(to_largest.shape[::-1] if index else (0, 0))
    inner = to_largest.new_zeros(size, size)  # (P_2, P_2)
    start = 0
    for batch in objective.batches:
        for samples in sample_arrays(objective, layers, batch, Matrix.RESIDUAL):
            part = slice(start, start + len(samples.curvatures))
            start = part.stop
            inputs = samples.inputs | {largest.name: factors.inputs[largest.name][part]}
            chunk = replace(samples, inputs=inputs)
            for number, layer in enumerate(others):
                if number >= index:
                    add_cross_block(to_largest, layer, largest, chunk)
                else:
                    add_cross_block(from_largest, largest, layer, chunk)
                for late in others[number + 1 :]:
                    add_cross_block(inner, late, layer, chunk)
    if index:
        to_largest += from_largest.mT
    kept = to_largest.any(1).nonzero().flatten()
    coupling = to_largest[kept].unflatten(1, (largest.num_units, num_inputs))  # (Q, U, K)
    return replace(factors, kept=kept, coupling=coupling, inner=inner + inner.mT)


def _positions(layers: list[Layer], device: torch.device) -> Tensor:
    """Map positions in P_2 to positions in theta."""
    ranges = [torch.arange(0, device="cpu")]
    for layer in layers:
        ranges.append(torch.arange(layer.num_units * layer.num_inputs, device="cpu") + layer.weight)
        if layer.bias is not None:
            ranges.append(torch.arange(layer.num_units, device="cpu") + layer.bias)
    return torch.cat(ranges).to(device)


def _whiten(
    objective: Objective, layers: list[Layer], batch: Batch
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """T_n (n, C, C), zero where S_n is singular, D_n (n, C), T_n^T df_n/dz (n, C, D), and a~_l."""
    factors, signs = curvature_factors(objective, batch)
    factors = factors * signs.abs().unsqueeze(1)
    evaluation = evaluate_linear(objective, layers, batch.inputs)
    jacobian = jacobian_rows(evaluation.outputs, list(evaluation.deltas.values()))  # (n, C, D)
    return factors, signs, factors.mT @ jacobian, extended_inputs(layers, evaluation.inputs)


def _reduction(inputs: Tensor, *, is_first: bool) -> Tensor:
    """Orthonormal columns that span the inputs (N, width): no zero inputs, at most N columns."""
    width = inputs.shape[1]
    used = inputs.any(0).nonzero().flatten() if is_first else torch.arange(width, device="cpu")
    is_wide = is_first and len(used) > len(inputs)
    reduction = inputs.new_zeros(width, len(inputs) if is_wide else len(used))
    if is_wide:
        reduction[used] = torch.linalg.qr(inputs[:, used].mT).Q
    else:
        reduction[used, torch.arange(len(used), device="cpu")] = 1
    return reduction


def _place_in_turn(layers: list[Layer]) -> list[Layer]:
    placed, start = [], 0
    for layer in layers:
        weights = layer.num_units * layer.num_inputs
        bias = None if layer.bias is None else start + weights
        placed.append(replace(layer, weight=start, bias=bias))
        start += layer.num_parameters
    return placed

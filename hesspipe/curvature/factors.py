"""H, G and R of networks of Linear layers as F D F^T, with thin factors F.

For a network of Linear layers, with S_n = T_n T_n^T (T_n of shape C x r; r = C - 1 for softmax),

    G = A A^T,             A = [J_n^T T_n], one column for each sample n and direction c of T_n

In the parameters of layer l, a column of A is the outer product B_l[n,c,:] x a~_l[n,:] with
B_l = T_n^T df_n/dz_l. So (A^T A)[(n,c),(m,c')] = sum_l (a~_l[n].a~_l[m]) (B_l[n,c].B_l[m,c'])
needs no column of A.

If the network is piecewise linear, R has no block of a layer with itself. Let L be the largest
layer and E the unit vectors of all other parameters; then, with the blocks of R as
Y = [R_(L,other); R_(other,other)/2] = U Sigma W^T,

    R = Y E^T + E Y^T = F+ F+^T - F- F-^T,      F+- = (Y W S^-1 +- E W S) / sqrt 2,   S^2 = Sigma

The identity holds for any invertible W and S. This choice makes the two terms of each column
equally large; otherwise F+ and F- nearly cancel, and eigenvalues near zero lose digits. Columns
with Sigma_q = 0 are left out. Then H = F D F^T with F = [A, F+, F-] and D = diag(1, 1, -1).

No array has P rows: inputs of the largest layer that are zero in every sample are dropped, and if
there are more inputs than samples, they are rotated into as many as there are samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
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
from hesspipe.objective.objective import Batch, Objective


@dataclass(frozen=True)
class Factors:
    """Arrays that determine F = [A, F+, F-], for N samples and P_2 parameters outside layer L.

    Attributes
    ----------
    directions : Tensor, shape (N, C, r)
        T_n; r is 0 where there is no A.
    whitened : Tensor, shape (N, r, D)
        T_n^T df_n/dz over all pre-activations.
    inputs : dict
        By layer name, a~_l (N, width); the largest layer's reduced.
    largest : Layer
        With its reduced inputs; the bias counts as one of them.
    others : list of Layer
        The other layers, at consecutive positions in P_2.
    kept, positions : Tensor, shape (Q,)
        Positions of the non-zero columns of Y, in P_2 and in theta; empty for G.
    coupling : Tensor, shape (Q, units, inputs)
        R_(L,other), transposed, at the kept positions.
    inner : Tensor, shape (Q, Q)
        R_(other,other) at the kept positions.
    rotation : Tensor, shape (Q, Q')
        The columns of W whose singular value is above rounding.
    sizes : Tensor, shape (Q',)
        Sigma, the singular values of Y.
    num_rows : int
        Rows of the matrix without those that are zero because an input is zero in every sample.
    """

    directions: Tensor
    whitened: Tensor
    inputs: dict[str, Tensor]
    largest: Layer
    others: list[Layer]
    kept: Tensor
    positions: Tensor
    coupling: Tensor
    inner: Tensor
    rotation: Tensor
    sizes: Tensor
    num_rows: int

    @property
    def num_columns(self) -> int:
        """Columns of F."""
        return self.whitened.shape[0] * self.whitened.shape[1] + 2 * len(self.sizes)


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
        With a loss that is convex in the outputs, for H and G.
    layers : list of Layer
        In the order in which they are called; piecewise linear between them, for H and R.
    matrix : Matrix

    Returns
    -------
    Factors

    Raises
    ------
    ValueError
        If a curvature S_n has a negative eigenvalue.
    """
    parts = [_whiten(objective, layers, batch) for batch in objective.batches]
    directions = torch.cat([part for part, _, _ in parts])  # (N, C, C)
    is_used = directions.abs().amax((0, 1)) > (torch.inf if matrix is Matrix.RESIDUAL else 0.0)
    whitened = torch.cat([part for _, part, _ in parts])[:, is_used]  # (N, r, D)
    inputs = {
        layer.name: torch.cat([entering[layer.name] for *_, entering in parts]) for layer in layers
    }
    num_rows = sum(layer.num_units * int(inputs[layer.name].any(0).sum()) for layer in layers)
    index = max(range(len(layers)), key=lambda number: layers[number].num_parameters)
    is_first = index == 0
    reduced = _reduce(inputs[layers[index].name]) if is_first else inputs[layers[index].name]
    largest = replace(layers[index], num_inputs=reduced.shape[1], weight=0, bias=None)
    others = _place_in_turn(layers[:index] + layers[index + 1 :])
    inputs[largest.name] = reduced
    none = is_used.new_empty(0, dtype=torch.long)
    factors = Factors(
        directions=directions[:, :, is_used],
        whitened=whitened,
        inputs=inputs,
        largest=largest,
        others=others,
        kept=none,
        positions=none,
        coupling=whitened.new_empty(0, largest.num_units, largest.num_inputs),
        inner=whitened.new_empty(0, 0),
        rotation=whitened.new_empty(0, 0),
        sizes=whitened.new_empty(0),
        num_rows=num_rows,
    )
    return factors if matrix is Matrix.GGN else _couple(objective, layers, index, factors)


def _couple(objective: Objective, layers: list[Layer], index: int, factors: Factors) -> Factors:
    """Add Y, the blocks of R between different layers, to the factors."""
    largest, others = factors.largest, factors.others
    size = sum(layer.num_parameters for layer in others)
    # R_(other,L), where the other layer is called after L and before it; R_(other,other)
    to_largest = factors.whitened.new_zeros(size, largest.num_units * largest.num_inputs)
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
    inner = inner + inner.mT
    kept = (to_largest.any(1) | inner.any(1)).nonzero().flatten()
    if len(kept) == 0:
        return factors
    coupling, inner = to_largest[kept], inner[kept][:, kept]
    coupling = coupling.unflatten(1, (largest.num_units, largest.num_inputs))  # (Q, U, K)
    rotation, sizes = _decompose(coupling, inner)
    return replace(
        factors,
        kept=kept,
        positions=_positions(layers[:index] + layers[index + 1 :], kept),
        coupling=coupling,
        inner=inner,
        rotation=rotation,
        sizes=sizes,
    )


def _decompose(coupling: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
    """W and Sigma of Y = [coupling; inner / 2] = U Sigma W^T, without singular values of rounding.

    Groups of columns of Y that share no row are decomposed separately: a network with one hidden
    layer of h units has h such groups.
    """
    is_joined = torch.cat([(coupling != 0).any(2), inner != 0], 1)  # (Q, U + Q)
    is_joined = is_joined.to(torch.float64).cpu()
    num_groups, group_of = connected_components(csr_array((is_joined @ is_joined.mT).numpy()))
    groups = torch.from_numpy(group_of).to(coupling.device)
    positions, rotations, sizes = [], [], []
    for group in range(num_groups):
        columns = (groups == group).nonzero().flatten()
        part, rest = coupling[columns], inner[columns] / 2  # (q, U, K), (q, Q)
        part, rest = part[:, part.any(0).any(1)], rest[:, rest.any(0)]
        triangle = torch.linalg.qr(torch.cat([part.flatten(1), rest], 1).mT, mode="r").R
        _, values, vectors = torch.linalg.svd(triangle, full_matrices=False)
        positions.append(columns.expand(len(values), -1))
        rotations.append(vectors)
        sizes.append(values)
    every_size = torch.cat(sizes)
    floor = torch.finfo(every_size.dtype).eps * len(every_size) * every_size.max()
    rotation = coupling.new_zeros(len(every_size), len(coupling))
    start = 0
    for columns, vectors in zip(positions, rotations, strict=True):
        rotation[start : start + len(vectors)].scatter_(1, columns, vectors)
        start += len(vectors)
    is_coupled = every_size > floor
    return rotation[is_coupled].mT, every_size[is_coupled]


def _positions(layers: list[Layer], kept: Tensor) -> Tensor:
    """Map positions in P_2 to positions in theta."""
    ranges = []
    for layer in layers:
        ranges.append(torch.arange(layer.num_units * layer.num_inputs) + layer.weight)
        if layer.bias is not None:
            ranges.append(torch.arange(layer.num_units) + layer.bias)
    return torch.cat(ranges).to(kept.device)[kept] if ranges else kept


def _whiten(
    objective: Objective, layers: list[Layer], batch: Batch
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """T_n (n, C, C), with zero columns where S_n is singular, T_n^T df_n/dz (n, C, D), and a~_l."""
    factors, signs = curvature_factors(objective, batch)
    if (signs < 0).any():
        raise ValueError(
            "loss_fn must be convex in the outputs, got one with a negative curvature; use "
            "method='columns' or 'layers'"
        )
    factors = factors * signs.unsqueeze(1)
    evaluation = evaluate_linear(objective, layers, batch.inputs)
    jacobian = jacobian_rows(evaluation.outputs, evaluation.delta)  # (n, C, D)
    return factors, factors.mT @ jacobian, extended_inputs(layers, evaluation.inputs)


def _reduce(inputs: Tensor) -> Tensor:
    """Inputs with the same Gram matrix as those (N, width): no zero columns, at most N columns."""
    inputs = inputs[:, inputs.any(0)]
    if inputs.shape[1] <= len(inputs):
        return inputs
    triangle: Tensor = torch.linalg.qr(inputs.mT, mode="r").R
    return triangle.mT


def _place_in_turn(layers: list[Layer]) -> list[Layer]:
    placed, start = [], 0
    for layer in layers:
        weights = layer.num_units * layer.num_inputs
        bias = None if layer.bias is None else start + weights
        placed.append(replace(layer, weight=start, bias=bias))
        start += layer.num_parameters
    return placed

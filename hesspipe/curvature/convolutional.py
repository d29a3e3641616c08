"""Exact H, G and R of piecewise linear networks of Conv2d and Linear layers.

With z_l[o, s] = sum_k W_l[o, k] a_l[k, s] + b_l[o] as in `hesspipe.curvature.layers`, let
d_l[o, s] = d<e, f>/dz_l[o, s]. As f is a piecewise linear function of the pre-activations, d_l does
not change with the parameters of earlier layers, and what remains of the second derivative is

    R[(l,o,k),(m,j,b)] = sum_n sum_s d_l[o,s] (d a_l[k,s] / d W~_m[j,b])     if m feeds l, else 0
    G                  = sum_n A_n^T diag(sign_n) A_n,   A_n = T_n^T J_n,   S_n = T_n diag T_n^T
    H                  = R + G

Because H is a sum here, H = G + R is not a test; `hesspipe.curvature.dense` compares
every matrix with a product that differentiates the loss and forms no matrix.

For each pair of layers the cheaper of two derivatives is computed:

    tangents     d a_l along W~_m[:, b] (`hesspipe.curvature.tangents`)
    cotangents   d a_l[k] / d z_m, one entry k at a time, where l is a Linear layer of few inputs

Cost: O(N P^2) multiply-adds for G, and for R about a hundred passes through the layers in between,
where column by column takes P passes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.curvature.columns import mirror_lower
from hesspipe.curvature.layers import (
    Layer,
    PatchEvaluation,
    chunks,
    evaluate_patches,
    evaluation_slopes,
    extend,
)
from hesspipe.curvature.loss_derivatives import curvature_factors, output_slopes
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.sums_of_squares import OuterProducts, Piece, Rows, add_sum_of_squares
from hesspipe.curvature.tangents import (
    Push,
    block_of_group,
    block_through,
    num_at_once,
    pusher,
    separate_units,
    units_of,
)
from hesspipe.hardware import zeros
from hesspipe.objective.objective import Objective
from hesspipe.seeding import probe
from hesspipe.tolerances import agrees

# Largest set of per-sample arrays at once, in bytes. Small, because passes are fastest where
# the patches of a chunk stay in the cache.
_SAMPLE_BYTES = 256 * 2**20

# Passes from a layer in between that take as long as one pass from the early layer: 3.4 measured
# for the paper's convolutional network with 8 and 16 channels.
_PASSES_SAVED = 3


def matrix_by_convolutions(objective: Objective, layers: list[Layer], matrix: Matrix) -> Tensor:
    """Compute H, G or R of a piecewise linear network of Conv2d and Linear layers.

    Parameters
    ----------
    objective : Objective
    layers : list of Layer
        From `hesspipe.curvature.layers.find_layers`; piecewise linear between them.
    matrix : Matrix
        H is the sum of G and R, each from its own formula.

    Returns
    -------
    Tensor, shape (P, P)
        In the objective's dtype; exactly symmetric.

    Raises
    ------
    NotASumOverSamplesError
        If the loss couples samples: G, and so H, has no formula then.
    """
    total = zeros(objective.theta, objective.num_parameters, objective.num_parameters)
    if matrix is not Matrix.GGN:
        _add_residual(total, objective, layers)
    if matrix is not Matrix.RESIDUAL:
        _add_ggn(total, objective, layers)
    return mirror_lower(total)


def _add_ggn(total: Tensor, objective: Objective, layers: list[Layer]) -> None:
    """Add G to the lower triangle of total."""
    names = [layer.name for layer in layers]
    for batch in objective.batches:
        factors, signs = curvature_factors(objective, batch)
        kept = signs.any(0)
        if not kept.any():
            continue
        factors, signs = factors[:, :, kept], signs[:, kept]
        numbers = _numbers_per_sample(layers) + signs.shape[1] * _numbers_per_row(layers)
        step = _SAMPLE_BYTES // (numbers * total.element_size())
        for part in chunks(len(batch.inputs), step):
            evaluation = evaluate_patches(objective, names, batch.inputs[part])
            pieces = _gradient_pieces(evaluation, layers, factors[part])
            add_sum_of_squares(total, pieces, signs[part])


def _gradient_pieces(
    evaluation: PatchEvaluation, layers: list[Layer], cotangents: Tensor
) -> list[Piece]:
    """Gradients of <cotangent, f> of each sample, for cotangents (n, C, r), by parts of theta."""
    every_slope = [evaluation_slopes(evaluation, each) for each in cotangents.unbind(2)]
    pieces: list[Piece] = []
    for index, layer in enumerate(layers):
        slopes = torch.stack([each[index] for each in every_slope], 1)  # (n, r, U, S)
        patches = evaluation.patches[layer.name].detach()  # (n, K, S)
        sums = slopes.sum(3)  # (n, r, U)
        if layer.is_linear:
            pieces.append(OuterProducts(layer.weight, sums, patches.squeeze(2)))
        else:
            products = slopes.flatten(1, 2) @ patches.mT  # (n, r U, K)
            pieces.append(Rows(layer.weight, products.view(*sums.shape[:2], -1)))
        if layer.bias is not None:
            pieces.append(Rows(layer.bias, sums))
    return pieces


def _add_residual(total: Tensor, objective: Objective, layers: list[Layer]) -> None:
    """Add R to the lower triangle of total."""
    names = [layer.name for layer in layers]
    step = _SAMPLE_BYTES // (_numbers_per_sample(layers) * total.element_size())
    for batch in objective.batches:
        weights = output_slopes(objective, batch)
        for part in chunks(len(batch.inputs), step):
            evaluation = evaluate_patches(objective, names, batch.inputs[part])
            slopes = evaluation_slopes(evaluation, weights[part])
            for index, late in enumerate(layers):
                _add_blocks_of(total, late, layers[:index], evaluation, slopes[index])


def _add_blocks_of(
    total: Tensor,
    late: Layer,
    layers: list[Layer],
    evaluation: PatchEvaluation,
    slopes: Tensor,
) -> None:
    """Add one chunk's contribution to the blocks of R of a layer with earlier ones."""
    by_entries: list[Layer] = []
    for early in layers:
        push = pusher(evaluation.patches[late.name], evaluation.deltas[early.name])
        if push is None:  # early does not feed late
            continue
        can_pull = late.num_positions == 1
        if can_pull and late.num_inputs <= early.width:
            by_entries.append(early)
            continue
        groups = separate_units(push, late.num_inputs, evaluation.deltas[early.name])
        route = None
        if len(groups) > 1:
            between = layers[layers.index(early) + 1 :]
            route = _find_route(push, late, early, between, evaluation)
        num_passes = len(groups) * early.width // (1 if route is None else _PASSES_SAVED)
        if can_pull and late.num_inputs <= num_passes:
            by_entries.append(early)
            continue
        patches = extend(early, evaluation.patches[early.name])
        if route is not None:
            block = block_through(*route, slopes, patches, early.num_units)
            entries = torch.arange(late.num_inputs, device=block.device)
            _place(total, late, entries, early, units_of(route[3]), block)
            continue
        for owners in groups:
            block = block_of_group(push, owners, slopes, patches, early.num_units)
            for unit in units_of(owners).split(1):
                entries = (owners == unit).nonzero().flatten()
                _place(total, late, entries, early, unit, block[:, entries].unsqueeze(2))
    if by_entries:
        _add_by_cotangents(total, late, by_entries, evaluation, slopes)


def _find_route(
    push: Push,
    late: Layer,
    early: Layer,
    between: list[Layer],
    evaluation: PatchEvaluation,
) -> tuple[Push, Push, Tensor, Tensor] | None:
    """Find a layer that early reaches with one group, and without which it does not reach late."""
    tangent = probe(evaluation.deltas[early.name]).unsqueeze(0)
    expected = push(tangent)
    for middle in between:
        first = pusher(evaluation.patches[middle.name], evaluation.deltas[early.name])
        second = pusher(evaluation.patches[late.name], evaluation.deltas[middle.name])
        if first is None or second is None:
            continue
        groups = separate_units(first, middle.num_inputs, evaluation.deltas[early.name])
        weight = evaluation.weights[middle.name]
        found = second(weight @ first(tangent))
        if len(groups) == 1 and agrees(found, expected, expected.norm()):
            return first, second, weight, groups[0]
    return None


def _numbers_per_sample(layers: list[Layer]) -> int:
    """Numbers held at once per sample: patches, pre-activations, and their derivatives."""
    return sum(layer.num_positions * (6 * layer.width + 8 * layer.num_units) for layer in layers)


def _numbers_per_row(layers: list[Layer]) -> int:
    """Numbers held at once per row of A_n: slopes, rows and signed rows, combinations of rows."""
    slopes = sum(layer.num_positions * layer.num_units for layer in layers)
    rows = sum(layer.num_parameters for layer in layers if not layer.is_linear)
    return 2 * (slopes + rows) + max(layer.num_parameters for layer in layers)


def _add_by_cotangents(
    total: Tensor,
    late: Layer,
    others: list[Layer],
    evaluation: PatchEvaluation,
    slopes: Tensor,
) -> None:
    """Add the blocks of a Linear layer with earlier ones, some of the Linear's inputs at a time."""
    inputs = evaluation.patches[late.name]
    deltas = [evaluation.deltas[early.name] for early in others]
    patches = [extend(early, evaluation.patches[early.name]) for early in others]
    units = [torch.arange(early.num_units, device=inputs.device) for early in others]
    sizes = [delta.numel() for delta in deltas]
    sizes += [len(inputs) * early.num_units * early.width for early in others]
    for part in chunks(late.num_inputs, num_at_once(max(sizes))):
        entries = torch.arange(late.num_inputs, device=inputs.device)[part]
        every_gradient = [
            torch.autograd.grad(inputs[:, entry].sum(), deltas, retain_graph=True)
            for entry in entries
        ]
        for place, early in enumerate(others):
            gradients = torch.cat([each[place] for each in every_gradient], 1)  # (n, E U, S)
            products = (gradients @ patches[place].mT).flatten(1)  # (n, E U width of early)
            block = slopes.squeeze(2).mT @ products  # (U of late, E U width of early)
            block = block.view(late.num_units, len(entries), early.num_units, early.width)
            _place(total, late, entries, early, units[place], block)


def _place(
    total: Tensor,
    late: Layer,
    entries: Tensor,
    early: Layer,
    units: Tensor,
    block: Tensor,
) -> None:
    """Add a block (U of late, entries, units, width of early) below the diagonal of total.

    The bias of late has no block: its factor, one, does not depend on early.
    """
    firsts = torch.arange(late.num_units, device=entries.device) * late.num_inputs
    rows = (late.weight + firsts.unsqueeze(1) + entries).flatten()
    inputs = torch.arange(early.num_inputs, device=entries.device)
    columns = early.weight + units.unsqueeze(1) * early.num_inputs + inputs  # (units, K)
    if early.bias is not None:
        columns = torch.cat([columns, early.bias + units.unsqueeze(1)], dim=1)
    columns, flat = columns.flatten(), block.flatten(2).flatten(0, 1)
    if late.weight > early.weight:
        total[rows.unsqueeze(1), columns] += flat
    else:
        total[columns.unsqueeze(1), rows] += flat.mT

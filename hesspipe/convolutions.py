"""Exact matrices of piecewise linear networks of Conv2d and Linear layers.

With z_l[o, s] = sum_k W_l[o, k] a_l[k, s] + b_l[o] at each output position s, where a_l[:, s] is
the patch that enters layer l there and a~_l = [a_l; 1], let d_l[o, s] = d<e, f>/dz_l[o, s]. As f
is a piecewise linear function of the pre-activations, d_l does not change with earlier layers'
parameters, and what remains of the second derivative is

    R[(l,o,k),(m,j,b)] = sum_n sum_s d_l[o,s] (d a_l[k,s] / d W~_m[j,b])     if m feeds l, else 0
    G                  = sum_n A_n^T diag(sign_n) A_n,   A_n = T_n^T J_n,   S_n = T_n diag T_n^T
    H                  = R + G

a rule of calculus for such networks, by which H is assembled here. It is no proof that H is
right: `hesspipe.dense` compares every matrix with a product of its own formula that forms none.

Of each pair of layers the smaller side is differentiated:

    tangents     d a_l along W~_m[:, b], for units j that reach different entries k at once: after
                 pooling and activations, each entry of the next layer's patch comes from one
                 channel, so all units take one pass
    cotangents   d a_l[k] / d z_m, an entry k at a time, where l is a Linear layer of few inputs

Every pass is linear in the samples: cost O(N P^2) multiply-adds for G, and for R some hundred
passes through the layers in between, where column by column takes P passes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hesspipe.columns import add_squares, mirror_lower
from hesspipe.curvature import curvature_factors, output_slopes
from hesspipe.objective import Objective
from hesspipe.patch_layers import Evaluation, PatchLayer, chunks, evaluate, extend

# Largest set of per-sample arrays at once, in bytes. Small, because passes are fastest where
# the patches of a chunk stay in the cache.
_SAMPLE_BYTES = 256 * 2**20

Push = Callable[[Tensor], Tensor]


def matrix_by_convolutions(objective: Objective, layers: list[PatchLayer], matrix: str) -> Tensor:
    """Compute H, G or R of a piecewise linear network of Conv2d and Linear layers.

    Parameters
    ----------
    objective : Objective
    layers : list of PatchLayer
        From `hesspipe.patch_layers.patch_layers`.
    matrix : str
        "hessian", "ggn" or "residual". H is G + R here, both from their own formulas.

    Returns
    -------
    Tensor, shape (P, P)
        In the objective's dtype; exactly symmetric.

    Raises
    ------
    NotASumOverSamplesError
        If the loss couples samples: G, and so H, has no formula then.
    """
    total = objective.theta.new_zeros(objective.num_parameters, objective.num_parameters)
    if matrix != "ggn":
        _add_residual(total, objective, layers)
    if matrix != "residual":
        _add_ggn(total, objective, layers)
    return mirror_lower(total)


def _add_ggn(total: Tensor, objective: Objective, layers: list[PatchLayer]) -> None:
    """Add G to the lower triangle of total."""
    names = [layer.name for layer in layers]
    for batch in objective.batches:
        factors, signs = curvature_factors(objective, batch)
        kept = signs.any(0).nonzero().flatten().tolist()
        # The rows, and a copy of those of each sign.
        numbers = _numbers_a_sample(layers) + 2 * len(kept) * objective.num_parameters
        step = _SAMPLE_BYTES // (numbers * total.element_size())
        for part in chunks(len(batch.inputs), step):
            evaluation = evaluate(objective, names, batch.inputs[part])
            rows = total.new_zeros(len(evaluation.outputs), len(kept), len(total))
            for row, factor in enumerate(kept):
                _write_gradients(rows[:, row], evaluation, layers, factors[part, :, factor])
            add_squares(total, rows[signs[part][:, kept] > 0], 1.0)
            add_squares(total, rows[signs[part][:, kept] < 0], -1.0)


def _write_gradients(
    rows: Tensor, evaluation: Evaluation, layers: list[PatchLayer], cotangents: Tensor
) -> None:
    """Write each sample's gradient of <cotangent, f> into its row of P entries."""
    for layer, slope in zip(layers, _slopes(evaluation, cotangents), strict=True):
        product = slope @ evaluation.patches[layer.name].detach().mT
        rows[:, layer.weights] = product.flatten(1)
        if layer.bias is not None:
            rows[:, layer.biases] = slope.sum(2)


def _add_residual(total: Tensor, objective: Objective, layers: list[PatchLayer]) -> None:
    """Add R to the lower triangle of total."""
    names = [layer.name for layer in layers]
    step = _SAMPLE_BYTES // (_numbers_a_sample(layers) * total.element_size())
    for batch in objective.batches:
        weights = output_slopes(objective, batch)
        for part in chunks(len(batch.inputs), step):
            evaluation = evaluate(objective, names, batch.inputs[part])
            slopes = _slopes(evaluation, weights[part])
            for place, late in enumerate(layers):
                _add_blocks_of(total, late, layers[:place], evaluation, slopes[place])


def _add_blocks_of(
    total: Tensor,
    late: PatchLayer,
    others: list[PatchLayer],
    evaluation: Evaluation,
    slopes: Tensor,
) -> None:
    """Add the blocks of R that couple a layer with the earlier ones, one chunk's part."""
    by_entries: list[PatchLayer] = []
    for early in others:
        push = _pusher(evaluation.patches[late.name], evaluation.deltas[early.name])
        if push is None:  # early does not feed late
            continue
        can_pull = late.num_positions == 1
        if can_pull and late.num_inputs <= early.width:
            by_entries.append(early)
            continue
        groups = _separate_units(push, late, early, evaluation.deltas[early.name])
        if can_pull and late.num_inputs <= len(groups) * early.width:
            by_entries.append(early)
            continue
        patches = extend(early, evaluation.patches[early.name])
        for owners in groups:
            block = _block_by_tangents(push, owners, slopes, patches, early.num_units)
            for unit in owners[owners >= 0].unique().split(1):
                entries = (owners == unit).nonzero().flatten()
                _place(total, late, entries, early, unit, block[:, entries].unsqueeze(2))
    if by_entries:
        _add_by_cotangents(total, late, by_entries, evaluation, slopes)


def _numbers_a_sample(layers: list[PatchLayer]) -> int:
    """Numbers held at once for each sample: patches, pre-activations, and their derivatives."""
    return sum(layer.num_positions * (6 * layer.width + 8 * layer.num_units) for layer in layers)


def _slopes(evaluation: Evaluation, cotangents: Tensor) -> tuple[Tensor, ...]:
    """Differentiate <cotangent, f> by each layer's pre-activations: (n, U, S) each."""
    return torch.autograd.grad(
        evaluation.outputs, list(evaluation.deltas.values()), cotangents,
        retain_graph=True, materialize_grads=True,
    )  # fmt: skip


def _pusher(patches: Tensor, delta: Tensor) -> Push | None:
    """Make the map from tangents of delta (n, U, S) to tangents of patches (n, K, S').

    The gradient of <u, patches> is linear in u, and its derivative by u is that map: backward
    twice, so with no other rules of differentiation than everywhere else.
    """
    if not patches.requires_grad:
        return None
    pulled = torch.zeros_like(patches, requires_grad=True)
    (gradient,) = torch.autograd.grad(patches, delta, pulled, create_graph=True, allow_unused=True)
    if gradient is None or not gradient.requires_grad:
        return None

    def push(tangent: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(
            gradient, pulled, tangent, retain_graph=True, materialize_grads=True
        )
        return result

    return push


def _separate_units(push: Push, late: PatchLayer, early: PatchLayer, delta: Tensor) -> list[Tensor]:
    """Divide early's units into groups that reach different entries of late's patches.

    Returns
    -------
    list of Tensor, shape (K,)
        For each group, the unit that each entry depends on, -1 where on none of the group.
    """
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(delta[:, 0].shape, generator=generator, dtype=torch.float64).to(delta)
    groups: list[Tensor] = []
    for unit in range(early.num_units):
        tangent = torch.zeros_like(delta)
        tangent[:, unit] = numbers
        is_reached = push(tangent).ne(0).any(2).any(0)
        if not is_reached.any():
            continue
        for owners in groups:
            if not (owners[is_reached] >= 0).any():
                owners[is_reached] = unit
                break
        else:
            owners = torch.full((late.num_inputs,), -1, device=delta.device)
            owners[is_reached] = unit
            groups.append(owners)
    return groups


def _block_by_tangents(
    push: Push, owners: Tensor, slopes: Tensor, patches: Tensor, num_units: int
) -> Tensor:
    """Compute sum_n sum_s d_l[o,s] (d a_l[k,s] / d W~_m[owner of k, b]), of shape (U, K, width)."""
    units = owners[owners >= 0].unique()
    tangent = patches.new_zeros(len(patches), num_units, patches.shape[2])
    block = patches.new_empty(patches.shape[1], slopes.shape[1], len(owners))
    for entry in range(patches.shape[1]):
        tangent[:, units] = patches[:, entry].unsqueeze(1)
        block[entry] = _sum_over_samples(slopes, push(tangent))
    return block.permute(1, 2, 0)


def _sum_over_samples(slopes: Tensor, patches: Tensor) -> Tensor:
    """Add d a^T up over samples and positions: (U, K)."""
    if slopes.shape[2] == 1:
        return slopes.squeeze(2).mT @ patches.squeeze(2)
    return (slopes @ patches.mT).sum(0)


def _add_by_cotangents(
    total: Tensor,
    late: PatchLayer,
    others: list[PatchLayer],
    evaluation: Evaluation,
    slopes: Tensor,
) -> None:
    """Add the blocks of a Linear layer with earlier ones, an input of the Linear at a time."""
    inputs = evaluation.patches[late.name]
    deltas = [evaluation.deltas[early.name] for early in others]
    patches = [extend(early, evaluation.patches[early.name]) for early in others]
    for entry in range(late.num_inputs):
        gradients = torch.autograd.grad(inputs[:, entry].sum(), deltas, retain_graph=True)
        place = torch.tensor([entry], device=inputs.device)
        for early, patch, gradient in zip(others, patches, gradients, strict=True):
            products = (gradient @ patch.mT).flatten(1)
            block = slopes.squeeze(2).mT @ products
            block = block.unflatten(1, (early.num_units, early.width))
            units = torch.arange(early.num_units, device=block.device)
            _place(total, late, place, early, units, block.unsqueeze(1))


def _place(
    total: Tensor,
    late: PatchLayer,
    entries: Tensor,
    early: PatchLayer,
    units: Tensor,
    block: Tensor,
) -> None:
    """Add a block (U of late, entries, units, width of early) below the diagonal of total.

    The bias of late has no place: nothing multiplies it that depends on early.
    """
    firsts = torch.arange(late.num_units, device=entries.device) * late.num_inputs
    rows = (late.weight + firsts.unsqueeze(1) + entries).flatten()
    inputs = torch.arange(early.num_inputs, device=entries.device)
    columns = early.weight + units.unsqueeze(1) * early.num_inputs + inputs
    if early.bias is not None:
        columns = torch.cat([columns, early.bias + units.unsqueeze(1)], dim=1)
    columns, flat = columns.flatten(), block.flatten(2).flatten(0, 1)
    if late.weight > early.weight:
        total[rows.unsqueeze(1), columns] += flat
    else:
        total[columns.unsqueeze(1), rows] += flat.mT

"""Exact H, G and R of networks of Linear layers, from per-sample blocks.

With z_l = W_l a_l + b_l, where a_l is the input of layer l and a~_l = [a_l; 1], d_l = dL/dz_l
and Q = d2L/dz dz are, for one sample, a small vector and a small matrix over all D
pre-activations. Each block of the Hessian is a contraction over samples, one large matrix product:

    H[(l,i,a), (m,j,b)] = sum_n  Q_n[(l,i),(m,j)] a~_l[a] a~_m[b]
                               + d_l[i] (d a_l[a] / d z_m[j]) a~_m[b]

with the second term where m feeds l and a is not the bias. For the other matrices

    G: Q = (df/dz)^T S (df/dz), without the second term
    R: Q = sum_c e_c d2f_c/dz dz, with the second term

The block of a layer with itself is symmetric in (i, j) and in (a, b) separately, so a quarter
of it is computed. The 1/N of the loss is part of d, Q, S and e.

Cost: O(N P^2) multiply-adds as matrix products, and D backward passes for D pre-activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from hesspipe.curvature.layers import Layer, chunks, evaluate_linear, extend
from hesspipe.curvature.loss_derivatives import output_curvatures, output_slopes
from hesspipe.curvature.matrix import Matrix
from hesspipe.hardware import zeros
from hesspipe.objective.batches import Batch
from hesspipe.objective.objective import Objective

# Largest set of per-sample arrays at once, in bytes.
_SAMPLE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Samples:
    """Per-sample arrays of one chunk of n samples, over D pre-activations.

    By layer name, inputs holds a~_l (n, width), and jacobians d a_l / d z (n, num_inputs, D)
    where a_l depends on a pre-activation. slopes is d (n, D), or None where there is no second
    term; curvatures is Q (n, D, D).
    """

    inputs: dict[str, Tensor]
    slopes: Tensor | None
    curvatures: Tensor
    jacobians: dict[str, Tensor]


def matrix_by_layers(objective: Objective, layers: list[Layer], matrix: Matrix) -> Tensor:
    """Compute H, G or R of a network of Linear layers, each from its own formula.

    Parameters
    ----------
    objective : Objective
    layers : list of Layer
        From `hesspipe.curvature.layers.find_layers`, all of them Linear.
    matrix : Matrix

    Returns
    -------
    Tensor, shape (P, P)
        In the objective's dtype; exactly symmetric.
    """
    total = zeros(objective.theta, objective.num_parameters, objective.num_parameters)
    for batch in objective.batches:
        for samples in sample_arrays(objective, layers, batch, matrix):
            for layer in layers:
                _add_diagonal_block(total, layer, samples)
            for early, late in combinations(layers, 2):
                add_cross_block(total, late, early, samples)
    for early, late in combinations(layers, 2):
        spans = product((late.weights, late.biases), (early.weights, early.biases))
        for rows, columns in spans:
            total[columns, rows] = total[rows, columns].mT
    return total


def sample_arrays(
    objective: Objective, layers: list[Layer], batch: Batch, matrix: Matrix
) -> Iterator[Samples]:
    """Compute the per-sample arrays of a batch, in chunks of samples that fit into memory."""
    is_ggn = matrix is Matrix.GGN
    step = _SAMPLE_BYTES // (_numbers_per_sample(layers) * objective.theta.element_size())
    weights = (output_curvatures if is_ggn else output_slopes)(objective, batch)
    for part in chunks(len(batch.inputs), step):
        evaluation = evaluate_linear(objective, layers, batch.inputs[part])
        outputs, delta = evaluation.outputs, evaluation.delta
        inputs = extended_inputs(layers, evaluation.inputs)
        if is_ggn:
            jacobian = jacobian_rows(outputs, delta)  # (n, C, D)
            yield Samples(inputs, None, jacobian.mT @ weights[part] @ jacobian, {})
            continue
        if matrix is Matrix.HESSIAN:
            scalar = _loss_of_part(objective, batch, part, outputs)
        else:
            scalar = (weights[part] * outputs).sum()
        (slopes,) = torch.autograd.grad(scalar, delta, create_graph=True)  # (n, D)
        jacobians = {
            name: jacobian_rows(entering, delta)  # (n, K, D)
            for name, entering in evaluation.inputs.items()
            if entering.requires_grad
        }
        yield Samples(inputs, slopes.detach(), jacobian_rows(slopes, delta), jacobians)


def _numbers_per_sample(layers: list[Layer]) -> int:
    """Numbers held at once per sample: Q and the Jacobians, then the factors of one block.

    The input of the first layer depends on no pre-activation, so its width does not count.
    """
    num_units = sum(layer.num_units for layer in layers)
    num_rows = num_units + sum(layer.num_inputs for layer in layers[1:])
    pairs = (late.width * early.num_units for early, late in combinations(layers, 2))
    return num_rows * num_units + max(pairs, default=0)


def _loss_of_part(objective: Objective, batch: Batch, part: slice, outputs: Tensor) -> Tensor:
    """The batch's share of L as a function of the outputs of some of its samples.

    The other samples are held constant rather than left out, so that the loss divides by the
    denominator of the whole batch.
    """
    every_output = objective.outputs(objective.theta, batch.inputs).detach().clone()
    every_output[part] = outputs
    return batch.share * objective.loss_fn(every_output, batch.targets)


def extended_inputs(layers: list[Layer], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make a~_l (n, width), without a graph, from a_l (n, K), by layer name."""
    return {
        layer.name: extend(layer, inputs[layer.name].unsqueeze(2)).squeeze(2) for layer in layers
    }


def jacobian_rows(values: Tensor, delta: Tensor) -> Tensor:
    """Differentiate each sample's values by the perturbation of the same sample.

    Parameters
    ----------
    values : Tensor, shape (n, K)
        Each row depends on the same row of delta alone; without a graph the result is zero.
    delta : Tensor, shape (n, D)

    Returns
    -------
    Tensor, shape (n, K, D)
    """
    jacobian = delta.new_zeros(*values.shape, delta.shape[1])
    if values.requires_grad:
        for row in range(values.shape[1]):
            unit = torch.zeros_like(values)
            unit[:, row] = 1
            (jacobian[:, row],) = torch.autograd.grad(
                values, delta, unit, retain_graph=True, materialize_grads=True
            )
    return jacobian


def _place(total: Tensor, late: Layer, unit: int, early: Layer, block: Tensor) -> None:
    """Add a block (width of late, units of early, width of early) to the rows of one unit."""
    start = late.weight + unit * late.num_inputs
    rows, columns = slice(start, start + late.num_inputs), early.weights
    shape = (early.num_units, early.num_inputs)
    total[rows, columns].unflatten(1, shape).add_(block[: late.num_inputs, :, : early.num_inputs])
    if early.bias is not None:
        total[rows, early.biases] += block[: late.num_inputs, :, -1]
    if late.bias is not None:
        row = total[late.bias + unit]
        row[columns].unflatten(0, shape).add_(block[-1, :, : early.num_inputs])
        if early.bias is not None:
            row[early.biases] += block[-1, :, -1]


def _add_diagonal_block(total: Tensor, layer: Layer, samples: Samples) -> None:
    """Add Q[i, j] a~[a] a~[b], computed for i >= j and a >= b."""
    curvatures = samples.curvatures[:, layer.units, layer.units]  # (n, U, U)
    if not curvatures.any():  # the residual of a piecewise linear network
        return
    inputs = samples.inputs[layer.name]
    i, j, unit_pairs = _symmetric_pairs(layer.num_units, inputs.device)
    input_pairs = _symmetric_pairs(layer.width, inputs.device)[2]
    num_pairs = layer.width * (layer.width + 1) // 2
    packed = zeros(inputs, len(i), num_pairs)  # (pairs of units, pairs of inputs)
    step = max(1, _SAMPLE_BYTES // ((len(i) + num_pairs) * inputs.element_size()))
    for few, changes in zip(inputs.split(step), curvatures.split(step), strict=True):
        packed.addmm_(changes[:, i, j].mT, _products_of_pairs(few))
    for unit in range(layer.num_units):
        rows = packed[unit_pairs[unit]][:, input_pairs.flatten()]  # (U, width * width)
        _place(total, layer, unit, layer, rows.unflatten(1, input_pairs.shape).transpose(0, 1))


def _products_of_pairs(inputs: Tensor) -> Tensor:
    """Products of the inputs (n, width) of each pair in a lower triangle, in rows."""
    width = inputs.shape[1]
    products = zeros(inputs, len(inputs), width * (width + 1) // 2)
    start = 0
    for last in range(width):
        stop = start + last + 1
        torch.mul(inputs[:, : last + 1], inputs[:, last, None], out=products[:, start:stop])
        start = stop
    return products


def _symmetric_pairs(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column of each entry of a lower triangle, and the (size, size) map back."""
    rows, columns = torch.tril_indices(size, size, device=device)
    positions = rows.new_empty(size, size)
    positions[rows, columns] = positions[columns, rows] = torch.arange(len(rows), device=device)
    return rows, columns, positions


def add_cross_block(total: Tensor, late: Layer, early: Layer, samples: Samples) -> None:
    """Add the block of two layers to the rows of the late one, a unit i at a time.

    (Q[i, j] a~_late[a] + d[i] da_late[a]/dz_early[j]) a~_early[b]

    Parameters
    ----------
    total : Tensor
        Its rows are the parameters of the late layer and its columns those of the early one, at
        the positions in `weight` and `bias` of the layers.
    late, early : Layer
        The early one is called first.
    samples : Samples
    """
    late_inputs, early_inputs = samples.inputs[late.name], samples.inputs[early.name]
    if not samples.curvatures[:, late.units, early.units].any():
        _add_coupling(total, late, early, samples)
        return
    jacobian = samples.jacobians.get(late.name)
    for unit in range(late.num_units):
        position = late.first_unit + unit
        curvatures = samples.curvatures[:, position, early.units]  # (n, U of early)
        factors = late_inputs.unsqueeze(2) * curvatures.unsqueeze(1)  # (n, width, U of early)
        if jacobian is not None and samples.slopes is not None:
            slope = samples.slopes[:, position, None, None]
            factors[:, : jacobian.shape[1]] += slope * jacobian[:, :, early.units]
        block = factors.flatten(1).mT @ early_inputs  # (width * U of early, width of early)
        _place(total, late, unit, early, block.unflatten(0, factors.shape[1:]))


def _add_coupling(total: Tensor, late: Layer, early: Layer, samples: Samples) -> None:
    """Add the second term alone, for the pairs of an input and a unit that it couples.

    Between neighboring layers with an elementwise activation there is one pair per unit.
    """
    jacobian = samples.jacobians.get(late.name)
    if jacobian is None or samples.slopes is None:
        return
    between = jacobian[:, :, early.units]  # (n, K of late, U of early)
    entering, units = between.any(0).nonzero(as_tuple=True)
    selected = between[:, entering, units]  # (n, pairs)
    early_inputs = samples.inputs[early.name]  # (n, width of early)
    for unit in range(late.num_units):
        block = total.new_zeros(late.width, early.num_units, early_inputs.shape[1])
        slopes = samples.slopes[:, late.first_unit + unit, None]
        block[entering, units] = (slopes * selected).mT @ early_inputs
        _place(total, late, unit, early, block)

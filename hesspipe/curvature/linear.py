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
of it is computed. Samples that add nothing to the columns of a unit are left out: half of them
where a ReLU is zero for half, and three quarters for a pair of units. The 1/N of the loss is part
of d, Q, S and e.

Cost: O(N P^2) multiply-adds as matrix products, and D backward passes for D pre-activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from hesspipe.curvature.columns import copy_transposed, mirror_lower
from hesspipe.curvature.layers import Layer, chunks, evaluate_linear, extend
from hesspipe.curvature.loss_derivatives import output_curvatures, output_slopes
from hesspipe.curvature.matrix import Matrix
from hesspipe.hardware import zeros
from hesspipe.objective.batches import Batch
from hesspipe.objective.objective import Objective

# Largest set of per-sample arrays at once, in bytes.
_SAMPLE_BYTES = 512 * 2**20
# Multiply-adds of a matrix product that take as long as the calls for one pair of units, 40 us, as
# one weighted entry of an input, as one product of two, and as the copy of an entry of a block.
_PAIR_COST = 1e6
_ENTRY_COST, _PRODUCT_COST, _COPY_COST = 120, 75, 200


@dataclass(frozen=True)
class Samples:
    """Per-sample arrays of one chunk of n samples, over D pre-activations.

    By layer name, inputs holds a~_l (n, width), and jacobians the derivatives of a_l in the
    pre-activations of earlier layers, (n, num_inputs, units), where there are any. slopes is
    d (n, D), zero where there is no second term; curvatures is Q (n, D, D), of which only the
    rows of a layer and the columns of the same and of later layers need be filled.
    """

    inputs: dict[str, Tensor]
    slopes: Tensor
    curvatures: Tensor
    jacobians: dict[str, Tensor]


@dataclass(frozen=True)
class Part:
    """Entries to add to the columns of one unit of a layer.

    Attributes
    ----------
    late, early : Layer
        Of the rows, and of the columns.
    first, start : int
        Unit of late, and entry of a~_late, of the first row.
    unit : int
        Unit of early.
    values : Tensor, shape (units, entries, width of early)
    """

    late: Layer
    first: int
    start: int
    early: Layer
    unit: int
    values: Tensor

    def add_to(self, total: Tensor) -> None:
        """Add the entries in place."""
        early = self.early
        column = early.weight + self.unit * early.num_inputs
        weights = slice(column, column + early.num_inputs)
        self._add_rows(total[:, weights], self.values[..., : early.num_inputs])
        if early.bias is not None:
            self._add_rows(total[:, early.bias + self.unit], self.values[..., -1])

    def _add_rows(self, columns: Tensor, values: Tensor) -> None:
        """Add values (units, entries, ...) to columns (P, ...), in the rows of late."""
        late, count = self.late, len(values)
        inner = values[:, : late.num_inputs - self.start]
        row = late.weight + self.first * late.num_inputs
        rows = columns[row : row + count * late.num_inputs].unflatten(0, (count, late.num_inputs))
        rows[:, self.start : self.start + inner.shape[1]] += inner
        if late.bias is not None and self.start + values.shape[1] > late.num_inputs:
            bias = late.bias + self.first
            columns[bias : bias + count] += values[:, -1]


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
                for part in _diagonal_parts(layer, samples):
                    part.add_to(total)
            for early, late in combinations(layers, 2):
                for part in _cross_parts(late, early, samples):
                    part.add_to(total.mT)
    return _mirrored(total, layers)


def _mirrored(total: Tensor, layers: list[Layer]) -> Tensor:
    """Copy what was added of each block, rows of early or columns of lower units, in place."""
    for layer in layers:
        mirror_lower(total[layer.weights, layer.weights])
        mirror_lower(total[layer.biases, layer.biases])
        if layer.bias is not None:
            shape = (layer.num_units, layer.num_inputs)
            by_bias = total[layer.biases, layer.weights].unflatten(1, shape)  # (i, j, b)
            by_weight = total[layer.weights, layer.biases].unflatten(0, shape)  # (i, a, j)
            for unit in range(1, layer.num_units):
                by_bias[:unit, unit] = by_weight[unit, :, :unit].mT
                by_weight[:unit, :, unit] = by_bias[unit, :unit]
    for early, late in combinations(layers, 2):
        for rows, columns in product((late.weights, late.biases), (early.weights, early.biases)):
            copy_transposed(total[columns, rows], total[rows, columns])
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
        outputs, deltas = evaluation.outputs, list(evaluation.deltas.values())
        inputs = extended_inputs(layers, evaluation.inputs)
        if is_ggn:
            jacobian = jacobian_rows(outputs, deltas)  # (n, C, D)
            curvatures = jacobian.mT @ weights[part] @ jacobian
            yield Samples(inputs, torch.zeros_like(curvatures[:, 0]), curvatures, {})
            continue
        if matrix is Matrix.HESSIAN:
            scalar = _loss_of_part(objective, batch, part, outputs)
        else:
            scalar = (weights[part] * outputs).sum()
        slopes = torch.autograd.grad(scalar, deltas, create_graph=True, materialize_grads=True)
        joint = torch.cat(slopes, dim=1).detach()  # (n, D)
        # In memory the rows of one unit for all samples are together, as they are written and read.
        curvatures = zeros(joint, joint.shape[1], *joint.shape).transpose(0, 1)
        for index, (layer, slope) in enumerate(zip(layers, slopes, strict=True)):
            later = curvatures[:, layer.units, layer.first_unit :]
            _write_jacobian(later, slope, deltas[index:])
        jacobians = {
            layer.name: jacobian_rows(evaluation.inputs[layer.name], deltas[:index])
            for index, layer in enumerate(layers)
            if evaluation.inputs[layer.name].requires_grad
        }
        yield Samples(inputs, joint, curvatures, jacobians)


def _numbers_per_sample(layers: list[Layer]) -> int:
    """Numbers held at once per sample: Q and the Jacobians, then the factors of one block.

    The input of the first layer depends on no pre-activation, so its width does not count.
    """
    num_units = sum(layer.num_units for layer in layers)
    num_rows = num_units + sum(layer.num_inputs for layer in layers[1:])
    return num_rows * num_units + max(layer.num_parameters for layer in layers)


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


def jacobian_rows(values: Tensor, deltas: Sequence[Tensor]) -> Tensor:
    """Differentiate each sample's values by the perturbations of the same sample.

    Parameters
    ----------
    values : Tensor, shape (n, K)
        Each row depends on the same rows of the deltas alone; without a graph the result is zero.
    deltas : sequence of Tensor, shape (n, U) each

    Returns
    -------
    Tensor, shape (n, K, D)
        For the D columns of all deltas.
    """
    jacobian = zeros(values, *values.shape, sum(delta.shape[1] for delta in deltas))
    _write_jacobian(jacobian, values, deltas)
    return jacobian


def _write_jacobian(jacobian: Tensor, values: Tensor, deltas: Sequence[Tensor]) -> None:
    """Write what `jacobian_rows` returns into zeros (n, K, D)."""
    if not values.requires_grad:
        return
    unit = torch.zeros_like(values)
    sizes = [delta.shape[1] for delta in deltas]
    for row in range(values.shape[1]):
        unit.zero_()[:, row] = 1
        slopes = torch.autograd.grad(values, deltas, unit, retain_graph=True, allow_unused=True)
        for part, slope in zip(jacobian[:, row].split(sizes, dim=1), slopes, strict=True):
            if slope is not None:
                part.copy_(slope)


def _diagonal_parts(layer: Layer, samples: Samples) -> Iterator[Part]:
    """Compute Q[i, j] a~[a] a~[b] for i >= j."""
    curvatures = samples.curvatures[:, layer.units, layer.units]  # (n, U, U)
    num_active = int(curvatures.count_nonzero())
    if num_active == 0:  # the residual of a piecewise linear network
        return
    inputs = samples.inputs[layer.name]
    compute = (
        _blocks_by_pair if _is_cheaper_by_pair(layer, len(inputs), num_active) else _packed_blocks
    )
    for unit, block in enumerate(compute(inputs, curvatures)):
        yield Part(layer, unit, 0, layer, unit, block)


def _is_cheaper_by_pair(layer: Layer, num_samples: int, num_active: int) -> bool:
    """Compare the multiply-adds of both ways, or what takes as long, for one pair of units."""
    num_pairs = layer.num_units * (layer.num_units + 1) / 2
    area, active = layer.width**2, num_active / layer.num_units**2
    by_pair = (area + _ENTRY_COST * layer.width) * active + _PAIR_COST
    packed = area * (num_samples / 2 * (1 + _PRODUCT_COST / num_pairs) + _COPY_COST)
    return by_pair < packed


def _blocks_by_pair(inputs: Tensor, curvatures: Tensor) -> Iterator[Tensor]:
    """Compute (U - j, width, width) for each j, from the samples in which both units are active.

    Each is overwritten by the next: memory that is new takes as long as the products.
    """
    num_units, width = curvatures.shape[1], inputs.shape[1]
    room = inputs.new_empty(num_units, width, width)
    for unit in range(num_units):
        changes = curvatures[:, unit, unit:]  # (n, U - j)
        own = _active(changes)
        own_inputs = inputs.index_select(0, own)
        block = room[: num_units - unit]
        for rows, every_change in zip(block, changes[own].mT.contiguous(), strict=True):
            active = every_change.nonzero().flatten()
            few = own_inputs.index_select(0, active)
            weights = every_change.index_select(0, active).unsqueeze(1)
            torch.mm((few * weights).mT, few, out=rows)
        mirror_lower(block[0])
        yield block


def _packed_blocks(inputs: Tensor, curvatures: Tensor) -> Iterator[Tensor]:
    """Compute (U - j, width, width) for each j, in one product for i >= j and a >= b."""
    i, j, unit_pairs = _symmetric_pairs(curvatures.shape[1], inputs.device)
    input_pairs = _symmetric_pairs(inputs.shape[1], inputs.device)[2]
    num_pairs = inputs.shape[1] * (inputs.shape[1] + 1) // 2
    packed = zeros(inputs, len(i), num_pairs)  # (pairs of units, pairs of inputs)
    step = max(1, _SAMPLE_BYTES // ((len(i) + num_pairs) * inputs.element_size()))
    for few, changes in zip(inputs.split(step), curvatures.split(step), strict=True):
        packed.addmm_(changes[:, i, j].mT, _products_of_pairs(few))
    for unit in range(curvatures.shape[1]):
        rows = packed[unit_pairs[unit, unit:]][:, input_pairs.flatten()]  # (U - j, width * width)
        yield rows.unflatten(1, input_pairs.shape)


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
    """Add the block of two layers.

    Parameters
    ----------
    total : Tensor
        Its rows are the parameters of the late layer and its columns those of the early one, at
        the positions in `weight` and `bias` of the layers.
    late, early : Layer
        The early one is called first.
    samples : Samples
    """
    for part in _cross_parts(late, early, samples):
        part.add_to(total)


def _cross_parts(late: Layer, early: Layer, samples: Samples) -> Iterator[Part]:
    """Compute (Q[i, j] a~_late[a] + d[i] da_late[a]/dz_early[j]) a~_early[b]."""
    late_inputs, early_inputs = samples.inputs[late.name], samples.inputs[early.name]
    every_change = samples.curvatures[:, early.units, late.units].unbind(1)
    jacobian = samples.jacobians.get(late.name)
    if jacobian is None:
        jacobian = late_inputs.new_zeros(len(late_inputs), 0, samples.slopes.shape[1])
    every_move = jacobian[:, :, early.units].permute(2, 0, 1).contiguous()
    late_slopes = samples.slopes[:, late.units]
    for unit, (changes, moved) in enumerate(zip(every_change, every_move, strict=True)):
        active = _active(changes, moved)
        changes, moved, slopes, entering, inputs = (
            array.index_select(0, active)
            for array in (changes, moved, late_slopes, late_inputs, early_inputs)
        )
        start, stop = _span(moved)
        factors = slopes.unsqueeze(2) * moved[:, None, start:stop]  # (n, U, stop - start)
        if changes.any():
            coupling = factors
            factors = changes.unsqueeze(2) * entering.unsqueeze(1)  # (n, U, width)
            factors[:, :, start:stop] += coupling
            start = 0
        # With the few rows first: MKL takes a quarter less than for the transpose.
        values = inputs.mT @ factors.flatten(1)  # (width of early, U * entries)
        values = values.unflatten(1, factors.shape[1:]).permute(1, 2, 0)
        yield Part(late, 0, start, early, unit, values)


def _active(*arrays: Tensor) -> Tensor:
    """Positions of the samples (n,) where an entry of any array (n, ...) is not zero."""
    sizes = [array.abs().sum(1) for array in arrays]  # faster than `any`, and nan remains nan
    return torch.stack(sizes).any(0).nonzero().flatten()


def _span(moved: Tensor) -> tuple[int, int]:
    """Start and stop of the columns with non-zero entries: one for an elementwise activation."""
    entering = moved.any(0).nonzero().flatten().tolist()
    return (entering[0], entering[-1] + 1) if entering else (0, 0)

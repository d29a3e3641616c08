"""Exact H, G and R of any network, column by column.

    H = d2L/dtheta2                        products with unit vectors: the graph of dL/dtheta is
                                           built once and differentiated again, in blocks
    R = sum_n sum_c e_nc d2f_c/dtheta2     the same for sum_n <e_n, f(theta; x_n)>, e_n constant
    G = sum_n J_n^T S_n J_n                per-sample Jacobians and symmetric rank-k updates with
                                           the factors of S_n; or products, where samples are not
                                           independent, or products are much cheaper

Only reverse-mode differentiation is used; see `hesspipe.curvature.products`. Columns of parameters
that are constant are left out.

Cost: P/32 backward passes of a block of 32, so O(P N P). For networks of Linear layers,
`hesspipe.curvature.linear` is tens of times faster; this module is its reference.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature.layers import chunks
from hesspipe.curvature.loss_derivatives import (
    add_weight_decay,
    curvature_factors,
    decay_diagonal,
)
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import BatchProduct, pull_back
from hesspipe.curvature.whole_outputs import output_factors, outputs_of_batches, pulled_rows
from hesspipe.errors import TooLargeError
from hesspipe.hardware import zeros
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective
from hesspipe.objective.pytrees import Fields
from hesspipe.progress import bar_options

# Blocks of 16 to 64 vectors are fastest on CPUs: larger ones do not fit into the cache.
# Measured for 100-30-30-10, N = 1000: 1.5 ms a column at 32, 3.2 ms with all at once.
_COLUMNS_PER_BLOCK = 32
# Largest array of per-sample Jacobians at once, in bytes.
_JACOBIAN_BYTES = 512 * 2**20
# Costs in multiply-adds of a product with vectors, of which one core does 4e9 a second. Measured:
# half a millisecond for the derivatives for one sample in Python, as much for those of a block of
# vectors; multiplying-add in dsyrk is 8 times faster. Below a second Jacobians are taken in any
# case: they share less with the products that the matrix is compared with.
_CALL_COST = 2e6
_DSYRK_SPEED = 8
_CHEAP = 4e9


@differentiating()
def hessian_by_columns(
    objective: Objective, columns_per_block: int = _COLUMNS_PER_BLOCK, progress: bool | None = None
) -> Tensor:
    """Compute H, the second derivative of L with its weight decay, for any network.

    Parameters
    ----------
    objective : Objective
    columns_per_block : int
        Vectors multiplied at once. 1 needs the least memory, and no vmap rules for the
        operations of the network.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    Tensor, shape (P, P)
        In the objective's dtype; symmetric up to rounding.
    """
    total = _second_derivative(objective, Matrix.HESSIAN, columns_per_block, progress)
    return add_weight_decay(objective, Matrix.HESSIAN, total)


@differentiating()
def residual_by_columns(
    objective: Objective, columns_per_block: int = _COLUMNS_PER_BLOCK, progress: bool | None = None
) -> Tensor:
    """Compute R = sum_n sum_c e_nc d2f_c/dtheta2 from this formula, for any network.

    Parameters and Returns as for `hessian_by_columns`.
    """
    return _second_derivative(objective, Matrix.RESIDUAL, columns_per_block, progress)


@differentiating()
def ggn_by_columns(objective: Objective, progress: bool | None = None) -> Tensor:
    """Compute G = sum_n J_n^T S_n J_n from per-sample Jacobians, for any network.

    The factors T_n of S_n turn each sample into rows T_n^T J_n, whose squares are added or, for
    a loss that is not convex in the outputs, subtracted. Where samples are not independent, or
    there are so many of them or of outputs that P products cost less, products with unit vectors
    are computed instead.

    Parameters
    ----------
    objective : Objective
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    Tensor, shape (P, P)
        In the objective's dtype; symmetric up to rounding.
    """
    if _takes_whole_outputs(objective):
        with suppress(TooLargeError, ValueError):  # products need no curvature of the loss
            return add_weight_decay(objective, Matrix.GGN, _ggn_by_outputs(objective, progress))
    if not _takes_jacobians(objective):
        total = _second_derivative(objective, Matrix.GGN, _COLUMNS_PER_BLOCK, progress)
        return add_weight_decay(objective, Matrix.GGN, total)
    total = zeros(objective.theta, objective.num_parameters, objective.num_parameters)
    for batch in tqdm(objective.batches, desc="ggn", **bar_options(progress), unit="batch"):
        factors, signs = curvature_factors(objective, batch)
        row_bytes = objective.num_parameters * objective.theta.element_size()
        for part in chunks(len(batch.inputs), _JACOBIAN_BYTES // (signs.shape[1] * row_bytes)):
            with objective.explained(batch):
                jacobians = _jacobians(objective, batch.inputs[part])  # (n, C, P)
            rows = factors[part].mT @ jacobians  # (n, C, P)
            add_squares(total, rows[signs[part] > 0], 1.0)
            add_squares(total, rows[signs[part] < 0], -1.0)
    return add_weight_decay(objective, Matrix.GGN, mirror_lower(total))


def _ggn_by_outputs(objective: Objective, progress: bool | None) -> Tensor:
    """Add the squares of T^T J, batch by batch, where samples are not independent."""
    total = objective.theta.new_zeros(objective.num_parameters, objective.num_parameters)
    row_bytes = objective.num_parameters * objective.theta.element_size()
    for batch in tqdm(objective.batches, desc="ggn", **bar_options(progress), unit="batch"):
        factors, signs = output_factors(objective, batch, is_rounding_kept=True)
        for sign in (1.0, -1.0):
            chosen = factors[:, signs == sign]
            for part in chunks(chosen.shape[1], _JACOBIAN_BYTES // row_bytes):
                rows = list(pulled_rows(objective, batch, chosen[:, part]))
                add_squares(total, torch.cat(rows), sign)
    return mirror_lower(total)


def _takes_whole_outputs(objective: Objective) -> bool:
    """Whether G is computed from all outputs of each batch, and not from P products.

    A product takes three passes and an output one, besides the update of G, some 16 of which take
    as long as a pass for one sample. The third is left for what forms the curvature of the loss.
    """
    if objective.is_separable:
        return False
    counts = outputs_of_batches(objective)
    return counts is not None and max(counts, default=0) <= int(objective.is_varied.sum())


def outputs_per_sample(objective: Objective) -> int | None:
    """Count the outputs of a sample; None if samples are coupled or cannot be evaluated alone."""
    if not objective.is_separable:
        return None
    try:
        return objective.outputs(objective.theta, objective.batches[0].inputs[:1]).shape[1]
    except Exception:  # of any kind: the network was not written for one sample
        return None


def _takes_jacobians(objective: Objective) -> bool:
    """Whether G is computed from per-sample Jacobians, and not from products."""
    num_outputs = outputs_per_sample(objective)
    if num_outputs is None:
        return False
    size, num_data = objective.num_parameters, objective.num_data
    by_sample = _CALL_COST + num_outputs**3 + num_outputs * size * (1 + size / _DSYRK_SPEED)
    num_varied = int(objective.is_varied.sum())
    # 3 passes, each of about two multiply-adds for each parameter and sample.
    by_products = num_varied * (_CALL_COST / _COLUMNS_PER_BLOCK + 3 * num_data * size)
    return num_data * by_sample <= max(_CHEAP, by_products)


@differentiating()
def multiply(objective: Objective, matrix: Matrix | str, vectors: Tensor) -> Tensor:
    """Multiply H, G or R with vectors, without forming the matrix.

    Parameters
    ----------
    objective : Objective
    matrix : {"hessian", "ggn", "residual"}
    vectors : Tensor, shape (K, P)
        One vector a row.

    Returns
    -------
    Tensor, shape (K, P)
    """
    matrix = Matrix(matrix)
    products = decay_diagonal(objective, matrix) * vectors
    for batch in objective.batches:
        products += BatchProduct(objective, matrix, batch)(vectors)
    return products


def combine_gradients(objective: Objective, cotangents: Tensor) -> Tensor:
    """Compute sum_n J_n^T c_n, for several sets of c_n of one graph.

    Parameters
    ----------
    objective : Objective
    cotangents : Tensor, shape (k, N, C)
        c_n, in the order of the batches.

    Returns
    -------
    Tensor, shape (k, P)
    """
    theta = objective.theta.clone().requires_grad_()
    sizes = [len(batch.inputs) for batch in objective.batches]
    totals = theta.new_zeros(len(cotangents), len(theta))
    for batch, weights in zip(objective.batches, cotangents.split(sizes, 1), strict=True):
        with objective.explained(batch):
            outputs = objective.outputs(theta, batch.inputs)
        for total, vector in zip(totals, weights, strict=True):
            total += torch.autograd.grad(
                outputs, theta, vector, retain_graph=True, materialize_grads=True
            )[0]
    return totals


def _second_derivative(
    objective: Objective, matrix: Matrix, columns_per_block: int, progress: bool | None
) -> Tensor:
    if columns_per_block < 1:
        raise ValueError(f"columns_per_block must be at least 1, got {columns_per_block}")
    size = objective.num_parameters
    total = objective.theta.new_zeros(size, size)
    blocks = objective.is_varied.nonzero().flatten().split(columns_per_block)
    for number, batch in enumerate(objective.batches):
        multiply_block = BatchProduct(objective, matrix, batch)
        label = f"columns, batch {number + 1}/{len(objective.batches)}"
        for entries in tqdm(blocks, desc=label, **bar_options(progress), unit="block"):
            units = objective.theta.new_zeros(len(entries), size)
            units[torch.arange(len(entries), device="cpu"), entries] = 1
            total[entries] += multiply_block(units)
    return total


def _jacobians(objective: Objective, inputs: Tensor | Fields) -> Tensor:
    """J_n for each sample, of shape (n, C, P); one sample at a time, so that none can mix."""
    theta = objective.theta.clone().requires_grad_()
    rows = []
    for number in range(len(inputs)):
        outputs = objective.outputs(theta, inputs[number : number + 1]).squeeze(0)
        units = torch.eye(len(outputs), dtype=outputs.dtype, device=outputs.device)
        rows.append(pull_back(outputs, theta, units))
    return torch.stack(rows)


def add_squares(total: Tensor, rows: Tensor, sign: float) -> None:
    """Add sign * rows^T rows to the lower triangle of total (row-major), in place."""
    if len(rows) == 0:
        return
    if total.device.type == "cpu" and total.dtype == torch.float64:
        # BLAS is column-major: our lower triangle is the upper one of the transpose.
        updated = dsyrk(
            sign, rows.numpy().T, beta=1.0, c=total.numpy().T, lower=False, overwrite_c=True
        )
        assert updated.ctypes.data == total.data_ptr()  # dsyrk worked in place
    else:
        total.addmm_(rows.T, rows, alpha=sign)


def mirror_lower(matrix: Tensor, block: int = 256) -> Tensor:
    """Copy the lower triangle onto the upper one, in place, by blocks that fit into the cache."""
    for start in range(0, len(matrix), block):
        rows = slice(start, start + block)
        corner = matrix[rows, rows]
        corner.copy_(corner.tril() + corner.tril(-1).mT)
        copy_transposed(matrix[rows, :start], matrix[:start, rows], block)
    return matrix


def copy_transposed(source: Tensor, target: Tensor, block: int = 256) -> None:
    """Copy the transpose of a matrix by blocks that fit into the cache."""
    for row in range(0, source.shape[0], block):
        for column in range(0, source.shape[1], block):
            part = source[row : row + block, column : column + block]
            target[column : column + block, row : row + block] = part.mT

"""Exact matrices for any network, column by column.

    H   rows are products of H with unit vectors: the first-order graph of L is built once
        and differentiated again, for a block of vectors at a time
    R   the same for the scalar sum_n <e_n, f(theta; x_n)> with e_n held constant
    G   per-sample Jacobians J_n and a symmetric rank-k update with the factors of S_n

Cost: about P/32 backward passes of a block of 32, so O(P N P). Where the parameters sit in
Linear layers, `hesspipe.layers` is tens of times faster; this module is its reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature import output_curvatures, output_slopes
from hesspipe.objective import Batch, Objective

# Blocks of 16 to 64 vectors are fastest on CPUs: larger ones fall out of the cache.
# Measured for 100-30-30-10, N = 1000: 1.5 ms a column at 32, 3.2 ms with all at once.
_COLUMNS_PER_BLOCK = 32
# Largest array of per-sample Jacobians at once, in bytes.
_JACOBIAN_BYTES = 512 * 2**20

ScalarFunction = Callable[[Tensor, Batch], Tensor]


def hessian_by_columns(
    objective: Objective, columns_per_block: int = _COLUMNS_PER_BLOCK, progress: bool = False
) -> Tensor:
    """Compute H, the second derivative of L, for any network.

    Parameters
    ----------
    objective : Objective
    columns_per_block : int
        Vectors multiplied at once. 1 needs the least memory, and no vmap rule for the
        network's operations.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Tensor, shape (P, P)
        In the objective's dtype; symmetric up to rounding.
    """
    return _second_derivative(objective, _batch_loss(objective), columns_per_block, progress)


def residual_by_columns(
    objective: Objective, columns_per_block: int = _COLUMNS_PER_BLOCK, progress: bool = False
) -> Tensor:
    """Compute R = sum_n sum_c e_nc d2f_c/dtheta2 from this formula, for any network.

    Parameters and Returns as for `hessian_by_columns`.
    """
    return _second_derivative(objective, _linearized_loss(objective), columns_per_block, progress)


def ggn_by_columns(objective: Objective, progress: bool = False) -> Tensor:
    """Compute G = sum_n J_n^T S_n J_n from per-sample Jacobians, for any network.

    S_n = V diag(s) V^T turns each sample into C rows sqrt(|s|) V^T J_n, whose squares are
    added or, for a loss that is not convex in the outputs, subtracted.

    Parameters
    ----------
    objective : Objective
    progress : bool
        Show a progress bar.

    Returns
    -------
    Tensor, shape (P, P)
        In the objective's dtype; exactly symmetric.
    """
    total = objective.theta.new_zeros(objective.num_parameters, objective.num_parameters)
    for batch in tqdm(objective.batches, desc="ggn", disable=not progress, unit="batch"):
        values, vectors = torch.linalg.eigh(output_curvatures(objective, batch))
        # Rounding leaves curvatures of this size where there are none.
        floor = values.shape[-1] * torch.finfo(values.dtype).eps * values.abs().max()
        for part in _sample_chunks(objective, batch):
            jacobians = _jacobians(objective, batch.inputs[part])
            rows = vectors[part].mT @ jacobians * values[part].abs().sqrt().unsqueeze(-1)
            _add_squares(total, rows[values[part] > floor], 1.0)
            _add_squares(total, rows[values[part] < -floor], -1.0)
    return _mirror_lower(total)


def multiply(objective: Objective, matrix: str, vectors: Tensor) -> Tensor:
    """Multiply H, G or R with vectors, without forming the matrix.

    Parameters
    ----------
    objective : Objective
    matrix : str
        "hessian", "ggn" or "residual".
    vectors : Tensor, shape (K, P)
        One vector a row.

    Returns
    -------
    Tensor, shape (K, P)
    """
    if matrix == "ggn":
        return torch.stack([_ggn_product(objective, vector) for vector in vectors])
    function = (_batch_loss if matrix == "hessian" else _linearized_loss)(objective)
    products = torch.zeros_like(vectors)
    for batch in objective.batches:
        products += _products(objective, function, batch)(vectors)
    return products


def _batch_loss(objective: Objective) -> ScalarFunction:
    return lambda theta, batch: batch.share * objective.batch_loss(theta, batch)


def _linearized_loss(objective: Objective) -> ScalarFunction:
    """sum_n <e_n, f(theta; x_n)>, with e_n constant."""

    def function(theta: Tensor, batch: Batch) -> Tensor:
        slopes = output_slopes(objective, batch)
        return (slopes * objective.outputs(theta, batch.inputs)).sum()

    return function


def _products(
    objective: Objective, function: ScalarFunction, batch: Batch
) -> Callable[[Tensor], Tensor]:
    """Build the gradient's graph once; differentiate it for each block of vectors."""
    theta = objective.theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        function(theta, batch), theta, create_graph=True, materialize_grads=True
    )

    def multiply_block(vectors: Tensor) -> Tensor:
        if not gradient.requires_grad:  # the function is linear in theta
            return torch.zeros_like(vectors)
        if len(vectors) == 1:
            (row,) = torch.autograd.grad(
                gradient, theta, vectors[0], retain_graph=True, materialize_grads=True
            )
            return row.unsqueeze(0)
        (rows,) = torch.autograd.grad(
            gradient, theta, vectors, retain_graph=True, is_grads_batched=True
        )
        return rows

    return multiply_block


def _second_derivative(
    objective: Objective, function: ScalarFunction, columns_per_block: int, progress: bool
) -> Tensor:
    if columns_per_block < 1:
        raise ValueError(f"columns_per_block must be at least 1, got {columns_per_block}")
    size = objective.num_parameters
    total = objective.theta.new_zeros(size, size)
    starts = range(0, size, columns_per_block)
    for number, batch in enumerate(objective.batches):
        multiply_block = _products(objective, function, batch)
        label = f"columns, batch {number + 1}/{len(objective.batches)}"
        for start in tqdm(starts, desc=label, disable=not progress, unit="block"):
            stop = min(start + columns_per_block, size)
            units = objective.theta.new_zeros(stop - start, size)
            units[:, start:stop].fill_diagonal_(1)
            total[start:stop] += multiply_block(units)
    return total


def _ggn_product(objective: Objective, vector: Tensor) -> Tensor:
    """G v = sum_n J_n^T (S_n (J_n v)), one forward and one backward pass."""
    product = torch.zeros_like(vector)
    for batch in objective.batches:
        curvatures = output_curvatures(objective, batch)

        def outputs(theta: Tensor, inputs: Tensor = batch.inputs) -> Tensor:
            return objective.outputs(theta, inputs)

        tangents: Tensor = torch.func.jvp(outputs, (objective.theta,), (vector,))[1]
        pull_back = torch.func.vjp(outputs, objective.theta)[1]
        product += pull_back(torch.einsum("ncd,nd->nc", curvatures, tangents))[0]
    return product


def _sample_chunks(objective: Objective, batch: Batch) -> Iterator[slice]:
    """Slices of samples whose Jacobians fit into the budget."""
    num_outputs = objective.outputs(objective.theta, batch.inputs[:1]).numel()
    row_bytes = objective.num_parameters * objective.theta.element_size()
    step = max(1, _JACOBIAN_BYTES // (num_outputs * row_bytes))
    for start in range(0, len(batch.inputs), step):
        yield slice(start, start + step)


def _jacobians(objective: Objective, inputs: Tensor) -> Tensor:
    """J_n for each sample, of shape (n, C, P)."""

    def single(theta: Tensor, sample: Tensor) -> Tensor:
        return objective.outputs(theta, sample.unsqueeze(0)).squeeze(0)

    jacobian = torch.func.vmap(torch.func.jacrev(single), in_dims=(None, 0))
    result: Tensor = jacobian(objective.theta, inputs)
    return result


def _add_squares(total: Tensor, rows: Tensor, sign: float) -> None:
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


def _mirror_lower(matrix: Tensor, block: int = 1024) -> Tensor:
    """Copy the lower triangle onto the upper one, in place."""
    size = len(matrix)
    for start in range(0, size, block):
        stop = min(start + block, size)
        corner = matrix[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).mT)
        matrix[start:stop, stop:] = matrix[stop:, start:stop].mT
    return matrix

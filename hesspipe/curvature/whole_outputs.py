"""G of batches that are not divided into samples, from all outputs of each as one vector.

For all outputs of a batch, f_b in R^K of whatever shape, and the loss L of all the data,

    S_b = d2L/df_b2 = T_b D_b T_b^T        (K x K); D_b holds signs
    G = sum_b J_b^T S_b J_b = A D A^T,     A = [J_b^T T_b], one column for each column of T_b

There are K of them at most, and fewer where S_b has zeros, e.g. n (C - 1) for the cross-entropy of
n samples, and none for labels that are ignored. So A takes K backward passes for each batch, where
products with unit vectors take P.

S_b is formed by one backward pass of the loss for each output. Outputs that the loss does not
couple, such as those of different samples or positions, are blocks of it that are split apart, each
with its own rounding error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from hesspipe.curvature.layers import chunks
from hesspipe.curvature.products import graph_bytes, num_at_once, pull_back, slopes_of_vector
from hesspipe.hardware import require
from hesspipe.objective.batches import Batch
from hesspipe.objective.objective import Objective
from hesspipe.objective.rounding import measured_rounding
from hesspipe.seeding import probe

# Of S_b, with what diagonalizing it takes.
_NUM_COPIES = 3
_NUM_SIGNS = 3
# Memory for the graphs of rows at once, where not the cache is what limits them.
_BLOCK_BYTES = 2**30


def outputs_of_batches(objective: Objective) -> list[int] | None:
    """Count the outputs of each batch, K; None if the objective has none that define G."""
    try:
        return [
            objective.output_vector(objective.theta, batch).numel() for batch in objective.batches
        ]
    except Exception:  # of any kind: of G, nothing but products may remain
        return None


def output_factors(
    objective: Objective, batch: Batch, *, is_rounding_kept: bool = False
) -> tuple[Tensor, Tensor]:
    """Split the curvature of the loss in all outputs of a batch: S = T diag(signs) T^T.

    Parameters
    ----------
    objective : Objective
    batch : Batch
    is_rounding_kept : bool
        Keep eigenvalues of S that may be only the rounding error of a zero, whose signs are noise.

    Returns
    -------
    factors : Tensor, shape (K, r)
        T.
    signs : Tensor, shape (r,)
        1 or -1.

    Raises
    ------
    TooLargeError
        If S does not fit into memory; raised before allocating.
    ValueError
        If S is not finite, or not continuous at the outputs.
    """
    outputs = objective.output_vector(objective.theta, batch).detach()
    size = outputs.numel()
    require(
        _NUM_COPIES * size**2 * outputs.element_size(),
        f"the curvature of the loss in {size:,} outputs of batch {batch.number}",
        "use smaller batches, or hesspipe.eigenpairs and hesspipe.density, which form no matrix",
        device=outputs.device,
    )
    curvature = _curvature(objective, batch, outputs)
    if not torch.isfinite(curvature).all():
        raise ValueError(
            "the second derivative of the loss in the outputs must be finite, got nan or inf in "
            f"batch {batch.number}; check its outputs and targets"
        )
    blocks = _blocks(curvature)
    floors = curvature.new_zeros(len(blocks))
    if not is_rounding_kept:
        floors = _rounding_of_blocks(objective, batch, outputs, curvature, blocks)
    return _split(curvature, blocks, floors)


def pulled_rows(objective: Objective, batch: Batch, factors: Tensor) -> Iterator[Tensor]:
    """T^T J of a batch, as many rows (k, P) at once as is fast."""
    theta = objective.theta.clone().requires_grad_()
    outputs = objective.output_vector(theta, batch)
    step = num_at_once(graph_bytes([outputs]), theta.device, _BLOCK_BYTES)
    with objective.explained(batch):
        for part in chunks(factors.shape[1], step):
            yield pull_back(outputs, theta, factors[:, part].mT)


def _curvature(objective: Objective, batch: Batch, outputs: Tensor) -> Tensor:
    """Differentiate the slopes of the loss by all outputs: (K, K)."""
    leaf, slopes = slopes_of_vector(objective, outputs, batch)
    rows = outputs.new_zeros(len(outputs), len(outputs))
    step = num_at_once(graph_bytes([slopes]), outputs.device, _BLOCK_BYTES)
    for part in chunks(len(rows), step):
        units = torch.zeros_like(rows[part])
        units[:, part].fill_diagonal_(1)
        rows[part] = pull_back(slopes, leaf, units)
    return rows


def _rounding_of_blocks(
    objective: Objective,
    batch: Batch,
    outputs: Tensor,
    curvature: Tensor,
    blocks: list[np.ndarray[Any, Any]],
) -> Tensor:
    """Bound the rounding errors of the eigenvalues of each block.

    That of S is measured by products with random signs w: |E w| is on average |E| in the Frobenius
    norm, for each block.
    """
    labels = _labels(blocks, len(outputs)).to(outputs.device)
    signs = probe(outputs.new_empty(_NUM_SIGNS, len(outputs))).sign()  # (k, K)

    def norms(rows: Tensor) -> Tensor:
        return _block_norms(rows.mT, labels, len(blocks))

    def products() -> Tensor:
        leaf, slopes = slopes_of_vector(objective, outputs, batch)
        return torch.cat([pull_back(slopes, leaf, row) for row in signs.split(1)])

    measured = measured_rounding(
        products, signs @ curvature, norms, "the second derivative of the loss in the outputs"
    )
    # The backward error of the eigensolver.
    sizes = torch.tensor(list(map(len, blocks)), dtype=measured.dtype, device=measured.device)
    eps = torch.finfo(outputs.dtype).eps
    return measured + eps * sizes * _block_norms(curvature, labels, len(blocks))


def _blocks(curvature: Tensor) -> list[np.ndarray[Any, Any]]:
    """Find the outputs that the loss couples; those without curvature are alone."""
    is_coupled = (curvature != 0).cpu().numpy()
    count, labels = connected_components(csr_array(is_coupled), directed=False)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(1, count))
    return np.split(order, bounds)


def _labels(blocks: list[np.ndarray[Any, Any]], size: int) -> Tensor:
    """Number of the block of each output (K,)."""
    labels = np.empty(size, dtype=np.int64)
    for number, block in enumerate(blocks):
        labels[block] = number
    return torch.from_numpy(labels)


def _block_norms(change: Tensor, labels: Tensor, count: int) -> Tensor:
    """Frobenius norms of the rows of each block, also where squares underflow: (count,)."""
    scale = float(change.abs().max()) if change.numel() else 0.0
    if not 0 < scale < float("inf"):
        return change.new_full((count,), scale)
    squares = (change / scale).square().sum(1)
    return scale * change.new_zeros(count).index_add_(0, labels, squares).sqrt()


def _split(
    curvature: Tensor, blocks: list[np.ndarray[Any, Any]], floors: Tensor
) -> tuple[Tensor, Tensor]:
    """Diagonalize the blocks, and leave out eigenvalues within their rounding errors."""
    columns, signs = [], []
    for block, floor in zip(blocks, floors.tolist(), strict=True):
        places = torch.from_numpy(block).to(curvature.device)
        values, vectors = torch.linalg.eigh(curvature[places][:, places])
        kept = values.abs() > floor
        if kept.any():
            column = curvature.new_zeros(len(curvature), int(kept.sum()))
            column[places] = vectors[:, kept] * values[kept].abs().sqrt()
            columns.append(column)
            signs.append(values[kept].sign())
    if not columns:
        return curvature.new_zeros(len(curvature), 0), curvature.new_zeros(0)
    return torch.cat(columns, dim=1), torch.cat(signs)

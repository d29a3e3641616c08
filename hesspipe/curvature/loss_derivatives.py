"""First and second derivatives of the loss in the outputs of the network.

For samples n = 1..N with outputs f_n = f(theta; x_n) in R^C, and the loss L a sum over samples
of functions of f_n, this module computes

    e_n = dL/df_n          (C)        slope
    S_n = d2L/df_n2        (C x C)    curvature; for softmax cross-entropy (diag(p) - p p^T)/N
    S_n = T_n D_n T_n^T               factors of the curvature, with signs D_n

The 1/N of a mean, or whatever else the loss divides by, is part of both.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from hesspipe.curvature.matrix import Matrix
from hesspipe.errors import NotASumOverSamplesError
from hesspipe.hardware import require
from hesspipe.objective.objective import Batch, Objective
from hesspipe.seeding import probe_generator


def detached_outputs(objective: Objective, batch: Batch) -> Tensor:
    """Evaluate f(theta; x) on a batch, as a leaf of a new graph.

    Returns
    -------
    Tensor, shape (n, C)

    Raises
    ------
    ValueError
        If the model's outputs are not one vector per sample, or there is no model.
    """
    with torch.no_grad():
        outputs = objective.outputs(objective.theta, batch.inputs)
    return outputs.requires_grad_()


def at_zero_outputs(objective: Objective) -> Objective:
    """Copy an objective with the loss evaluated at outputs of zero, its derivatives included.

    Its slopes and curvatures have the size of the original's before the loss saturates. Where a
    confident softmax computes p - p^2 near p = 1, the result is tiny, and its rounding error is
    eps times this size, not eps times the result.
    """
    neutral = copy.copy(objective)
    neutral.batches = [replace(batch, value=None) for batch in objective.batches]
    neutral.loss_fn = lambda outputs, targets: objective.loss_fn(
        outputs - outputs.detach(), targets
    )
    return neutral


def output_slopes(objective: Objective, batch: Batch) -> Tensor:
    """Compute e_n for each sample of a batch.

    Returns
    -------
    Tensor, shape (n, C)
        Weighted by the batch's share of L.
    """
    outputs = detached_outputs(objective, batch)
    loss = batch.share * objective.loss_fn(outputs, batch.targets)
    (slopes,) = torch.autograd.grad(loss, outputs)
    return slopes


def output_curvatures(objective: Objective, batch: Batch) -> Tensor:
    """Compute S_n for each sample of a batch.

    One backward pass per output gives a row of every S_n at once, because the loss of a sample
    depends on the outputs for that sample alone, which is tested in a random direction.

    Returns
    -------
    Tensor, shape (n, C, C)
        Weighted by the batch's share of L.

    Raises
    ------
    NotASumOverSamplesError
        If the loss couples samples.
    TooLargeError
        If the result does not fit into memory.
    """
    outputs = detached_outputs(objective, batch)
    loss = batch.share * objective.loss_fn(outputs, batch.targets)
    (slopes,) = torch.autograd.grad(loss, outputs, create_graph=True)
    num_samples, num_outputs = outputs.shape
    require(
        num_samples * num_outputs**2 * outputs.element_size(),
        f"the curvature of the loss in {num_outputs:,} outputs of {num_samples:,} samples",
        "use hesspipe.GGNOperator or smaller batches",
    )
    curvatures = outputs.new_zeros(num_samples, num_outputs, num_outputs)
    if not slopes.requires_grad:  # a loss linear in the outputs
        return curvatures
    _check_separable(outputs, slopes)
    for output in range(num_outputs):
        (curvatures[:, output],) = torch.autograd.grad(
            slopes[:, output].sum(), outputs, retain_graph=True
        )
    return curvatures


def curvature_factors(objective: Objective, batch: Batch) -> tuple[Tensor, Tensor]:
    """Split S_n into factors: S_n = T_n diag(signs_n) T_n^T.

    From S_n = V diag(s) V^T, T_n = V sqrt(|s|). Signs are needed because the loss need not be
    convex in the outputs.

    Returns
    -------
    factors : Tensor, shape (n, C, C)
        T_n, one factor per column.
    signs : Tensor, shape (n, C)
        1, -1, or 0 where a factor is only the rounding error of a zero.
    """
    if objective.coupling is not None:
        raise ValueError(
            "model must treat samples independently for G, got one that couples them; "
            "use running statistics in batch normalization"
        )
    values, vectors = torch.linalg.eigh(output_curvatures(objective, batch))
    size = values.abs().max()
    neutral = output_curvatures(at_zero_outputs(objective), batch).abs().max()
    if neutral > size:  # false also where the loss is not defined at zero
        size = neutral
    # Rounding errors have this size where the curvature is zero.
    floor = values.shape[-1] * torch.finfo(values.dtype).eps * size
    signs = (values > floor).to(values) - (values < -floor).to(values)
    return vectors * values.abs().sqrt().unsqueeze(-2), signs


def decay_diagonal(objective: Objective, matrix: Matrix) -> Tensor:
    """Return what weight decay adds to the diagonal of H, G or R: (P,)."""
    decay = objective.weight_decay if matrix.has_decay else 0.0
    return decay * objective.is_varied.to(objective.dtype)


def add_weight_decay(objective: Objective, matrix: Matrix, values: Tensor) -> Tensor:
    """Add the curvature of weight decay to the diagonal of H, G or R (P, P), in place."""
    values.diagonal().add_(decay_diagonal(objective, matrix))
    return values


def _check_separable(outputs: Tensor, slopes: Tensor) -> None:
    """Move the outputs for a random half of the samples: slopes of the others must not change.

    If the loss couples no samples, autograd gives exact zeros there, however small S_n is.
    """
    generator = probe_generator()
    direction = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    is_moved = torch.randperm(len(outputs), generator=generator) % 2 == 0
    direction[~is_moved] = 0
    (change,) = torch.autograd.grad(slopes, outputs, grad_outputs=direction, retain_graph=True)
    leak = change[~is_moved].norm()
    if leak > 100 * torch.finfo(outputs.dtype).eps * change.norm():
        raise NotASumOverSamplesError(
            "loss_fn must be a sum or mean over samples, got one whose curvature couples them "
            f"(one sample's slope changes with another's outputs by {leak / change.norm():.1e} "
            "of the whole change)"
        )

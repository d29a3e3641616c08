"""First and second derivatives of the loss in the outputs of the network.

For samples n = 1..N with outputs f_n = f(theta; x_n) in R^C, and the loss L a sum over samples
of functions of f_n, this module computes

    e_n = dL/df_n          (C)        slope
    S_n = d2L/df_n2        (C x C)    curvature; for softmax cross-entropy (diag(p) - p p^T)/N
    S_n = T_n D_n T_n^T               factors of the curvature, with signs D_n

The 1/N of a mean, or whatever else the loss divides by, is part of both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.curvature.matrix import Matrix
from hesspipe.errors import NotASumOverSamplesError
from hesspipe.hardware import require
from hesspipe.objective.batches import Batch
from hesspipe.objective.objective import Objective
from hesspipe.objective.rounding import measured_rounding
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
    # With gradients, because the outputs may be derivatives themselves.
    with torch.enable_grad(), objective.explained(batch):
        outputs = objective.outputs(objective.theta, batch.inputs)
    return outputs.detach().clone().requires_grad_()


def output_slopes(objective: Objective, batch: Batch) -> Tensor:
    """Compute e_n for each sample of a batch.

    Returns
    -------
    Tensor, shape (n, C)
        Weighted by the batch's share of L.
    """
    return _slopes(objective, batch, detached_outputs(objective, batch)).detach()


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
    slopes = _slopes(objective, batch, outputs)
    num_samples, num_outputs = outputs.shape
    require(
        num_samples * num_outputs**2 * outputs.element_size(),
        f"the curvature of the loss in {num_outputs:,} outputs of {num_samples:,} samples",
        "use hesspipe.GGNOperator or smaller batches",
        device=outputs.device,
    )
    if slopes.requires_grad:
        _check_separable(outputs, slopes)
    return _rows(slopes, outputs)


def curvature_factors(objective: Objective, batch: Batch) -> tuple[Tensor, Tensor]:
    """Split S_n into factors: S_n = T_n diag(signs_n) T_n^T.

    From S_n = V diag(s) V^T, T_n = V sqrt(|s|). Signs are needed because the loss need not be
    convex in the outputs. An eigenvalue within the rounding error of its own S_n has none: the
    rounding is measured, because that of a confident softmax is much larger than eps |S_n|, and
    samples differ.

    Returns
    -------
    factors : Tensor, shape (n, C, C)
        T_n, one factor per column.
    signs : Tensor, shape (n, C)
        1, -1, or 0 where a factor may be only the rounding error of a zero.

    Raises
    ------
    NotASumOverSamplesError
        If the loss or the model couples samples.
    ValueError
        If S_n is not finite, or not continuous at the outputs.
    """
    if objective.coupling is not None:
        raise NotASumOverSamplesError(
            f"samples must be independent for factors of G, but {objective.coupling}; use "
            "method='columns'"
        )
    curvatures = output_curvatures(objective, batch)
    if not torch.isfinite(curvatures).all():
        number = int((~torch.isfinite(curvatures)).flatten(1).any(1).nonzero()[0])
        raise ValueError(
            "the second derivative of loss_fn must be finite, got nan or inf for sample "
            f"{number} of a batch; check its outputs and targets"
        )
    values, vectors = torch.linalg.eigh(curvatures)
    floor = _curvature_rounding(objective, batch, curvatures).unsqueeze(1)  # (n, 1)
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


def _slopes(objective: Objective, batch: Batch, outputs: Tensor) -> Tensor:
    """Differentiate the batch's share of L at given outputs: (n, C), with a graph."""
    with objective.explained(batch):
        loss = objective.loss_fn(outputs, batch.targets)
    objective.require_unchanged(batch, loss)
    slopes: Tensor = torch.autograd.grad(
        batch.share * loss, outputs, create_graph=True, materialize_grads=True
    )[0]
    return slopes


def _rows(slopes: Tensor, outputs: Tensor) -> Tensor:
    """Differentiate the slopes of all samples at once, one output after the other: (n, C, C)."""
    curvatures = outputs.new_zeros(*outputs.shape, outputs.shape[1])
    if slopes.requires_grad:  # not for a loss linear in the outputs
        for output in range(outputs.shape[1]):
            (curvatures[:, output],) = torch.autograd.grad(
                slopes[:, output].sum(), outputs, retain_graph=True, materialize_grads=True
            )
    return curvatures


def _curvature_rounding(objective: Objective, batch: Batch, curvatures: Tensor) -> Tensor:
    """Bound the rounding error of the eigenvalues of each S_n: (n,)."""
    outputs = detached_outputs(objective, batch)

    def size(change: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(change, dim=(1, 2))
        return norms

    measured = measured_rounding(
        lambda: _rows(_slopes(objective, batch, outputs), outputs),
        curvatures,
        size,
        "the second derivative of loss_fn in the outputs",
    )
    # The backward error of the eigensolver.
    return measured + curvatures.shape[1] * torch.finfo(outputs.dtype).eps * size(curvatures)


def _check_separable(outputs: Tensor, slopes: Tensor) -> None:
    """Move the outputs for a random half of the samples: slopes of the others must not change.

    If the loss couples no samples, autograd gives exact zeros there, however small S_n is.
    """
    generator = probe_generator()
    direction = torch.randn(
        outputs.shape, generator=generator, dtype=torch.float64, device="cpu"
    ).to(outputs)
    is_moved = torch.randperm(len(outputs), generator=generator, device="cpu") % 2 == 0
    direction[~is_moved] = 0
    (change,) = torch.autograd.grad(slopes, outputs, grad_outputs=direction, retain_graph=True)
    if is_moved.all():
        return
    # No norms: their squares underflow for small losses.
    leak, size = change[~is_moved].abs().max(), change.abs().max()
    if leak > 100 * torch.finfo(outputs.dtype).eps * size:
        raise NotASumOverSamplesError(
            "loss_fn must be a sum or mean over samples, got one whose curvature couples them "
            f"(one sample's slope changes with another's outputs by {leak / size:.1e} of "
            "the largest change)"
        )

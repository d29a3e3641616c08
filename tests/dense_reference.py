"""H, G and R by plain loops of torch.autograd, independent of hesspipe.

Second derivatives are taken backward over backward: `torch.func.hessian` of a network with
LayerNorm is wrong in torch 2.13.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def reference_matrices(
    model: nn.Module,
    call: Callable[[nn.Module], Any],
    loss_fn: Callable[[Any], Tensor],
    join: Callable[[Any], Tensor] = torch.flatten,
    split: Callable[[Tensor], Any] | None = None,
) -> dict[str, Tensor]:
    """Compute H, G and R (P, P) in float64 over all parameters, each from its own formula.

    Parameters
    ----------
    model : nn.Module
    call : callable (model) -> outputs
        Evaluates the model on all the data.
    loss_fn : callable (outputs) -> scalar
    join, split
        All outputs as one vector, and back; `split` views it as the outputs by default.
    """
    model = copy.deepcopy(model).double()
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_()  # rows of frozen parameters are removed by the caller
    with sdpa_kernel(SDPBackend.MATH):
        outputs = call(model)
    vector = join(outputs)
    split = split or (lambda values: values.view(outputs.shape))
    hessian = _second_derivative(loss_fn(outputs), parameters)
    leaf = vector.detach().requires_grad_()
    loss = loss_fn(split(leaf))
    (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
    curvature = _rows(slope, [leaf])
    jacobian = _rows(vector, parameters)
    residual = _second_derivative((slope.detach() * vector).sum(), parameters)
    return {"hessian": hessian, "ggn": jacobian.T @ curvature @ jacobian, "residual": residual}


def reference_hessian(loss: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """The second derivative (P, P) of a function of one vector."""
    point = theta.detach().double().requires_grad_()
    return _second_derivative(loss(point), [point])


def _second_derivative(scalar: Tensor, points: list[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(
        scalar, points, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return _rows(torch.cat([gradient.flatten() for gradient in gradients]), points)


def _rows(vector: Tensor, points: list[Tensor]) -> Tensor:
    """The Jacobian of a vector, one entry at a time."""
    size = sum(point.numel() for point in points)
    if not vector.requires_grad:
        return vector.new_zeros(len(vector), size)
    rows = [
        torch.autograd.grad(entry, points, retain_graph=True, materialize_grads=True)
        for entry in vector
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])

"""Derivatives of outputs along a direction of the parameters, from backward passes."""

from __future__ import annotations

import torch
from torch import Tensor


def directional_derivative(rows: Tensor, point: Tensor, direction: Tensor) -> Tensor:
    """Differentiate rows along a direction: J^T u is linear in u, and its derivative by u is J."""
    pulled = torch.zeros_like(rows, requires_grad=True)
    return _along(rows, point, direction, pulled, [pulled])[1][0]


def derivatives_along(
    rows: Tensor, point: Tensor, direction: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate rows along a direction, and twice with weights w, in one backward pass.

    Returns
    -------
    along : Tensor, shape (n, C)
        J v.
    gradient, product : Tensor, shape (P,)
        J^T w, and its derivative along the direction.
    """
    pulled = weights.detach().requires_grad_()
    gradient, (along, product) = _along(rows, point, direction, pulled, [pulled, point])
    return along, gradient, product


def _along(
    rows: Tensor, point: Tensor, direction: Tensor, pulled: Tensor, places: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return J^T u for u = pulled, and its derivatives by some places, times the direction."""
    combined = torch.zeros_like(point, requires_grad=False)
    if rows.requires_grad:
        (combined,) = torch.autograd.grad(
            rows, point, pulled, create_graph=True, materialize_grads=True
        )
    if not combined.requires_grad:
        return combined, [torch.zeros_like(place, requires_grad=False) for place in places]
    found = torch.autograd.grad(
        combined, places, direction, retain_graph=True, materialize_grads=True
    )
    return combined.detach(), list(found)

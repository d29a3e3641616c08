"""Derivatives that are not finite: where they come from."""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.objective.objective import Objective


def require_finite_matrix(objective: Objective, values: Tensor, matrix: str) -> None:
    """Refuse a matrix or products (rows of P entries) with entries that are not finite.

    Parameters
    ----------
    objective : Objective
    values : Tensor, shape (P, P) or (K, P)
    matrix : str
        Its name for the message.

    Raises
    ------
    ValueError
        Naming the first batch and parameter of which the gradient, or else the second
        derivative, is not finite.
    """
    if torch.isfinite(values.sum()):
        return
    is_bad = (~torch.isfinite(values)).any(0)
    if not is_bad.any():  # a sum of finite numbers that overflows
        return
    found = _first_infinite_derivative(objective)
    where = f"; {found} is the first that is not" if found else ""
    name = objective.name_of(int(is_bad.nonzero()[0]))
    raise ValueError(
        f"the {matrix} must be finite, got nan or inf for {int(is_bad.sum())} of its "
        f"{values.shape[1]} parameters, the first in {name}{where}; check the parameters and the "
        "loss"
    )


def _first_infinite_derivative(objective: Objective) -> str | None:
    for number, batch in enumerate(objective.batches):
        theta = objective.theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            objective.batch_loss(theta, batch), theta, create_graph=True, materialize_grads=True
        )
        derivatives = [("gradient", gradient.detach())]
        if gradient.requires_grad:
            ones = torch.ones_like(gradient)
            (second,) = torch.autograd.grad(gradient, theta, ones, materialize_grads=True)
            derivatives.append(("second derivative", second))
        for what, derivative in derivatives:
            bad = (~torch.isfinite(derivative)).nonzero().flatten()
            if len(bad):
                return f"the {what} of batch {number} by {objective.name_of(int(bad[0]))}"
    return None

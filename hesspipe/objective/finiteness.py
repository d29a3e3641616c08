"""Check that the matrices of an objective are finite, and name the derivative that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hesspipe.objective.objective import Objective


def require_finite_matrix(objective: Objective, values: Tensor, matrix: str) -> None:
    """Raise an error if a matrix or products have entries that are not finite.

    Parameters
    ----------
    objective : Objective
    values : Tensor, shape (P, P) or (K, P)
    matrix : str
        Name of the matrix, for the message.

    Raises
    ------
    ValueError
        The message names the first batch and parameter with a gradient, or else a second
        derivative, that is not finite.
    """
    if torch.isfinite(values.sum()):
        return
    is_bad = (~torch.isfinite(values)).any(0)
    if not is_bad.any():  # only the sum overflows
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

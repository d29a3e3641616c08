"""Logistic regression and softmax on Gaussian blobs: the paper's Examples 1 and 2.

The outputs are linear in the parameters, so the residual is zero and the Hessian is the
Gauss-Newton matrix; it is a sample covariance with the weights that this module returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hesspipe.objective.objective import Objective
from hesspipe.seeding import generator


@dataclass(frozen=True)
class LinearModel:
    """A linear model at a point, and what the spectrum of its Hessian follows from.

    Attributes
    ----------
    objective : Objective
        The mean loss over the samples, at the point.
    curvatures : Tensor, shape (N,)
        d_n: the nonzero eigenvalue of the loss's second derivative in the outputs of sample n,
        p (1 - p) for logistic regression and 2 p (1 - p) for softmax over two classes.
    projections : Tensor, shape (N, 2)
        Of the inputs on the direction that the data single out, and on what is orthogonal to it
        in the direction that the outputs depend on. Nothing else about an input decides d_n.
    accuracy : float
        Share of the samples that the model classifies right.
    """

    objective: Objective
    curvatures: Tensor
    projections: Tensor
    accuracy: float


def linear_model(
    *,
    model: str,
    num_features: int,
    num_samples: int,
    signal: float,
    initial_norm: float,
    step_size: float,
    num_steps: int,
    seed: int,
) -> LinearModel:
    """Draw data and a starting point, and descend.

    Parameters
    ----------
    model : str
        "logistic": one output and one blob at the origin; the labels are drawn from a logistic
        model with weights of norm `signal`, so that there is something to learn. "softmax": two
        outputs and two blobs at distance `signal` from the origin on either side of it.
        Neither has a bias, as in the paper's <x, w>.
    num_features, num_samples : int
        d and N. P = d for "logistic" and 2 d for "softmax"; alpha = P / N.
    signal : float
    initial_norm : float
        Root mean square norm of an output's weights at the start.
    step_size : float
    num_steps : int
        Of gradient descent on all samples; 0 stays at the random starting point.
    seed : int

    Returns
    -------
    LinearModel
    """
    if model not in ("logistic", "softmax"):
        raise ValueError(f"model must be 'logistic' or 'softmax', got {model!r}")
    loss_fn: nn.Module
    draws = generator(seed, "linear model data")
    direction = torch.randn(num_features, generator=draws, dtype=torch.float64)
    direction /= direction.norm()
    inputs = torch.randn(num_samples, num_features, generator=draws, dtype=torch.float64)
    chance = torch.full((num_samples,), 0.5, dtype=torch.float64)
    if model == "logistic":
        chance = torch.sigmoid(signal * inputs @ direction)
    labels = torch.bernoulli(chance, generator=draws)
    if model == "softmax":
        inputs += signal * torch.outer(2 * labels - 1, direction)
    num_outputs = 1 if model == "logistic" else 2
    layer = torch.nn.utils.skip_init(nn.Linear, num_features, num_outputs, bias=False).double()
    start = torch.randn(
        num_outputs, num_features, generator=generator(seed, "linear model"), dtype=torch.float64
    )
    with torch.no_grad():
        layer.weight.copy_(initial_norm / num_features**0.5 * start)
    if model == "logistic":
        loss_fn, data = nn.BCEWithLogitsLoss(), (inputs, labels[:, None])
    else:
        loss_fn, data = nn.CrossEntropyLoss(), (inputs, labels.long())
    theta = descend(Objective(layer, loss_fn, data), step_size, num_steps)
    with torch.no_grad():
        layer.weight.copy_(theta.view_as(layer.weight))
    return _describe(Objective(layer, loss_fn, data), inputs, labels, direction)


def descend(objective: Objective, step_size: float, num_steps: int) -> Tensor:
    """Take constant steps down the gradient of all the data.

    Parameters
    ----------
    objective : Objective
        Left as it is.
    step_size : float
    num_steps : int

    Returns
    -------
    Tensor, shape (P,)
        The parameters after the steps.
    """
    theta = objective.theta.clone()
    for _ in range(num_steps):
        theta.requires_grad_()
        (gradient,) = torch.autograd.grad(objective.loss(theta), theta)
        theta = theta.detach() - step_size * gradient
    return theta


def _describe(
    objective: Objective, inputs: Tensor, labels: Tensor, direction: Tensor
) -> LinearModel:
    """The curvatures and projections at theta, from the model's formula."""
    weights = objective.theta.view(-1, inputs.shape[1])
    slope = weights[0] if len(weights) == 1 else weights[1] - weights[0]
    logits = inputs @ slope
    curvatures = len(weights) * torch.sigmoid(logits) * torch.sigmoid(-logits)
    other = slope - (slope @ direction) * direction
    basis = torch.stack([direction, other / other.norm()], dim=1)
    accuracy = ((logits > 0).double() == labels).double().mean().item()
    return LinearModel(objective, curvatures, inputs @ basis, accuracy)

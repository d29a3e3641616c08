"""Logistic regression and softmax on Gaussian blobs: the paper's Examples 1 and 2.

The outputs are linear in the parameters, so the residual R is zero and the Hessian is the
Gauss-Newton matrix: a sample covariance (1/N) sum_n d_n x_n x_n^T of the inputs, in which sample n
has the curvature d_n of its loss as weight. `hesspipe.experiments.laws` predicts its spectrum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from hesspipe.curvature.spectra import spectrum
from hesspipe.forecasts import linear_model_bytes
from hesspipe.hardware import require
from hesspipe.objective.objective import Objective
from hesspipe.seeding import generator
from hesspipe.tables.store import Result

# Keys of an entry in config.yaml that only `hesspipe.experiments.laws` reads.
_LAW_SETTINGS = ("kind", "num_groups", "num_positions", "num_bins")


def extract_linear_model(
    *, name: str, entry: Mapping[str, Any], zero_tolerance: float
) -> tuple[Result, Result]:
    """Train a linear model and compute the spectrum of its Hessian.

    Parameters
    ----------
    name : str
        Of the entry of random_matrices in config.yaml.
    entry : mapping
        The arguments of `linear_model`, and settings of the laws.
    zero_tolerance : float
        See `hesspipe.curvature.spectra.spectrum`.

    Returns
    -------
    spectrum : Result
        rank (0 = smallest), eigenvalue.
    samples : Result
        curvature, along_data, along_weights: d_n and the two projections of each sample.
    """
    model = linear_model(**{key: entry[key] for key in entry if key not in _LAW_SETTINGS})
    result = spectrum(model.objective, "hessian", zero_tolerance=zero_tolerance)
    table = pd.DataFrame(
        {"rank": range(len(result.eigenvalues)), "eigenvalue": result.eigenvalues.numpy()}
    )
    samples = pd.DataFrame(
        {
            "curvature": model.curvatures.numpy(),
            "along_data": model.projections[:, 0].numpy(),
            "along_weights": model.projections[:, 1].numpy(),
        }
    )
    provenance = {
        "name": name,
        "entry": dict(entry),
        "matrix": "hessian",
        "method": result.method,
        "num_parameters": model.objective.num_parameters,
        "num_features": entry["num_features"],
        "num_samples": model.objective.num_data,
        "num_negative": result.num_negative,
        "num_zero": result.num_zero,
        "num_positive": result.num_positive,
        "accuracy": model.accuracy,
        "dtype": "float64",
        "device": "cpu",
    }
    return Result("spectrum", table, provenance), Result("samples", samples, provenance)


@dataclass(frozen=True)
class LinearModel:
    """A linear model at a point, with the quantities that determine its Hessian's spectrum.

    Attributes
    ----------
    objective : Objective
        The mean loss over the samples, at the point.
    curvatures : Tensor, shape (N,)
        d_n: the nonzero eigenvalue of the loss's second derivative in the outputs of sample n,
        p (1 - p) for logistic regression and 2 p (1 - p) for softmax over two classes.
    projections : Tensor, shape (N, 2)
        Of the inputs on the direction that the data single out, and on the part of the model's
        weight vector that is orthogonal to it. d_n depends on nothing else of x_n.
    accuracy : float
        Share of the samples that the model classifies correctly.
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
    """Draw data and a starting point, and train.

    Parameters
    ----------
    model : str
        "logistic": one output and one blob at the origin; the labels are drawn from a logistic
        model with weights of norm `signal`, so that there is something to learn. "softmax": two
        outputs and two blobs, at distance `signal` on opposite sides of the origin.
        Neither has a bias, as in the paper's <x, w>.
    num_features, num_samples : int
        d and N. P = d for "logistic" and 2 d for "softmax"; alpha = P / N.
    signal : float
    initial_norm : float
        Root mean square norm of an output's weights at the start.
    step_size : float
    num_steps : int
        Of full-batch gradient descent; 0 stays at the random starting point.
    seed : int

    Returns
    -------
    LinearModel

    Raises
    ------
    TooLargeError
        Before drawing, if the inputs and the Hessian do not fit into memory.
    """
    num_outputs = _num_outputs(model)
    _require_memory(num_features, num_samples, num_outputs)
    loss_fn: nn.Module
    draws = generator(seed, "linear model data")
    direction = _normal(draws, num_features)
    direction /= direction.norm()
    inputs = _normal(draws, num_samples, num_features)
    chance = torch.full((num_samples,), 0.5, dtype=torch.float64, device="cpu")
    if model == "logistic":
        chance = torch.sigmoid(signal * inputs @ direction)
    labels = torch.bernoulli(chance, generator=draws)
    if model == "softmax":
        inputs += signal * torch.outer(2 * labels - 1, direction)
    layer = torch.nn.utils.skip_init(nn.Linear, num_features, num_outputs, bias=False).double()
    start = _normal(generator(seed, "linear model"), num_outputs, num_features)
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


def _normal(draws: torch.Generator, *shape: int) -> Tensor:
    """Draw standard normal numbers, on the CPU."""
    return torch.randn(*shape, generator=draws, dtype=torch.float64, device="cpu")


def descend(objective: Objective, step_size: float, num_steps: int) -> Tensor:
    """Run full-batch gradient descent with a constant step size.

    Parameters
    ----------
    objective : Objective
        Not modified.
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
    """Compute curvatures and projections at theta in closed form."""
    weights = objective.theta.view(-1, inputs.shape[1])  # (1 or 2 outputs, d)
    slope = weights[0] if len(weights) == 1 else weights[1] - weights[0]  # (d,)
    logits = inputs @ slope  # (N,)
    curvatures = len(weights) * torch.sigmoid(logits) * torch.sigmoid(-logits)
    other = slope - (slope @ direction) * direction
    basis = torch.stack([direction, other / other.norm()], dim=1)  # (d, 2)
    accuracy = ((logits > 0).double() == labels).double().mean().item()
    return LinearModel(objective, curvatures, inputs @ basis, accuracy)


def _num_outputs(model: str) -> int:
    if model not in ("logistic", "softmax"):
        raise ValueError(f"model must be 'logistic' or 'softmax', got {model!r}")
    return 1 if model == "logistic" else 2


def _require_memory(num_features: int, num_samples: int, num_outputs: int) -> None:
    require(
        linear_model_bytes(num_features, num_samples, num_outputs),
        f"a linear model of {num_samples:,} samples of {num_features:,} features",
        "use fewer samples or features",
    )

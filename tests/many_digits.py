"""H, G and R of small networks to 50 digits: differences of the gradient with 110 digits.

The gradient is written out here, layer by layer, in the arithmetic of mpmath; nothing is shared
with the library or with torch. A step of 1e-45 has an error of 1e-45 from the next derivative, and
1e-65 from rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from mpmath import mp
from torch import Tensor, nn

from hesspipe.objective.objective import Objective

DIGITS, EIGENVALUE_DIGITS, STEP = 110, 50, "1e-45"
# torch's softplus is the identity above this.
SOFTPLUS_THRESHOLD = 20


def _exp(z: Any) -> Any:
    return mp.exp(z)


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + mp.exp(-z))


def _softplus(z: Any) -> Any:
    return mp.log1p(mp.exp(z)) if z <= SOFTPLUS_THRESHOLD else z


# Each with its derivative.
ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "Identity": (lambda z: z, lambda z: mp.mpf(1)),
    "ReLU": (lambda z: max(z, mp.mpf(0)), lambda z: mp.mpf(int(z > 0))),
    "Tanh": (mp.tanh, lambda z: mp.sech(z) ** 2),
    "Sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "Softplus": (_softplus, lambda z: _sigmoid(z) if z <= SOFTPLUS_THRESHOLD else mp.mpf(1)),
}


def _cross_entropy(outputs: Any, targets: Any) -> Any:
    powers = apply(_exp, outputs - outputs.max(1, keepdims=True))
    slopes = powers / powers.sum(1, keepdims=True)
    for row, label in zip(slopes, targets, strict=True):
        row[label] -= 1
    return slopes / len(outputs)


# dL/df, shape (N, C)
SLOPES: dict[str, Callable[[Any, Any], Any]] = {
    "CrossEntropyLoss": _cross_entropy,
    "MSELoss": lambda f, t: 2 * (f - t) / f.size,
    "BCELoss": lambda f, t: (f - t) / (f * (1 - f)) / f.size,
    "PoissonNLLLoss": lambda f, t: (1 - t / (f + mp.mpf(1e-8))) / f.size,
}
LOSSES: dict[str, nn.Module] = {
    "CrossEntropyLoss": nn.CrossEntropyLoss(),
    "MSELoss": nn.MSELoss(),
    "BCELoss": nn.BCELoss(),
    "PoissonNLLLoss": nn.PoissonNLLLoss(log_input=False),
}


def apply(function: Callable[[Any], Any], values: Any) -> Any:
    """Apply a function of one number to each entry of an array of objects."""
    return np.frompyfunc(function, 1, 1)(values)


def exact(tensor: Tensor) -> Any:
    """Convert floating-point numbers exactly."""
    return apply(mp.mpf, tensor.detach().double().numpy().astype(object))


@dataclass(frozen=True)
class Problem:
    """A chain of Linear layers, each followed by an activation, with a loss and data."""

    widths: list[int]
    has_bias: bool
    activation: str
    last: str  # the activation of the outputs
    loss: str
    theta: Tensor
    inputs: Tensor
    targets: Tensor

    def model(self) -> nn.Sequential:
        """Build the network in torch, float64."""
        parts: list[nn.Module] = []
        for before, after in pairwise(self.widths):
            parts += [nn.Linear(before, after, self.has_bias), getattr(nn, self.activation)()]
        parts[-1] = getattr(nn, self.last)()
        model = nn.Sequential(*parts).double()
        with torch.no_grad():
            nn.utils.vector_to_parameters(self.theta, model.parameters())
        return model

    def objective(self) -> Objective:
        """Build the objective under test."""
        return Objective(self.model(), LOSSES[self.loss], (self.inputs, self.targets))

    def gradient(self, theta: Any, slopes: Any | None) -> tuple[Any, Any]:
        """Differentiate L, or <slopes, f>, by theta (P,); return that and dL/df."""
        layers, start = [], 0
        for before, after in pairwise(self.widths):
            weight = theta[start : start + before * after].reshape(after, before)
            start += before * after
            bias = theta[start : start + after] if self.has_bias else mp.mpf(0)
            start += after if self.has_bias else 0
            layers.append((weight, bias))
        names = [self.activation] * (len(layers) - 1) + [self.last]
        entering, values = [], exact(self.inputs)
        for (weight, bias), name in zip(layers, names, strict=True):
            sums = values.dot(weight.T) + bias
            entering.append((values, sums))
            values = apply(ACTIVATIONS[name][0], sums)
        if slopes is None:
            is_class = self.loss == "CrossEntropyLoss"
            targets = self.targets.tolist() if is_class else exact(self.targets)
            slopes = SLOPES[self.loss](values, targets)
        parts, passed = [], slopes
        for (weight, _), name, (values, sums) in zip(
            reversed(layers), reversed(names), reversed(entering), strict=True
        ):
            passed = passed * apply(ACTIVATIONS[name][1], sums)
            if self.has_bias:
                parts.append(passed.sum(0))
            parts.append(passed.T.dot(values).ravel())
            passed = passed.dot(weight)
        return np.concatenate(parts[::-1]), slopes

    def matrices(self) -> dict[str, Any]:
        """Compute H, R and G = H - R, each (P, P) of 50 digits."""
        with mp.workdps(DIGITS):
            theta, step = exact(self.theta), mp.mpf(STEP)
            gradient, slopes = self.gradient(theta, None)
            hessian, residual = [], []
            for index in range(len(theta)):
                moved = theta.copy()
                moved[index] += step
                hessian.append((self.gradient(moved, None)[0] - gradient) / step)
                residual.append((self.gradient(moved, slopes)[0] - gradient) / step)
            found = {"hessian": np.array(hessian), "residual": np.array(residual)}
            return found | {"ggn": found["hessian"] - found["residual"]}


def eigenvalues(matrix: Any) -> Any:
    """Compute the eigenvalues of a symmetric matrix to 50 digits, ascending."""
    with mp.workdps(EIGENVALUE_DIGITS):
        found = mp.eigsy(mp.matrix(((matrix + matrix.T) / 2).tolist()), eigvals_only=True)
        return np.array(sorted(found))


def random_problem(seed: int, max_parameters: int) -> Problem:
    """Draw a network, a loss, data of any scale, and parameters of any size, trained or not."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    def choose(names: list[str]) -> str:
        return names[draw(0, len(names) - 1)]

    while True:
        depth, has_bias = draw(1, 3), bool(draw(0, 1))
        widths = [draw(2, 6)] + [draw(2, 6) for _ in range(depth)] + [draw(1, 4)]
        size = sum((a + has_bias) * b for a, b in pairwise(widths))
        if size <= max_parameters:
            break
    activation = choose(["ReLU", "Tanh", "Sigmoid", "Softplus"])
    loss = choose(list(LOSSES))
    last = {"BCELoss": "Sigmoid", "PoissonNLLLoss": "Softplus"}.get(loss, "Identity")
    std = [0.1, 0.7, 3.0, 20.0][draw(0, 3)] if loss in ("CrossEntropyLoss", "MSELoss") else 0.7
    scale = 10.0 ** draw(-6, 6) if loss == "MSELoss" else 1.0
    shape, num = (draw(3, 8), widths[-1]), generator
    inputs = torch.randn(shape[0], widths[0], generator=num, dtype=torch.float64)
    targets: Tensor = scale * torch.randn(shape, generator=num, dtype=torch.float64)
    if loss == "CrossEntropyLoss":
        targets = torch.randint(shape[1], shape[:1], generator=num)
    elif loss != "MSELoss":
        targets = (targets > 0).double() * (1 if loss == "BCELoss" else draw(1, 9))
    theta = std * torch.randn(size, generator=num, dtype=torch.float64)
    problem = Problem(widths, has_bias, activation, last, loss, theta, inputs * scale, targets)
    return _trained(problem) if draw(0, 1) and scale == 1 else problem


def _trained(problem: Problem, num_steps: int = 60) -> Problem:
    model = problem.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(num_steps):
        optimizer.zero_grad()
        LOSSES[problem.loss](model(problem.inputs), problem.targets).backward()
        optimizer.step()
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    return Problem(**{**vars(problem), "theta": theta})

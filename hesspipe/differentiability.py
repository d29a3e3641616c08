"""Whether a loss has the derivatives that are taken of it, and which operation has none.

torch says so itself for its own operations. A gradient that lacks a part (something was detached)
is not the derivative of the loss, and its own derivative is no Hessian. A user's own
`torch.autograd.Function` may be wrong without a word: what its backward method computes outside
of autograd is a constant to the second derivative. Both are compared with differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from hesspipe.flat_model import FlatModel
from hesspipe.seeding import generator
from hesspipe.structures import named_tensors

# Relative difference from central differences that a right derivative may have; one that lacks
# a term differs by the size of the term.
_DIFFERENCE_TOLERANCE = 1e-3
# Of a directional derivative, relative to its usual size |gradient| / sqrt(P): wide, as kinks near
# by move a difference a little, and a gradient that lacks a part differs by about that part.
_GRADIENT_TOLERANCE = {torch.float64: 1e-2, torch.float32: 1e-1}
# Rounding of a loss summed over many samples, in units of eps.
_LOSS_ROUNDING = 50


class NotTwiceDifferentiableError(ValueError):
    """An operation of the model or loss has no second derivative; the message names it."""


@contextmanager
def differentiating() -> Iterator[None]:
    """Record gradients in full precision whatever the caller's modes, and name what has no second.

    Raises
    ------
    NotTwiceDifferentiableError
    """
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device_type in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                stack.enter_context(torch.autocast(device_type, enabled=False))
            yield
    except RuntimeError as error:
        message = str(error)
        found = re.search(r"derivative for '?([\w:.]+)'? is not implemented", message)
        if found is None and "differentiate twice" not in message:
            raise
        raise NotTwiceDifferentiableError(
            "the model and the loss must be twice differentiable, got "
            f"{found[1] if found else 'an operation'} without a second derivative (torch says: "
            f"{message.splitlines()[0]}); write it with other operations of torch"
        ) from error


def refuse_wrong_derivatives(
    evaluate: Callable[[Tensor], tuple[Any, Tensor]], model: FlatModel
) -> None:
    """Compare first derivatives with differences, and second ones where they may be wrong.

    All is done at a point near theta: exactly at theta, a unit with zero weights may stand on a
    kink, where a difference is no derivative.

    Parameters
    ----------
    evaluate : callable (theta) -> (outputs, loss)
    model : FlatModel

    Raises
    ------
    NotTwiceDifferentiableError
        If a `torch.autograd.Function` in the loss has no or a wrong second derivative.
    ValueError
        If the loss does not depend on theta, or not through theta alone, or if its gradient
        is not its derivative.
    """
    theta = model.another_point()
    point = theta.clone().requires_grad_()
    outputs, value = evaluate(point)
    if value.grad_fn is None:
        raise ValueError(
            "the loss must depend on the parameters, got one without a gradient; the model may "
            "detach its outputs or be evaluated under torch.no_grad()"
        )
    names, leaves = _own_functions(value.grad_fn)
    for leaf in leaves:
        if id(leaf) in model.originals:
            raise ValueError(
                f"model and loss_fn must use parameters as the model's own, got "
                f"{model.originals[id(leaf)]} used in another way, which would be a constant here: "
                "a closure over the model, or a list of parameters; for a penalty on the "
                "parameters use weight_decay, or Objective.from_function"
            )
    # What the loss is rounded to: small losses are differences of numbers like the outputs.
    size = max(float(tensor.detach().abs().max()) for _, tensor in named_tensors(outputs, ""))
    size += abs(float(value.detach()))
    direction = torch.randn(
        len(theta), generator=generator(0, "differences"), dtype=torch.float64
    ).to(theta)
    direction *= model.is_varied
    direction /= direction.norm()

    def loss(theta: Tensor) -> Tensor:
        return evaluate(theta)[1]

    own = f" with the torch.autograd.Function {', '.join(names)}" if names else ""
    try:
        (gradient,) = torch.autograd.grad(value, point)
        _check_gradient(loss, theta, gradient, direction, size, own)
        if names:
            _check_second_derivative(loss, theta, direction, own)
    except RuntimeError as error:
        raise NotTwiceDifferentiableError(
            f"the model and the loss must be twice differentiable, got an error{own} (torch says: "
            f"{error}); use differentiable operations, and no once_differentiable"
        ) from error


def _check_gradient(
    loss: Callable[[Tensor], Tensor],
    theta: Tensor,
    gradient: Tensor,
    direction: Tensor,
    size: float,
    own: str,
) -> None:
    """Compare <gradient, direction> with differences of the loss.

    They must differ by more than rounding, and two differences of different steps must agree
    with each other better than with the gradient: only then is the gradient wrong.
    """
    expected = float(gradient @ direction)
    usual = float(gradient.norm()) / math.sqrt(len(theta))
    rounding = _LOSS_ROUNDING * float(torch.finfo(theta.dtype).eps) * size
    slopes, errors = [], []
    for factor in (1.0, 0.1):
        step = factor * _step(theta)
        with torch.no_grad():
            ahead, behind = (float(loss(theta + sign * step * direction)) for sign in (1, -1))
        slopes.append((ahead - behind) / (2 * step))
        errors.append(abs(slopes[-1] - expected) - rounding / step)
    error = min(errors)
    if error > _GRADIENT_TOLERANCE[theta.dtype] * usual and abs(slopes[0] - slopes[1]) < error:
        raise NotTwiceDifferentiableError(
            "the gradient must be the derivative of the loss, got a slope that differs from "
            f"differences of the loss by {error:.1e}{own}, beside a usual size of {usual:.1e}; "
            "where something is detached or computed under torch.no_grad() there is no Hessian: "
            "freeze the parameters behind it by requires_grad_(False)"
        )


def _check_second_derivative(
    loss: Callable[[Tensor], Tensor], theta: Tensor, direction: Tensor, own: str
) -> None:
    """Compare a product with the Hessian with differences of the gradient."""
    product = _product(loss, theta, direction)
    differences = [_difference(loss, theta, direction, factor) for factor in (1.0, 0.1)]
    errors = [float((product - other).norm() / other.norm()) for other in differences]
    if not min(errors) <= _tolerance(theta.dtype):
        raise NotTwiceDifferentiableError(
            "the second derivative must agree with differences of the gradient, got "
            f"{min(errors):.1e} relative difference (allowed {_tolerance(theta.dtype):.0e}){own}; "
            "its backward method must compute the derivative, from ctx.saved_tensors and with "
            "differentiable operations"
        )


def _product(loss: Callable[[Tensor], Tensor], theta: Tensor, vector: Tensor) -> Tensor:
    point = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
    if not gradient.requires_grad:
        return torch.zeros_like(theta)
    product: Tensor = torch.autograd.grad(gradient, point, vector, materialize_grads=True)[0]
    return product


def _difference(
    loss: Callable[[Tensor], Tensor], theta: Tensor, vector: Tensor, factor: float
) -> Tensor:
    """Central difference of the gradient."""
    step = factor * _step(theta)
    gradients = []
    for sign in (1, -1):
        point = (theta + sign * step * vector).requires_grad_()
        gradients.append(torch.autograd.grad(loss(point), point)[0])
    difference: Tensor = (gradients[0] - gradients[1]) / (2 * step)
    return difference


def _step(theta: Tensor) -> float:
    """The best one of central differences, whose error is about eps^(2/3)."""
    return float(torch.finfo(theta.dtype).eps) ** (1 / 3) * max(1.0, float(theta.norm()))


def _tolerance(dtype: torch.dtype) -> float:
    return max(_DIFFERENCE_TOLERANCE, 10 * math.sqrt(torch.finfo(dtype).eps))


def _own_functions(root: torch.autograd.graph.Node) -> tuple[list[str], list[Tensor]]:
    """Names of the `torch.autograd.Function`s in a graph, and its leaves."""
    names: set[str] = set()
    leaves: list[Tensor] = []
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, BackwardCFunction):
            names.add(type(node).__name__.removesuffix("Backward"))
        if hasattr(node, "variable"):  # AccumulateGrad
            leaves.append(node.variable)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(names), leaves

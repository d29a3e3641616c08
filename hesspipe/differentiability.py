"""Whether an objective has a second derivative, and which operation has none.

torch says so itself for its own operations. An operation that is a `torch.autograd.Function`
of the user's may instead be wrong without a word: what its backward method computes outside of
autograd is a constant to the second derivative. Those are compared with differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from hesspipe.seeding import generator

# Relative difference from central differences that a right derivative may have; one that lacks
# a term differs by the size of the term.
_DIFFERENCE_TOLERANCE = 1e-3


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


def refuse_wrong_second_derivatives(loss: Callable[[Tensor], Tensor], theta: Tensor) -> None:
    """Compare a product with the Hessian with differences, where the user's own operations are.

    Parameters
    ----------
    loss : callable (theta) -> scalar Tensor
    theta : Tensor, shape (P,)

    Raises
    ------
    NotTwiceDifferentiableError
        If a `torch.autograd.Function` in the loss has no or a wrong second derivative.
    ValueError
        If the loss does not depend on theta.
    """
    value = loss(theta.detach().requires_grad_())
    if value.grad_fn is None:
        raise ValueError(
            "the loss must depend on the parameters, got one without a gradient; the model may "
            "detach its outputs or be evaluated under torch.no_grad()"
        )
    names = _own_functions(value.grad_fn)
    del value
    if not names:
        return
    direction = torch.randn(
        len(theta), generator=generator(0, "second derivative"), dtype=torch.float64
    ).to(theta)
    direction /= direction.norm()
    try:
        product = _product(loss, theta, direction)
    except RuntimeError as error:
        raise NotTwiceDifferentiableError(
            "the model and the loss must be twice differentiable, got the torch.autograd.Function "
            f"{', '.join(names)} (torch says: {error}); write its backward method with "
            "differentiable operations, and without once_differentiable"
        ) from error
    differences = [_difference(loss, theta, direction, factor) for factor in (1.0, 0.1)]
    errors = [float((product - other).norm() / other.norm()) for other in differences]
    if not min(errors) <= _tolerance(theta.dtype):
        raise NotTwiceDifferentiableError(
            "the second derivative must agree with differences of the gradient, got "
            f"{min(errors):.1e} relative difference (allowed {_tolerance(theta.dtype):.0e}) with "
            f"the torch.autograd.Function {', '.join(names)}; its backward method must compute "
            "the derivative, from ctx.saved_tensors and with differentiable operations"
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
    """Central difference of the gradient; the error of the best step is about eps^(2/3)."""
    step = factor * torch.finfo(theta.dtype).eps ** (1 / 3) * max(1.0, float(theta.norm()))
    gradients = []
    for sign in (1, -1):
        point = (theta + sign * step * vector).requires_grad_()
        gradients.append(torch.autograd.grad(loss(point), point)[0])
    difference: Tensor = (gradients[0] - gradients[1]) / (2 * step)
    return difference


def _tolerance(dtype: torch.dtype) -> float:
    return max(_DIFFERENCE_TOLERANCE, 10 * math.sqrt(torch.finfo(dtype).eps))


def _own_functions(root: torch.autograd.graph.Node) -> list[str]:
    """Names of the `torch.autograd.Function`s in a graph."""
    names: set[str] = set()
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, BackwardCFunction):
            names.add(type(node).__name__.removesuffix("Backward"))
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(names)

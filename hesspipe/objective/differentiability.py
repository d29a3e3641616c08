"""Check that a loss is twice differentiable, with correct and finite derivatives.

For its own operations torch raises an error. A gradient that lacks a part, because something was
detached, is not the derivative of the loss, and its derivative is not a Hessian. A user-defined
`torch.autograd.Function` can be silently wrong: values that its backward method computes outside
of autograd are constants for the second derivative. Both are compared with finite differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn import functional

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.batches import Batch
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.pytrees import map_tensors, named_tensors
from hesspipe.seeding import generator

if TYPE_CHECKING:
    from hesspipe.objective.objective import Objective

# Relative deviation from central differences that a correct derivative may have; one that lacks
# a term deviates by the size of the term.
_DIFFERENCE_TOLERANCE = 1e-3
# The same for a directional derivative, relative to its typical size |gradient| / sqrt(P). It is
# wide, because nearby kinks perturb differences, and a gradient that lacks a part deviates by
# about that part.
_GRADIENT_TOLERANCE = {torch.float64: 1e-2, torch.float32: 1e-1}
# Operations of torch 2.13 with wrong second derivatives, by the names of their graph nodes.
_KNOWN_WRONG = {"WeightNormInterfaceBackward0": "torch.nn.utils.parametrizations.weight_norm"}
# Step sizes for differences of the gradient in float64: so small that few units cross a kink.
_SMALL_STEPS = (1e-8, 1e-9)
# Smallest significant curvature, relative to (outputs + loss) / |theta|^2.
_FLOOR = {torch.float64: 1e-6, torch.float32: 1e-2}
# An asymmetry is an error above this fraction of the product and this multiple of its rounding.
_ASYMMETRY, _ASYMMETRY_ROUNDINGS = 1e-4, 1e4
# Rounding of a loss summed over many samples, in units of eps.
_LOSS_ROUNDING = 50


@contextmanager
def differentiating() -> Iterator[None]:
    """Enable gradients in full precision, and name operations without a second derivative.

    The caller's inference mode, `no_grad` and autocast have no effect inside.

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
    """Compare first derivatives with finite differences, and second ones where they may be wrong.

    This is done at a point near theta: exactly at theta, a unit with zero weights may lie on a
    kink, where finite differences do not converge. In float32, rounding hides small errors.

    Parameters
    ----------
    evaluate : callable (theta) -> (outputs, loss)
    model : FlatModel

    Raises
    ------
    NotTwiceDifferentiableError
        If a `torch.autograd.Function` in the loss has no or a wrong second derivative.
    ValueError
        If the loss does not depend on theta, or depends on parameters other than through theta,
        or if its gradient is not its derivative.
    """
    theta = model.another_point()
    point = theta.clone().requires_grad_()
    outputs, value = evaluate(point)
    if value.grad_fn is None:
        raise ValueError(
            "the loss must depend on the parameters, got one without a gradient; the model may "
            "detach its outputs or be evaluated under torch.no_grad()"
        )
    names, leaves, operations = _contents(value.grad_fn)
    _refuse_other_uses(leaves, model)
    # Scale of the loss's rounding: a small loss is a difference of numbers like the outputs.
    size = max(float(tensor.detach().abs().max()) for _, tensor in named_tensors(outputs, ""))
    size += abs(float(value.detach()))
    numbers = torch.randn(2, len(theta), generator=generator(0, "differences"), dtype=torch.float64)
    direction, other = functional.normalize(numbers.to(theta) * model.is_varied, dim=1)

    def loss(theta: Tensor) -> Tensor:
        return evaluate(theta)[1]

    custom = f" with the torch.autograd.Function {', '.join(names)}" if names else ""
    wrong = [name for operation, name in _KNOWN_WRONG.items() if operation in operations]
    known = f" with {', '.join(wrong)}, whose second derivative is wrong in torch" if wrong else ""
    try:
        (gradient,) = torch.autograd.grad(value, point)
        _check_gradient(loss, theta, gradient, direction, size, custom)
        products = _products(loss, theta, torch.stack([direction, other, direction + other]))
        # Smaller curvatures are rounding, compared with the curvatures that are possible.
        floor = _FLOOR[theta.dtype] * size / max(1.0, float(theta @ theta))
        _check_symmetry(products, direction, other, floor, custom or known)
        if names or theta.dtype == torch.float64:
            _check_second_derivative(loss, theta, direction, products[0], floor, custom or known)
    except RuntimeError as error:
        if not custom:
            raise  # an operation of torch: `differentiating` names it
        raise NotTwiceDifferentiableError(
            f"the model and the loss must be twice differentiable, got an error{custom} (torch "
            f"says: {error}); use differentiable operations, and not once_differentiable"
        ) from error


def uses_theta_beside_outputs(
    model: FlatModel, loss_fn: Callable[[Any, Any], Tensor], batch: Batch
) -> bool:
    """Whether the loss depends on theta other than through the outputs that the model returns."""
    point = model.theta.clone().requires_grad_()
    outputs = map_tensors(
        lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()),
        model(point, batch.inputs),
    )
    loss = loss_fn(outputs, batch.targets)
    if not loss.requires_grad:
        return False
    (slope,) = torch.autograd.grad(loss, point, allow_unused=True)
    return slope is not None and bool(slope.any())


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


def _refuse_other_uses(leaves: list[Tensor], model: FlatModel) -> None:
    """Raise an error if a loss depends on the caller's parameters other than through theta."""
    for leaf in leaves:
        if id(leaf) in model.originals:
            raise ValueError(
                f"model and loss_fn must use parameters through the model only, got "
                f"{model.originals[id(leaf)]} used in another way, which would be a constant here, "
                "e.g. in a closure over the model or a list of parameters; for a penalty on the "
                "parameters use weight_decay, or Objective.from_function"
            )


def _check_gradient(
    loss: Callable[[Tensor], Tensor],
    theta: Tensor,
    gradient: Tensor,
    direction: Tensor,
    size: float,
    cause: str,
) -> None:
    """Compare <gradient, direction> with differences of the loss.

    The gradient is wrong only if they differ by more than rounding and two differences with
    different steps agree with each other better than with the gradient.
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
            f"differences of the loss by {error:.1e}{cause}, compared with a typical size of "
            f"{usual:.1e}; where something is detached or computed under torch.no_grad() there is "
            "no Hessian: freeze the parameters behind it by requires_grad_(False)"
        )


def _products(loss: Callable[[Tensor], Tensor], theta: Tensor, vectors: Tensor) -> Tensor:
    """Compute products of the Hessian with vectors (K, P), one at a time."""
    point = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
    if not gradient.requires_grad:
        return torch.zeros_like(vectors)
    rows = [
        torch.autograd.grad(gradient, point, vector, retain_graph=True, materialize_grads=True)[0]
        for vector in vectors
    ]
    return torch.stack(rows)


def _check_symmetry(products: Tensor, one: Tensor, other: Tensor, floor: float, cause: str) -> None:
    """Compare <other, H one> with <one, H other>.

    Rounding is estimated from the error in H (one + other) = H one + H other.
    """
    asymmetry = float((products[0] @ other - products[1] @ one).abs())
    size = float(products[:2].norm()) / math.sqrt(len(one))
    rounding = float((products[0] + products[1] - products[2]).norm()) / math.sqrt(len(one))
    floor *= 1e-4 / math.sqrt(len(one))
    if asymmetry > max(_ASYMMETRY * size, _ASYMMETRY_ROUNDINGS * rounding, floor):
        raise NotTwiceDifferentiableError(
            f"the second derivative must be symmetric, got a difference of {asymmetry:.1e} at "
            f"a size of {size:.1e}{cause}; replace the operation by elementary ones"
        )


def _check_second_derivative(
    loss: Callable[[Tensor], Tensor],
    theta: Tensor,
    direction: Tensor,
    product: Tensor,
    floor: float,
    cause: str,
) -> None:
    """Compare a product with differences of the gradient that agree with each other."""
    steps = _SMALL_STEPS if theta.dtype == torch.float64 else (_step(theta), 0.1 * _step(theta))
    scale = max(1.0, float(theta.norm())) if theta.dtype == torch.float64 else 1.0
    differences = [_difference(loss, theta, direction, step * scale) for step in steps]
    error = min(float((product - difference).norm()) for difference in differences)
    spread = float((differences[0] - differences[1]).norm())
    size = max(float(difference.norm()) for difference in differences)
    if error > max(_tolerance(theta.dtype) * size, floor) and spread < 0.5 * error:
        raise NotTwiceDifferentiableError(
            "the second derivative must agree with differences of the gradient, got a difference "
            f"of {error:.1e} at a size of {size:.1e}{cause}; a backward method must compute the "
            "derivative, from ctx.saved_tensors and with differentiable operations"
        )


def _difference(
    loss: Callable[[Tensor], Tensor], theta: Tensor, vector: Tensor, step: float
) -> Tensor:
    """Compute a central difference of the gradient: (P,)."""
    gradients = []
    for sign in (1, -1):
        point = (theta + sign * step * vector).requires_grad_()
        gradients.append(torch.autograd.grad(loss(point), point)[0])
    difference: Tensor = (gradients[0] - gradients[1]) / (2 * step)
    return difference


def _step(theta: Tensor) -> float:
    """Return the optimal step of central differences, whose error is about eps^(2/3)."""
    return math.cbrt(torch.finfo(theta.dtype).eps) * max(1.0, float(theta.norm()))


def _tolerance(dtype: torch.dtype) -> float:
    return max(_DIFFERENCE_TOLERANCE, 10 * math.sqrt(torch.finfo(dtype).eps))


def _contents(root: torch.autograd.graph.Node) -> tuple[list[str], list[Tensor], set[str]]:
    """Return the names of `torch.autograd.Function`s in a graph, its leaves, and all node names."""
    names: set[str] = set()
    operations: set[str] = set()
    leaves: list[Tensor] = []
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        operations.add(node.name())
        if isinstance(node, BackwardCFunction):
            names.add(type(node).__name__.removesuffix("Backward"))
        if hasattr(node, "variable"):  # AccumulateGrad
            leaves.append(node.variable)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(names), leaves, operations


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

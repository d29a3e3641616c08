"""Check that a loss is twice differentiable, with correct and finite derivatives.

For its own operations torch raises an error. A gradient that lacks a part, because something was
detached, is not the derivative of the loss, and its derivative is not a Hessian. A user-defined
`torch.autograd.Function` can be silently wrong: values that its backward method computes outside
of autograd are constants for the second derivative. Both are compared with finite differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.hardware import is_exhaustion
from hesspipe.objective.batches import Batch
from hesspipe.objective.finite_differences import (
    Finding,
    find_wrong_first_derivative,
    find_wrong_second_derivative,
    first_direction,
)
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.kernels import twice_differentiable_kernels
from hesspipe.objective.pieces import Division, Piece, random_numbers, row_norms
from hesspipe.objective.places import OperationFinder
from hesspipe.objective.pytrees import map_tensors, named_tensors
from hesspipe.objective.rounding import measured_rounding
from hesspipe.objective.special_points import find_special_point
from hesspipe.objective.substitutes import ExactDerivatives
from hesspipe.seeding import generator, probe

# Operations of torch 2.13 with wrong second derivatives, by the names of their graph nodes.
_KNOWN_WRONG = {"WeightNormInterfaceBackward0": "torch.nn.utils.parametrizations.weight_norm"}
# An asymmetry is an error above this fraction of the product and this multiple of its rounding.
_ASYMMETRY, _ASYMMETRY_ROUNDINGS = 1e-4, 1e4


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
            stack.enter_context(ExactDerivatives())
            for device_type in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                stack.enter_context(torch.autocast(device_type, enabled=False))
            stack.enter_context(twice_differentiable_kernels(torch.device("cpu")))
            yield
    except RuntimeError as error:
        if (explained := _without_second_derivative(error)) is None:
            raise
        raise explained from error


def _without_second_derivative(
    error: RuntimeError, find: Callable[[OperationFinder], None] | None = None
) -> NotTwiceDifferentiableError | None:
    """Explain an error of torch about an operation, in a module to be found; None for others."""
    message = str(error)
    found = re.search(r"derivative for '?([\w:.]+)'? is not implemented", message)
    if found is None and "differentiate twice" not in message:
        return None
    place = ""
    if found is not None and find is not None:
        finder = OperationFinder(found[1])
        find(finder)
        place = finder.place
    return NotTwiceDifferentiableError(
        "the model and the loss must be twice differentiable, got "
        f"{found[1] if found else 'an operation'} without a second derivative{place} (torch says: "
        f"{message.splitlines()[0]}); write it with other operations of torch"
    )


def refuse_wrong_derivatives(
    data: Division, model: FlatModel, near: Tensor, num_samples: int, num_batches: int
) -> None:
    """Compare first and second derivatives with finite differences.

    This is done at a point near theta: exactly at theta, initial weights of zero may hide what is
    wrong. Second derivatives that are wrong at theta only are found there. First derivatives of
    the outputs, and both of the loss in the outputs, are compared for every sample; second ones of
    the model, which cost tens of passes, for a random subset.

    Parameters
    ----------
    data : Division
    model : FlatModel
    near : Tensor, shape (P,)
    num_samples, num_batches : int
        Size of the subset, and most batches that it is drawn from.

    Raises
    ------
    NotTwiceDifferentiableError
        If a first or second derivative is wrong, or there is none.
    ValueError
        If the loss does not depend on theta, or depends on parameters other than through theta.
    """
    survey = _Survey(model)
    try:
        pieces, is_all = data.subset(num_samples, num_batches)
        vectors = _unit_vectors(near, model)
        products, center = survey.products(pieces, near, vectors)
        if not survey.depends:
            survey.require_dependence(data.all_pieces(), near)
        is_exact = near.dtype == torch.float64 or bool(survey.names)
        first = first_direction(near, model.is_varied)
        for piece in data.all_pieces():
            found = find_wrong_first_derivative(
                piece,
                near,
                model.is_varied,
                with_slopes=is_exact,
                direction=first,
                survey=survey.look,
            )
            _refuse(found, survey.cause())
        del first
        _refuse_asymmetry(pieces, near, products, vectors, survey.cause())
        vectors, products = vectors[:1], products[:1]
        if is_exact:
            scale = float(near.norm()) or 1.0
            functions = [piece.value for piece in pieces]
            place = "all the data" if is_all else f"{num_samples} random samples"
            found = find_wrong_second_derivative(
                functions, near, scale * vectors[0], scale * products[0], place, center
            )
            _refuse(found, survey.cause())
            del products, center
            few = data.few_samples(num_samples, num_batches)
            _refuse_wrong_curvature(few, near, scale * vectors[0], survey.cause())
        del near, vectors
        _refuse(find_special_point(pieces, model.theta, model.is_varied), survey.cause())
        if not is_all:
            found = find_special_point(
                data.all_pieces(), model.theta, model.is_varied, with_products=False
            )
            _refuse(found, survey.cause())
    except RuntimeError as error:
        if is_exhaustion(error):
            raise
        if not survey.names:  # an operation of torch
            find = partial(_evaluate_in, data.all_pieces(), model.theta)
            explained = _without_second_derivative(error, find)
            raise explained or error from error.__cause__
        raise NotTwiceDifferentiableError(
            f"the model and the loss must be twice differentiable, got an error{survey.cause()} "
            f"(torch says: {error}); use differentiable operations, and not once_differentiable"
        ) from error


def _unit_vectors(near: Tensor, model: FlatModel) -> list[Tensor]:
    """Draw two random directions (P,) of length 1."""
    numbers = random_numbers(near, generator(0, "differences"), 2)
    vectors = [vector.mul_(model.is_varied) for vector in numbers]
    return [vector.div_(torch.linalg.vector_norm(vector)) for vector in vectors]


def _refuse_asymmetry(
    pieces: list[Piece], near: Tensor, products: list[Tensor], vectors: list[Tensor], cause: str
) -> None:
    """Compare <other, H one> with <one, H other>, and measure rounding where they differ."""
    one, other = vectors
    size = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p) for p in products]))
    asymmetry = (products[0] @ other - products[1] @ one).abs()
    if asymmetry <= _ASYMMETRY * size / math.sqrt(len(one)):
        return
    (both,), _ = _Survey(None).products(pieces, near, [one + other])
    noise = partial(_rounding_of_product, pieces, near, one)
    _check_symmetry(torch.stack([*products, both]), one, other, cause, noise)


def _evaluate_in(pieces: list[Piece], theta: Tensor, finder: OperationFinder) -> None:
    """Evaluate all the data where a finder sees the operations."""
    with finder:
        for piece in pieces:
            piece.value(theta)


def uses_theta_beside_outputs(
    model: FlatModel, loss_fn: Callable[[Any, Any], Tensor], batch: Batch
) -> bool:
    """Whether the loss depends on theta other than through the outputs that the model returns."""
    point = model.theta.detach().requires_grad_()
    outputs = map_tensors(
        lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()),
        model(point, batch.inputs),
    )
    loss = loss_fn(outputs, batch.targets)
    if not loss.requires_grad:
        return False
    (slope,) = torch.autograd.grad(loss, point, allow_unused=True)
    return slope is not None and bool(slope.any())


def is_an_output(model: FlatModel, loss_fn: Callable[[Any, Any], Tensor], batch: Batch) -> bool:
    """Whether the loss is a number that the model returns: G would be zero, and R all of H."""
    outputs = map_tensors(
        lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()),
        model(model.theta, batch.inputs),
    )
    loss = loss_fn(outputs, batch.targets)
    leaves = [tensor for _, tensor in named_tensors(outputs, "") if tensor.requires_grad]
    if not loss.requires_grad:
        return False
    slopes = torch.autograd.grad(loss, leaves, materialize_grads=True)
    used = [n for n, slope in enumerate(slopes) if slope.any()]
    return len(used) == 1 and leaves[used[0]].ndim == 0 and torch.equal(leaves[used[0]], loss)


class _Survey:
    """Products with the Hessian, and what the graphs of losses contain."""

    def __init__(self, model: FlatModel | None) -> None:
        self.model = model
        self.names: set[str] = set()
        self.operations: set[str] = set()
        self.depends = False

    def look(self, value: Tensor) -> None:
        """Note what a loss contains, and refuse parameters that are used in another way."""
        if value.grad_fn is None:
            return
        self.depends = True
        names, leaves, operations = _contents(value.grad_fn)
        self.names.update(names)
        self.operations |= operations
        if self.model is not None:
            _refuse_other_uses(leaves, self.model)

    def require_dependence(self, pieces: Iterable[Piece], theta: Tensor) -> None:
        """Raise an error unless the loss of a piece depends on theta."""
        for piece in pieces:
            self.look(piece.value(theta.detach().requires_grad_()))
            if self.depends:
                return
        raise ValueError(
            "the loss must depend on the parameters, got one without a gradient; the model may "
            "detach its outputs or be evaluated under torch.no_grad()"
        )

    def products(
        self, pieces: list[Piece], theta: Tensor, vectors: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Multiply the Hessian with vectors, piece by piece; returns the gradient too."""
        totals = [torch.zeros_like(theta) for _ in vectors]
        slope = torch.zeros_like(theta)
        for piece in pieces:
            point = theta.detach().requires_grad_()
            value = piece.value(point)
            self.look(value)
            if value.grad_fn is None:
                continue
            (gradient,) = torch.autograd.grad(
                value, point, create_graph=True, materialize_grads=True
            )
            slope += gradient.detach()
            if gradient.requires_grad:
                for total, vector in zip(totals, vectors, strict=True):
                    total += _pulled(gradient, point, vector)
        return totals, slope

    def cause(self) -> str:
        """Name what may be wrong, for messages."""
        if self.names:
            return f" with the torch.autograd.Function {', '.join(sorted(self.names))}"
        wrong = [name for operation, name in _KNOWN_WRONG.items() if operation in self.operations]
        if wrong:
            return f" with {', '.join(wrong)}, whose second derivative is wrong in torch"
        return ""


def _pulled(gradient: Tensor, point: Tensor, vector: Tensor) -> Tensor:
    return torch.autograd.grad(gradient, point, vector, retain_graph=True, materialize_grads=True)[
        0
    ]


def _norm(vector: Tensor) -> Tensor:
    return row_norms(vector.unsqueeze(0))[0]


def _rounding_of_product(pieces: list[Piece], theta: Tensor, vector: Tensor) -> float:
    """Measure the rounding error of a product; 0 where it cannot be measured."""

    def product() -> Tensor:
        total = torch.zeros_like(vector)
        for piece in pieces:
            point = theta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(
                piece.value(point), point, create_graph=True, materialize_grads=True
            )
            if gradient.requires_grad:
                total += _pulled(gradient, point, vector)
        return total

    try:
        return float(measured_rounding(product, product(), _norm, "a product"))
    except ValueError:
        return 0.0


def _refuse_wrong_curvature(
    pieces: Piece | list[Piece], theta: Tensor, direction: Tensor, cause: str
) -> None:
    """Compare the second derivative of the outputs of some samples, with random weights."""
    pieces = [pieces] if isinstance(pieces, Piece) else pieces
    scalars = [partial(_weighted, piece) for piece in pieces]
    product = torch.zeros_like(theta)
    for scalar in scalars:
        point = theta.detach().requires_grad_()
        value = scalar(point)
        if not value.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)
        if gradient.requires_grad:
            product += _pulled(gradient, point, direction)
    place = f"outputs of {', '.join(piece.name(0) for piece in pieces[:1])}"
    _refuse(find_wrong_second_derivative(scalars, theta, direction, product, place), cause)


def _weighted(piece: Piece, theta: Tensor) -> Tensor:
    rows = piece.evaluate(theta)[0]
    return (rows * probe(rows)).sum()


def _refuse(found: Finding | None, cause: str) -> None:
    """Raise an error for a derivative that is wrong."""
    if found is None:
        return
    numbers = f"by {found.error:.1e} at a size of {found.size:.1e}, for {found.place}{cause}"
    if found.kind in ("outputs", "loss"):
        what = "the outputs" if found.kind == "outputs" else "loss_fn"
        raise NotTwiceDifferentiableError(
            f"the gradient must be the derivative of the loss, got a derivative of {what} that "
            f"differs from finite differences {numbers}; where something is detached or computed "
            "under torch.no_grad() there is no Hessian: freeze the parameters behind it by "
            "requires_grad_(False)"
        )
    if found.kind in ("slopes", "gradient"):
        raise NotTwiceDifferentiableError(
            "the second derivative must agree with differences of the gradient, got one that "
            f"differs {numbers}; a backward method must compute the derivative, from "
            "ctx.saved_tensors and with differentiable operations"
        )
    raise NotTwiceDifferentiableError(
        "the second derivative must be that of the function, got one of torch that differs at the "
        f"parameters from those very near, on both sides, {numbers}; an operation is special here, "
        "such as abs, norm, sqrt or where at zero: write x.square() for x.abs().pow(2) or "
        "x.norm().pow(2), or move the parameters by a small random step"
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


def _check_symmetry(
    products: Tensor, one: Tensor, other: Tensor, cause: str, noise: Callable[[], float]
) -> None:
    """Compare <other, H one> with <one, H other>.

    Rounding is estimated from the error in H (one + other) = H one + H other, and measured where
    this is not enough.
    """
    scale = float(products.abs().max())
    if not scale > 0:
        return
    products = products / scale  # whose squares need not underflow
    asymmetry = float((products[0] @ other - products[1] @ one).abs())
    size = float(products[:2].norm()) / math.sqrt(len(one))
    rounding = float((products[0] + products[1] - products[2]).norm()) / math.sqrt(len(one))
    if asymmetry <= max(_ASYMMETRY * size, _ASYMMETRY_ROUNDINGS * rounding):
        return
    if asymmetry * scale > noise():
        raise NotTwiceDifferentiableError(
            f"the second derivative must be symmetric, got a difference of {scale * asymmetry:.1e} "
            f"at a size of {scale * size:.1e}{cause}; replace the operation by elementary ones"
        )


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

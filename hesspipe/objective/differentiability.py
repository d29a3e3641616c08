"""Check that a loss is twice differentiable, with correct and finite derivatives.

For its own operations torch raises an error. A gradient that lacks a part, because something was
detached, is not the derivative of the loss, and its derivative is not a Hessian. A user-defined
`torch.autograd.Function` can be silently wrong: values that its backward method computes outside
of autograd are constants for the second derivative. Both are compared with finite differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.hardware import exact_kernels, is_exhaustion
from hesspipe.objective.finite_differences import (
    Finding,
    find_wrong_first_derivative,
    find_wrong_second_derivative,
    first_direction,
)
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.joined_pieces import joined
from hesspipe.objective.kernels import twice_differentiable_kernels
from hesspipe.objective.loss_graphs import GraphSurvey, products_of
from hesspipe.objective.nearby import Open
from hesspipe.objective.pieces import Division, Piece, random_numbers
from hesspipe.objective.places import OperationFinder
from hesspipe.objective.special_points import find_special_point
from hesspipe.objective.symmetry import refuse_asymmetry
from hesspipe.objective.work import Work
from hesspipe.progress import bar_options
from hesspipe.seeding import generator, probe


@contextmanager
def differentiating() -> Iterator[None]:
    """Enable gradients in full precision, and name operations without a second derivative.

    The caller's inference mode, `no_grad` and autocast have no effect inside.

    Raises
    ------
    NotTwiceDifferentiableError
    ValueError
        Inside a transform of `torch.func`, where torch does not differentiate in this way.
    """
    refuse_transforms()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device_type in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                stack.enter_context(torch.autocast(device_type, enabled=False))
            stack.enter_context(twice_differentiable_kernels(torch.device("cpu")))
            stack.enter_context(exact_kernels())
            yield
    except RuntimeError as error:
        if (explained := _without_second_derivative(error)) is None:
            raise
        raise explained from error


def refuse_transforms() -> None:
    """Raise an error inside a transform of `torch.func`, through which no product would pass.

    Raises
    ------
    ValueError
    """
    transform = torch._C._functorch.peek_interpreter_stack()
    if transform is not None:
        raise ValueError(
            "hesspipe must be called outside of transforms of torch.func, got a call inside "
            f"{transform.key().name.lower()}; products are linear, so that H @ tangent is the "
            "derivative of H @ vector, and H @ V multiplies the columns of V at once"
        )


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
    data: Division,
    model: FlatModel,
    work: Work,
    survey: GraphSurvey,
    still_open: Open,
    *,
    is_near: bool,
    progress: bool | None,
) -> None:
    """Compare first and second derivatives with finite differences.

    This is done at a point near theta: exactly at theta, initial weights of zero may hide what is
    wrong. Second derivatives that are wrong at theta only are found there. First derivatives of
    the outputs, both of the loss in the outputs, and second ones of a combination of the outputs
    are compared for every sample of the batches that are still open; products with the Hessian,
    which cost tens of passes, for a random subset, and not where all of the former are right: they
    follow from them.

    Parameters
    ----------
    data : Division
    model : FlatModel
    work : Work
        Decides the size of the subset.
    survey : GraphSurvey
        Of the losses seen before.
    still_open : Open
        Batches for which what is tested for all samples is not known to be right.
    is_near : bool
        Whether the model and the loss are defined at the point near theta; otherwise it is theta.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Raises
    ------
    NotTwiceDifferentiableError
        If a first or second derivative is wrong, or there is none.
    ValueError
        If the loss does not depend on theta, or depends on parameters other than through theta.
    """
    bar = tqdm(
        total=3,
        desc="checks of the objective, second derivatives",
        unit="check",
        **bar_options(progress),
    )
    try:
        with bar:
            subset = Subset.of(data, work)
            _refuse_wrong_nearby(
                data, model, subset, survey, still_open, bar.update, is_near=is_near
            )
            _refuse_special_point(data, model, subset, survey, still_open)
            bar.update()
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


@dataclass(frozen=True)
class Subset:
    """The random samples for which second derivatives of the model are compared.

    Attributes
    ----------
    pieces : list of Piece
    joint : list of Piece
        The same, with several batches in one piece where that takes little memory.
    is_all : bool
        Whether they are all the data.
    place : str
        Names them in messages.
    """

    pieces: list[Piece]
    joint: list[Piece]
    is_all: bool
    place: str

    @classmethod
    def of(cls, data: Division, work: Work) -> Subset:
        """Draw as many samples as the work for each allows."""
        count, num_batches = work.num_checked(data.num_samples), work.num_batches(data.num_samples)
        pieces, is_all = data.subset(count, num_batches)
        place = "all the data" if is_all else f"{count} random samples"
        largest = max(len(piece.inputs) for piece in pieces)
        joint = joined(pieces, work.num_at_once(largest)) if data.is_separable else pieces
        return cls(pieces, joint, is_all, place)


def _refuse_wrong_nearby(
    data: Division,
    model: FlatModel,
    subset: Subset,
    survey: GraphSurvey,
    still_open: Open,
    advance: Callable[[], Any],
    *,
    is_near: bool,
) -> None:
    """Compare first and second derivatives near theta."""
    is_open = still_open.slopes or still_open.curvatures or still_open.is_beside
    if survey.depends and not is_open:
        advance()
        advance()
        return
    near = model.another_point() if is_near else model.theta
    pieces = subset.pieces
    direction, other = _unit_vectors(near, model)
    product, center, asymmetry = survey.product(pieces, near, direction, other)
    if not survey.depends:
        survey.require_dependence(data.all_pieces(), near)
    is_exact = near.dtype == torch.float64 or bool(survey.names)
    _refuse_wrong_slopes(data, model, near, survey, still_open, with_slopes=is_exact)
    refuse_asymmetry(pieces, near, product, asymmetry, (direction, other), survey.cause())
    del other
    advance()
    if is_exact:
        scale = float(near.norm()) or 1.0
        functions = [piece.value for piece in pieces]
        found = find_wrong_second_derivative(
            functions, near, direction.mul_(scale), product.mul_(scale), subset.place, center
        )
        _refuse(found, survey.cause())
        del product, center
        for number in sorted(still_open.curvatures):
            parts = list(data.all_pieces({number}))
            _refuse_wrong_curvature(parts, near, direction, survey.cause())
    advance()


def _unit_vectors(near: Tensor, model: FlatModel) -> list[Tensor]:
    """Draw two random directions (P,) of length 1."""
    numbers = random_numbers(near, generator(0, "differences"), 2)
    vectors = [vector.mul_(model.is_varied) for vector in numbers]
    return [vector.div_(torch.linalg.vector_norm(vector)) for vector in vectors]


def _refuse_wrong_slopes(
    data: Division,
    model: FlatModel,
    near: Tensor,
    survey: GraphSurvey,
    still_open: Open,
    *,
    with_slopes: bool,
) -> None:
    """Compare first derivatives for each sample; with slopes, second ones in the outputs."""
    if not still_open.slopes:
        return
    first = first_direction(near, model.is_varied)
    for piece in data.all_pieces(still_open.slopes):
        found = find_wrong_first_derivative(
            piece,
            near,
            model.is_varied,
            with_slopes=with_slopes,
            direction=first,
            survey=survey.look,
        )
        _refuse(found, survey.cause())


def _refuse_special_point(
    data: Division,
    model: FlatModel,
    subset: Subset,
    survey: GraphSurvey,
    still_open: Open,
) -> None:
    """Compare second derivatives at theta with those nearby; products for the subset only."""
    joint = subset.joint if len(subset.joint) < len(subset.pieces) else []
    found = find_special_point(subset.pieces, model.theta, model.is_varied, joint=joint)
    _refuse(found, survey.cause())
    if still_open.special and not subset.is_all:
        rest = data.all_pieces(still_open.special)
        found = find_special_point(rest, model.theta, model.is_varied, with_products=False)
        _refuse(found, survey.cause())


def _evaluate_in(pieces: Iterable[Piece], theta: Tensor, finder: OperationFinder) -> None:
    """Evaluate all the data where a finder sees the operations."""
    with finder:
        for piece in pieces:
            piece.value(theta)


def _refuse_wrong_curvature(
    pieces: Piece | list[Piece], theta: Tensor, direction: Tensor, cause: str
) -> None:
    """Compare the second derivative of the outputs of a batch, with random weights."""
    pieces = [pieces] if isinstance(pieces, Piece) else pieces
    scalars = [partial(_weighted, piece) for piece in pieces]
    (product,), center = products_of(scalars, theta, [direction])
    place = f"outputs of {', '.join(piece.name(0) for piece in pieces[:1])}"
    _refuse(find_wrong_second_derivative(scalars, theta, direction, product, place, center), cause)


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

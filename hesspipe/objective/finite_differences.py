"""First and second derivatives against finite differences, for all the data.

First derivatives of the outputs are compared for each sample along a random direction: those of a
network that detaches something for some samples only are wrong there. The loss is compared along
the same changes of the outputs: its value, and its slope for each sample. Second derivatives of
the whole are compared by a product with H, and by one for the outputs of a batch with random
weights.

A difference from one side is compared with that from the other, for what is detached is missing
on both, but at a kink, which a network of many units always meets, they differ. What looks wrong
is confirmed in other directions with several steps: rounding errors grow as the step decreases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import torch
from torch import Tensor

from hesspipe.objective.determinism import attempt
from hesspipe.objective.directional_derivatives import directional_derivative
from hesspipe.objective.pieces import Outcome, Piece, outcome, random_directions, row_norms
from hesspipe.objective.rounding import measured_rounding
from hesspipe.seeding import generator

# Steps relative to the parameters: the first is used for all, all to confirm. Rounding errors of
# differences are eps / step, and the number of kinks that are crossed is proportional to the step.
STEPS = {torch.float64: (1e-7, 1e-6, 1e-8, 1e-9), torch.float32: (2e-3, 1e-2, 5e-4, 1e-4)}
# Relative deviation from differences that is an error.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 3.5e-3}
# Rounding errors of the numbers that are subtracted, in eps.
_ROUNDINGS = 100
# Directions in which an error must be seen.
_NUM_CONFIRMATIONS = 2


@dataclass(frozen=True)
class Finding:
    """A derivative that differs from finite differences.

    Attributes
    ----------
    kind : {"outputs", "loss", "slopes", "gradient"}
        Whose derivative: of outputs for a sample, of the loss in the outputs, of its slopes, and
        of the gradient of the whole.
    place : str
        Sample and batch, or what else was differentiated.
    error, size : float
    """

    kind: str
    place: str
    error: float
    size: float


def compare(
    derivative: Tensor, behind: Tensor, center: Tensor, ahead: Tensor, step: float
) -> Outcome:
    """Compare a derivative with one-sided differences, row by row (n, C)."""
    mean = (ahead - behind) / (2 * step)
    spread = (ahead - center) / step - (center - behind) / step
    size = torch.maximum(row_norms(mean), row_norms(derivative))
    return outcome(mean - derivative, spread, size, allowed_error(size, row_norms(center), step))


def allowed_error(size: Tensor, center: Tensor, step: float) -> Tensor:
    """Bound an error (n,) by norms of the derivatives and of what is subtracted."""
    rounding = _ROUNDINGS * torch.finfo(center.dtype).eps * center / step
    return _TOLERANCE[center.dtype] * size + rounding


def find_wrong_first_derivative(
    piece: Piece,
    theta: Tensor,
    is_varied: Tensor,
    *,
    with_slopes: bool,
    direction: Tensor | None = None,
    survey: Callable[[Tensor], None] | None = None,
) -> Finding | None:
    """Compare derivatives of the outputs, of the loss and of its slopes along random changes.

    Parameters
    ----------
    piece : Piece
    theta : Tensor, shape (P,)
    is_varied : Tensor of bool, shape (P,)
    with_slopes : bool
        Whether to compare the second derivative of the loss in the outputs too.
    direction : Tensor, shape (P,), optional
        The first of the random changes; see `first_direction`.
    survey : callable (loss), optional
        Gets the loss of the piece, with its graph.

    Returns
    -------
    Finding or None
        Of the row with the largest error.
    """
    step = STEPS[theta.dtype][0]
    first = first_direction(theta, is_varied) if direction is None else direction
    for kind, found in _outcomes(piece, theta, first, step, with_slopes, survey).items():
        if not found.is_wrong.any():
            continue
        if (used := piece.of_used_outputs(theta)) is not piece:
            return find_wrong_first_derivative(used, theta, is_varied, with_slopes=with_slopes)
        errors = row_norms(found.defect)
        # B023: the function is called at once.
        noise = _noise(lambda: _numbers(piece, theta, kind))  # noqa: B023
        confirmed = found.is_wrong & (errors > noise / step)
        for other in islice(_directions(theta, is_varied), 1, None):
            if confirmed.any():
                confirmed = confirmed & _persists(piece, theta, other, kind)
        if confirmed.any():
            row = int(torch.where(confirmed, errors, -1.0).argmax())
            sample = _row_of_loss(piece, theta, first, step) if kind == "loss" else row
            return Finding(kind, piece.name(sample), float(errors[row]), float(found.size[row]))
    return None


def first_direction(theta: Tensor, is_varied: Tensor) -> Tensor:
    """Draw the random change (P,) along which first derivatives are compared."""
    return next(_directions(theta, is_varied))


def _directions(theta: Tensor, is_varied: Tensor) -> Iterator[Tensor]:
    """Draw the first change, and those in which an error is confirmed."""
    draw = generator(0, "differences")
    return random_directions(theta, is_varied, draw, 1 + _NUM_CONFIRMATIONS)


def find_wrong_second_derivative(
    scalars: Sequence[Callable[[Tensor], Tensor]],
    theta: Tensor,
    direction: Tensor,
    product: Tensor,
    place: str,
    center: Tensor | None = None,
) -> Finding | None:
    """Compare a product of the second derivative with differences of the gradient.

    Where it agrees with the difference from one side, it can be wrong on neither.

    Parameters
    ----------
    scalars : list of callable (theta) -> scalar Tensor
        The function is their sum.
    theta, direction : Tensor, shape (P,)
    product : Tensor, shape (P,)
        Of the second derivative with the direction.
    place : str
        Names the function.
    center : Tensor, shape (P,), optional
        The gradient at theta, if it is known.

    Returns
    -------
    Finding or None
        An error is seen with two steps in succession.
    """
    steps = sorted(STEPS[theta.dtype])
    middle = (gradient(scalars, theta) if center is None else center).unsqueeze(0)
    outcomes: dict[float, Outcome] = {}

    def side(step: float) -> Tensor:
        there = attempt(lambda: gradient(scalars, torch.add(theta, direction, alpha=step)))
        return middle * torch.nan if there is None else there.unsqueeze(0)

    def found(step: float) -> Outcome:
        if step not in outcomes:
            ahead = side(step)
            defect = (ahead - middle).div_(step).sub_(product)
            if is_right_ahead(defect, product.unsqueeze(0), middle, step).all():
                outcomes[step] = _nothing(1, False)["loss"]
            else:
                outcomes[step] = compare(product.unsqueeze(0), side(-step), middle, ahead, step)
        return outcomes[step]

    for step in (STEPS[theta.dtype][0], steps[1], steps[0]):  # ever smaller
        if not found(step).is_unclear.any():
            break
    if not any(one.is_wrong.any() for one in outcomes.values()):
        return None
    for step, other in pairwise(steps):
        one = found(step)
        if not one.persists(found(other)).any():
            continue
        noise = _noise(lambda: gradient(scalars, theta).unsqueeze(0)) / STEPS[theta.dtype][0]
        if row_norms(one.defect) > noise:
            return Finding("gradient", place, float(row_norms(one.defect)), float(one.size))
    return None


def is_right_ahead(defect: Tensor, derivative: Tensor, center: Tensor, step: float) -> Tensor:
    """Whether a difference from one side alone shows that a derivative is not wrong, (n,).

    What is wrong differs from the difference of both sides by more than is allowed, and the two
    sides by less than half of that: then it differs from each side by more than 3/4 of it.
    """
    return row_norms(defect) <= 0.75 * allowed_error(row_norms(derivative), row_norms(center), step)


def gradient(scalars: Sequence[Callable[[Tensor], Tensor]], theta: Tensor) -> Tensor:
    """Differentiate a sum of functions (P,), one after the other."""
    total: Tensor | None = None
    for scalar in scalars:
        point = theta.detach().requires_grad_()
        value = scalar(point)
        if value.requires_grad:
            (part,) = torch.autograd.grad(value, point, materialize_grads=True)
            total = part if total is None else total.add_(part)
    return torch.zeros_like(theta) if total is None else total


def _noise(evaluate: Callable[[], Tensor]) -> Tensor:
    """Measure the rounding errors of rows; zeros where they cannot be measured.

    They hide changes, whatever the step, where numbers like 1 - p have few digits.
    """
    value = evaluate()
    try:
        return measured_rounding(evaluate, value, row_norms, "a number that is differentiated")
    except ValueError:
        return value.new_zeros(len(value))


def _numbers(piece: Piece, theta: Tensor, kind: str) -> Tensor:
    """Evaluate what is differentiated."""
    rows, loss_of = piece.evaluate(theta)
    return rows.detach() if kind == "outputs" else _numbers_of_loss(loss_of, rows.detach(), kind)


def _numbers_of_loss(loss_of: Callable[[Tensor], Tensor], rows: Tensor, kind: str) -> Tensor:
    """Evaluate the loss, or its slopes."""
    value, slopes, _ = _value_and_slopes(loss_of, rows, None)
    return slopes if kind == "slopes" else value.reshape(1, 1)


def _persists(piece: Piece, theta: Tensor, direction: Tensor, kind: str) -> Tensor:
    """Whether rows are wrong by the same with two steps in succession, (n,)."""
    found = [
        _outcomes(piece, theta, direction, step, kind == "slopes", with_outputs=kind == "outputs")[
            kind
        ]
        for step in sorted(STEPS[theta.dtype])
    ]
    return torch.stack([one.persists(other) for one, other in pairwise(found)]).any(0)


def _outcomes(
    piece: Piece,
    theta: Tensor,
    direction: Tensor,
    step: float,
    with_slopes: bool,
    survey: Callable[[Tensor], None] | None = None,
    *,
    with_outputs: bool = True,
) -> dict[str, Outcome]:
    """Compare all of a piece with one step; nothing where it is not defined nearby.

    The outputs need not be compared, and then the model is not differentiated.
    """
    point = theta.detach().requires_grad_(with_outputs)
    rows, loss_of = piece.evaluate(point)
    if survey is not None:
        survey(loss_of(rows))
    center = rows.detach()
    moved = sides(piece, theta, direction, step)
    found = _nothing(len(rows), with_slopes)
    if moved is None or moved[0].shape != rows.shape:
        return found
    if with_outputs:
        along = directional_derivative(rows, point, direction)
        found["outputs"] = compare(along, moved[0], center, moved[1], step)
        if found["outputs"].is_wrong.any() and not _is_transpose(
            rows, point, direction, found["outputs"].defect
        ):
            found["outputs"] = _nothing(len(rows), False)["outputs"]  # the second one is wrong
    del rows  # and its graph
    return found | (
        attempt(lambda: outcomes_of_loss(loss_of, center, moved, step, with_slopes)) or {}
    )


def outcomes_of_loss(
    loss_of: Callable[[Tensor], Tensor],
    center: Tensor,
    moved: tuple[Tensor, Tensor],
    step: float,
    with_slopes: bool,
) -> dict[str, Outcome]:
    """Compare the loss and its slopes along a change of the outputs, and a tenth of it.

    Only what differs by the same for both is an error: rounding errors do not. No evaluation of the
    model is needed, and between outputs of the model the loss is defined.
    """
    found: list[dict[str, Outcome]] = []
    for share in (1.0, 0.1):
        behind, ahead = (center + share * (rows - center) for rows in moved)
        length = share * step
        change = (ahead - behind) / (2 * length)
        value, slopes, curved = _value_and_slopes(loss_of, center, change if with_slopes else None)
        sides = [_value_and_slopes(loss_of, rows, None) for rows in (behind, ahead)]
        slope = (slopes * change).sum().reshape(1, 1)
        low, middle, high = (number.reshape(1, 1) for number in (sides[0][0], value, sides[1][0]))
        found.append({"loss": compare(slope, low, middle, high, length)})
        if curved is not None:
            found[-1]["slopes"] = compare(curved, sides[0][1], slopes, sides[1][1], length)
        if not any(one.is_wrong.any() for one in found[-1].values()):
            return found[-1]
    return {
        kind: replace(one, is_wrong=one.persists(found[1][kind])) for kind, one in found[0].items()
    }


def without_rounding(
    found: dict[str, Outcome], loss_of: Callable[[Tensor], Tensor], center: Tensor, step: float
) -> dict[str, Outcome]:
    """Leave out what the rounding errors of the loss and its slopes explain.

    They grow by 1 / step, but a slope like p - 1 that does not change at all, because it is a
    multiple of eps, is wrong by the same with all steps.
    """

    def judged(kind: str, one: Outcome) -> Outcome:
        if not one.is_wrong.any():
            return one
        noise = _noise(lambda: _numbers_of_loss(loss_of, center, kind))
        return replace(one, is_wrong=one.is_wrong & (row_norms(one.defect) > noise / step))

    return {kind: judged(kind, one) for kind, one in found.items()}


def _value_and_slopes(
    loss_of: Callable[[Tensor], Tensor], rows: Tensor, change: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the loss, its slopes in the outputs, and their derivative along a change."""
    leaf = rows.clone().requires_grad_()
    value = loss_of(leaf)
    if not value.requires_grad:
        nothing = torch.zeros_like(rows)
        return value, nothing, None if change is None else nothing
    (slopes,) = torch.autograd.grad(
        value, leaf, create_graph=change is not None, materialize_grads=True
    )
    curved = None
    if change is not None:
        curved = torch.zeros_like(rows)
        if slopes.requires_grad:
            (curved,) = torch.autograd.grad(slopes, leaf, change, materialize_grads=True)
    return value.detach(), slopes.detach(), curved


def sides(
    piece: Piece, theta: Tensor, direction: Tensor, step: float
) -> tuple[Tensor, Tensor] | None:
    """Return the outputs on both sides of a point."""
    behind, ahead = (
        # B023: the function is called at once.
        attempt(lambda: piece.evaluate(torch.add(theta, direction, alpha=by))[0].detach())  # noqa: B023
        for by in (-step, step)
    )
    return None if behind is None or ahead is None else (behind, ahead)


def _is_transpose(rows: Tensor, point: Tensor, direction: Tensor, defect: Tensor) -> bool:
    """Whether plain gradients of the rows lack the defect too, and not only their derivative."""
    defect = defect.nan_to_num()
    along = directional_derivative(rows, point, direction)
    (combined,) = torch.autograd.grad(
        rows, point, defect, retain_graph=True, materialize_grads=True
    )
    difference = (combined * direction).sum() - (along * defect).sum()
    return bool(difference.abs() < 0.5 * defect.square().sum())


def _row_of_loss(piece: Piece, theta: Tensor, direction: Tensor, step: float) -> int:
    """Find the sample for which the loss has a wrong slope, by moving half of the samples."""
    rows, loss_of = piece.evaluate(theta)
    moved = sides(piece, theta, direction, step)
    if moved is None:
        return 0
    center, candidates = rows.detach(), torch.arange(len(rows), device="cpu")

    def error(index: Tensor) -> float:
        is_moved = torch.zeros(len(rows), 1, dtype=torch.bool, device=rows.device)
        is_moved[index] = True
        behind, ahead = (torch.where(is_moved, side, center) for side in moved)
        found = attempt(lambda: outcomes_of_loss(loss_of, center, (behind, ahead), step, False))
        return float(found["loss"].defect.abs()) if found else 0.0

    while len(candidates) > 1:
        candidates = max(candidates.chunk(2), key=error)
    return int(candidates)


def _nothing(num_rows: int, with_slopes: bool) -> dict[str, Outcome]:
    """Nothing is wrong."""
    found = {}
    for kind in ("outputs", "loss", "slopes") if with_slopes else ("outputs", "loss"):
        nothing = torch.zeros(1 if kind == "loss" else num_rows, dtype=torch.float64, device="cpu")
        found[kind] = Outcome(nothing > 0, nothing > 0, nothing.unsqueeze(1), nothing)
    return found

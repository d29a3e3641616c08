"""Points at which a second derivative of torch is not that of the function, though nearby it is.

`(o - t).abs().pow(2)` has the second derivative 2 everywhere, and 0 by torch at o = t, because the
slope of `abs` is 0 there; norms, roots and powers at zero, and `torch.where` that replaces a
special value, are alike. Such a derivative differs from those on both sides, which agree with each
other. At a kink those on the two sides differ, and torch returns one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from hesspipe.objective.determinism import attempt
from hesspipe.objective.finite_differences import Finding
from hesspipe.objective.pieces import Outcome, Piece, outcome, random_directions, row_norms
from hesspipe.objective.rounding import measured_rounding
from hesspipe.seeding import generator, probe

# Distances relative to the parameters, so small that only what is special at one point differs.
_DISTANCES = {torch.float64: (1e-8, 1e-10, 1e-12), torch.float32: (1e-3, 1e-4, 1e-5)}
# Relative difference that counts; what is continuous differs by a distance squared.
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
_NUM_DIRECTIONS = 2
# The distance at which all are compared first: what is smooth hardly changes over the smallest.
_FIRST = -1
# What is compared, and the number of the piece; all of them together have this number.
Key: TypeAlias = tuple[str, int]
_ALL = -1


def find_special_point(
    pieces: Iterable[Piece], theta: Tensor, is_varied: Tensor, *, with_products: bool = True
) -> Finding | None:
    """Compare second derivatives at theta with those at both sides of it, very near.

    Curvatures of the loss are compared for each sample, products with H for the whole. Where those
    on one side agree, nothing can be special, and the other side is not computed.

    Parameters
    ----------
    pieces : iterable of Piece
        Read once.
    theta : Tensor, shape (P,)
    is_varied : Tensor of bool, shape (P,)
    with_products : bool
        Whether to compare products with H.

    Returns
    -------
    Finding or None
        Seen at all distances, and along two random directions.
    """
    draw = generator(0, "special points")
    distances = _DISTANCES[theta.dtype]
    more = random_directions(theta, is_varied, draw, _NUM_DIRECTIONS)
    way = next(more)
    suspects = _suspects(pieces, theta, way, distances[_FIRST], with_products)
    if not suspects:
        return None
    ways = [way, *more]
    first = _outcomes(suspects, theta, ways[0], distances[0], with_products)
    if not any(one.is_wrong.any() for one in first.values()):
        return None
    confirmed = {key: one.is_wrong for key, one in first.items()}
    for way in ways:
        near = [_outcomes(suspects, theta, way, at, with_products) for at in distances]
        for one, other in pairwise(near):
            confirmed = {
                key: is_wrong & one[key].persists(other[key])
                for key, is_wrong in confirmed.items()
                if key in one and key in other
            }
    for (kind, number), is_wrong in confirmed.items():
        found = first[kind, number]
        errors = row_norms(found.defect) * is_wrong
        row = int(errors.argmax())
        if errors[row] > _noise(suspects, theta, ways[0], kind, number)[row]:
            place = "all the data" if number == _ALL else suspects[number].name(row)
            return Finding(kind, place, float(errors[row]), float(found.size[row]))
    return None


def is_regular_loss(
    loss_of: Callable[[Tensor], Tensor], here: Tensor, near: Tensor, distance: float
) -> bool:
    """Whether second derivatives of the loss in the outputs are those very near, on one side.

    Where they are not, `find_special_point` tells whether the point is special.

    Parameters
    ----------
    loss_of : callable (rows) -> scalar Tensor
    here, near : Tensor, shape (n, C)
        Outputs at the parameters, and a distance from there.
    distance : float
        Relative to the parameters.
    """
    there = here + _DISTANCES[here.dtype][_FIRST] / distance * (near - here)
    expected = _of_loss(loss_of, here)
    found = attempt(lambda: _of_loss(loss_of, there))
    return found is not None and not any(map(_differ, expected, found))


def _of_loss(loss_of: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Compute slopes and curvatures of the loss (n, C)."""
    leaf = rows.detach().requires_grad_()
    return _second(loss_of(leaf), leaf, probe(rows))


def _suspects(
    pieces: Iterable[Piece], theta: Tensor, way: Tensor, distance: float, with_products: bool
) -> list[Piece]:
    """Find the pieces whose derivatives differ from those on one side; all if products do.

    A derivative that is wrong differs from the mean of both sides by more than is allowed, and
    the sides differ by less than half of that: then it differs from each by more than 3/4 of it.
    """
    seen: list[Piece] = []
    suspects: list[Piece] = []
    totals: dict[str, Tensor] = {}
    place = torch.add(theta, way, alpha=distance)
    for piece in pieces:
        here = _derivatives(piece, theta, way, is_real=True, with_products=with_products)
        there = _derivatives(piece, place, way, is_real=False, with_products=with_products)
        if with_products:
            seen.append(piece)
        if here is None or there is None or here["slopes"].shape != there["slopes"].shape:
            continue
        if any(_differ(here[kind], there[kind]) for kind in ("slopes", "curvature")):
            suspects.append(piece)
        if with_products:
            for name, part in (("here", here), ("there", there)):
                product = part.pop("product")
                totals[name] = totals[name].add_(product) if name in totals else product
    if totals and _differ(totals["here"], totals["there"]):
        return seen
    return suspects


def _differ(here: Tensor, there: Tensor) -> bool:
    size = torch.maximum(row_norms(here), row_norms(there))
    return bool((row_norms(there - here) > 0.75 * _TOLERANCE[here.dtype] * size).any())


def _outcomes(
    pieces: list[Piece], theta: Tensor, way: Tensor, distance: float, with_products: bool
) -> dict[Key, Outcome]:
    """Compare everything at one distance; nothing where it is not defined on both sides."""
    outcomes: dict[Key, Outcome] = {}
    totals = theta.new_zeros(3, len(theta) if with_products else 0)
    for number, piece in enumerate(pieces):
        parts = []
        for side in (-1, 0, 1):
            place = torch.add(theta, way, alpha=side * distance)
            part = _derivatives(piece, place, way, is_real=side == 0, with_products=with_products)
            if part is not None:
                parts.append(part)
        if len(parts) < 3 or len({part["slopes"].shape for part in parts}) > 1:
            totals *= torch.nan
            continue
        for kind in ("slopes", "curvature"):
            outcomes[kind, number] = _judged([part[kind] for part in parts])
        if with_products:
            totals += torch.cat([part["product"] for part in parts])
    if with_products:
        outcomes["product", _ALL] = _judged(list(totals.unsqueeze(1)))
    return outcomes


def _judged(sides: list[Tensor]) -> Outcome:
    """Compare rows at a point with their mean on both sides of it."""
    behind, center, ahead = sides
    size = torch.stack([row_norms(rows) for rows in sides]).amax(0)
    defect = center - (behind + ahead) / 2
    return outcome(defect, ahead - behind, size, _TOLERANCE[center.dtype] * size)


def _derivatives(
    piece: Piece, place: Tensor, way: Tensor, *, is_real: bool, with_products: bool
) -> dict[str, Tensor] | None:
    """Compute slopes and curvatures of the loss (n, C), and the product with H (1, P)."""
    point = place.detach().requires_grad_(with_products)
    evaluation = piece.evaluate(point) if is_real else attempt(lambda: piece.evaluate(point))
    if evaluation is None:
        return None
    rows, loss_of = evaluation
    leaf = rows.detach().requires_grad_()
    values = (
        (loss_of(rows), loss_of(leaf))
        if is_real
        else attempt(lambda: (loss_of(rows), loss_of(leaf)))
    )
    if values is None:
        return None
    slopes, curvature = _second(values[1], leaf, probe(rows))
    found = {"slopes": slopes, "curvature": curvature}
    if with_products:
        found["product"] = _second(values[0], point, way)[1].unsqueeze(0)
    return found


def _second(value: Tensor, point: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient, and the product of the second derivative with a vector."""
    if not value.requires_grad:
        nothing = torch.zeros_like(point)
        return nothing, nothing
    (slopes,) = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)
    if not slopes.requires_grad:
        return slopes.detach(), torch.zeros_like(point)
    (product,) = torch.autograd.grad(slopes, point, vector, materialize_grads=True)
    return slopes.detach(), product


def _noise(pieces: list[Piece], theta: Tensor, way: Tensor, kind: str, number: int) -> Tensor:
    """Measure the rounding errors of rows; zeros where they cannot be measured."""

    def evaluate() -> Tensor:
        chosen = pieces if number == _ALL else [pieces[number]]
        parts = [
            _derivatives(piece, theta, way, is_real=True, with_products=kind == "product")
            for piece in chosen
        ]
        return torch.stack([part[kind] for part in parts if part is not None]).sum(0)

    value = evaluate()
    try:
        return measured_rounding(evaluate, value, row_norms, "a derivative")
    except ValueError:
        return value.new_zeros(len(value))

"""Points at which a second derivative of torch is not that of the function, though nearby it is.

`(o - t).abs().pow(2)` has the second derivative 2 everywhere, and 0 by torch at o = t, because the
slope of `abs` is 0 there; norms, roots and powers at zero, and `torch.where` that replaces a
special value, are alike. Such a derivative differs from those on both sides, which agree with each
other. At a kink those on the two sides differ, and torch returns one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hesspipe.objective.determinism import attempt
from hesspipe.objective.directional_derivatives import Remainder, edges_of
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
    pieces: Iterable[Piece],
    theta: Tensor,
    is_varied: Tensor,
    *,
    with_products: bool = True,
    joint: Sequence[Piece] = (),
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
    joint : sequence of Piece, optional
        The same samples in fewer pieces, which are compared first. The others are evaluated only
        where these leave something open.

    Returns
    -------
    Finding or None
        Seen at all distances, and along two random directions.
    """
    draw = generator(0, "special points")
    distances = _DISTANCES[theta.dtype]
    more = random_directions(theta, is_varied, draw, _NUM_DIRECTIONS)
    way = next(more)
    settings = theta, way, distances[_FIRST], with_products
    if joint and attempt(lambda: _suspects(joint, *settings)) == []:
        return None
    suspects = _suspects(pieces, *settings)
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
    found = _second(loss_of(leaf), leaf, [], [])
    return found.slopes, found.curvature


def _suspects(
    pieces: Iterable[Piece], theta: Tensor, way: Tensor, distance: float, with_products: bool
) -> list[Piece]:
    """Find the pieces whose derivatives differ from those on one side; all if products do.

    A derivative that is wrong differs from the mean of both sides by more than is allowed, and
    the sides differ by less than half of that: then it differs from each by more than 3/4 of it.
    """
    place = torch.add(theta, way, alpha=distance)
    if with_products:
        return _suspects_with_products(list(pieces), theta, place, way)
    suspects = []
    for piece in pieces:
        here, there = _derivatives(piece, theta, None), _nearby(piece, place, None)
        if there is not None and here.is_comparable(there) and here.differs(there):
            suspects.append(piece)
    return suspects


def _suspects_with_products(
    pieces: list[Piece], theta: Tensor, place: Tensor, way: Tensor
) -> list[Piece]:
    """Find pieces that differ, with their products; all where one is not defined nearby.

    Of the products, one vector is kept: those nearby are subtracted from the sum of those here.
    """
    known, suspects = [], []
    rest: Remainder | None = None
    for piece in pieces:
        here = _derivatives(piece, theta, way)
        known.append(replace(here, product=[]))
        if rest is None:
            rest = Remainder(here.product)
        else:
            rest.add(here.product)
        del here  # or it would exist until the next one is computed
    if rest is None:
        return []
    size = rest.norm()
    for piece, here in zip(pieces, known, strict=True):
        there = _nearby(piece, place, way)
        if there is None or not here.is_comparable(there):
            return pieces
        if here.differs(there):
            suspects.append(piece)
        rest.add(there.product, -1.0)
        del there
    is_wrong = bool(rest.norm() > 0.75 * _TOLERANCE[theta.dtype] * size)
    return pieces if is_wrong else suspects


def _differ(here: Tensor, there: Tensor) -> bool:
    size = torch.maximum(row_norms(here), row_norms(there))
    return bool((row_norms(there - here) > 0.75 * _TOLERANCE[here.dtype] * size).any())


def _outcomes(
    pieces: list[Piece], theta: Tensor, way: Tensor, distance: float, with_products: bool
) -> dict[Key, Outcome]:
    """Compare everything at one distance; nothing where it is not defined on both sides."""
    outcomes: dict[Key, Outcome] = {}
    totals = theta.new_zeros(3, len(theta) if with_products else 0)
    along = way if with_products else None
    for number, piece in enumerate(pieces):
        behind, ahead = (
            _nearby(piece, torch.add(theta, way, alpha=by), along) for by in (-distance, distance)
        )
        here = _derivatives(piece, theta, along)
        if not (behind and ahead and here.is_comparable(behind) and here.is_comparable(ahead)):
            totals *= torch.nan
            continue
        sides = [behind, here, ahead]
        for kind in ("slopes", "curvature"):
            outcomes[kind, number] = _judged([side.rows(kind) for side in sides])
        if with_products:
            totals += torch.cat([side.rows("product") for side in sides])
    if with_products:
        outcomes["product", _ALL] = _judged(list(totals.unsqueeze(1)))
    return outcomes


def _judged(sides: list[Tensor]) -> Outcome:
    """Compare rows at a point with their mean on both sides of it."""
    behind, center, ahead = sides
    size = torch.stack([row_norms(rows) for rows in sides]).amax(0)
    defect = center - (behind + ahead) / 2
    return outcome(defect, ahead - behind, size, _TOLERANCE[center.dtype] * size)


@dataclass(frozen=True)
class _Derivatives:
    """Slopes and curvatures of the loss (n, C), and the product with H, in parts."""

    slopes: Tensor
    curvature: Tensor
    product: list[Tensor]

    def rows(self, kind: str) -> Tensor:
        """Return slopes or curvatures (n, C), or the product (1, P)."""
        if kind == "product":
            return torch.cat([part.reshape(1, -1) for part in self.product], dim=1)
        return self.slopes if kind == "slopes" else self.curvature

    def is_comparable(self, other: _Derivatives) -> bool:
        """Whether both are of outputs of one shape."""
        return self.slopes.shape == other.slopes.shape

    def differs(self, other: _Derivatives) -> bool:
        """Whether slopes or curvatures differ."""
        return _differ(self.slopes, other.slopes) or _differ(self.curvature, other.curvature)


def _derivatives(piece: Piece, place: Tensor, way: Tensor | None) -> _Derivatives:
    """Differentiate the loss of a piece; with a way, multiply it with H."""
    value, rows, places = _evaluated(piece, place, way)
    return _second(value, rows, places, [] if way is None else piece.parts_of(way))


def _nearby(piece: Piece, place: Tensor, way: Tensor | None) -> _Derivatives | None:
    """Differentiate the loss of a piece where it need not be defined."""
    evaluation = attempt(lambda: _evaluated(piece, place, way))
    if evaluation is None:
        return None
    value, rows, places = evaluation
    del evaluation
    return _second(value, rows, places, [] if way is None else piece.parts_of(way))


def _evaluated(
    piece: Piece, place: Tensor, way: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the loss, the outputs as rows, and the parameters by which they have graphs."""
    point, places = (place.detach(), []) if way is None else piece.leaves(place)
    rows, loss_of = piece.evaluate(point)
    if not rows.requires_grad:
        rows = rows.detach().requires_grad_()
    return loss_of(rows), rows, places


def _second(value: Tensor, rows: Tensor, places: list[Tensor], ways: list[Tensor]) -> _Derivatives:
    """Return the derivatives of a value by rows, and the product by places along some ways."""
    slopes, curvature = torch.zeros_like(rows, requires_grad=False), None
    edges: list[Any] = []
    if value.requires_grad:
        slopes, *gradient = torch.autograd.grad(
            value, [rows, *places], create_graph=True, materialize_grads=True
        )
        edges, ways = edges_of(gradient, ways)
        del gradient
        if slopes.requires_grad:
            (curvature,) = torch.autograd.grad(
                slopes, rows, probe(rows), retain_graph=bool(edges), materialize_grads=True
            )
    if edges:
        product = list(torch.autograd.grad(edges, places, ways, materialize_grads=True))
    else:
        product = [torch.zeros_like(place, requires_grad=False) for place in places]
    none = torch.zeros_like(slopes, requires_grad=False)
    return _Derivatives(slopes.detach(), none if curvature is None else curvature, product)


def _noise(pieces: list[Piece], theta: Tensor, way: Tensor, kind: str, number: int) -> Tensor:
    """Measure the rounding errors of rows; zeros where they cannot be measured."""

    def evaluate() -> Tensor:
        chosen = pieces if number == _ALL else [pieces[number]]
        along = way if kind == "product" else None
        parts = [_derivatives(piece, theta, along).rows(kind) for piece in chosen]
        return torch.stack(parts).sum(0)

    value = evaluate()
    try:
        return measured_rounding(evaluate, value, row_norms, "a derivative")
    except ValueError:
        return value.new_zeros(len(value))

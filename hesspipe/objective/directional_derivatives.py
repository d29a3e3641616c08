"""Derivatives of outputs along a direction of the parameters, from backward passes.

Gradients stay in the parts that torch computes, one per parameter, and a gradient of which only the
derivative is needed is freed before: a vector of all parameters would take as much memory again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from hesspipe.objective.pieces import row_norms


def directional_derivative(rows: Tensor, point: Tensor, direction: Tensor) -> Tensor:
    """Differentiate rows along a direction: J^T u is linear in u, and its derivative by u is J."""
    return derivatives_along(rows, [point], [direction], torch.zeros_like(rows), None)[0]


def derivatives_along(
    rows: Tensor,
    places: Sequence[Tensor],
    directions: Sequence[Tensor],
    weights: Tensor,
    take: Callable[[list[Tensor]], Any] | None,
) -> tuple[Tensor, list[Tensor]]:
    """Differentiate rows along a direction, and twice with weights w, in one backward pass.

    Parameters
    ----------
    rows : Tensor, shape (n, C)
    places : sequence of Tensor
        The parameters.
    directions : sequence of Tensor
        In the shapes of the parameters.
    weights : Tensor, shape (n, C)
    take : callable (gradient), optional
        Gets J^T w, in parts, which are freed afterwards. Without it there are no second
        derivatives.

    Returns
    -------
    along : Tensor, shape (n, C)
        J v.
    product : list of Tensor
        The derivative of J^T w along the direction, in parts.
    """
    pulled = weights.detach().requires_grad_()
    sought = [pulled] if take is None else [pulled, *places]
    gradient = _combined(rows, places, pulled)
    if take is not None:
        take([part.detach() for part in gradient])
    edges, ways = edges_of(gradient, directions)
    del gradient
    if not edges:
        along, *product = (torch.zeros_like(place, requires_grad=False) for place in sought)
    else:
        along, *product = torch.autograd.grad(
            edges, sought, ways, retain_graph=True, materialize_grads=True
        )
    return along, product


def _combined(rows: Tensor, places: Sequence[Tensor], weights: Tensor) -> Sequence[Tensor]:
    """Pull weights back, with a graph."""
    if not rows.requires_grad:
        return [torch.zeros_like(place, requires_grad=False) for place in places]
    found: Sequence[Tensor] = torch.autograd.grad(
        rows, places, weights, create_graph=True, materialize_grads=True
    )
    return found


def edges_of(
    gradient: Iterable[Tensor], directions: Iterable[Tensor]
) -> tuple[list[Any], list[Tensor]]:
    """Return where the graph of a gradient begins, with the directions of the parts that have one.

    The gradient can be differentiated by these edges when it is gone.
    """
    pairs = [
        (get_gradient_edge(part), way)
        for part, way in zip(gradient, directions, strict=True)
        if part.requires_grad
    ]
    return [edge for edge, _ in pairs], [way for _, way in pairs]


def norm_of_parts(parts: Iterable[Tensor]) -> Tensor:
    """Euclidean norm (1,) of a vector in parts."""
    norms = [row_norms(part.reshape(1, -1)) for part in parts]
    return row_norms(torch.stack(norms, dim=1))


class Remainder:
    """A vector in parts, from which others are subtracted.

    Parameters
    ----------
    parts : list of Tensor
        Emptied one by one. They are copied, because torch may return a vector that is somebody
        else's, or one number repeated.
    """

    def __init__(self, parts: list[Tensor]) -> None:
        parts.reverse()
        self.parts = []
        while parts:
            self.parts.append(parts.pop().clone(memory_format=torch.contiguous_format))

    def add(self, parts: Sequence[Tensor], factor: float = 1.0) -> None:
        """Add a multiple of a vector in parts."""
        for own, other in zip(self.parts, parts, strict=True):
            own.add_(other, alpha=factor)

    def norm(self) -> Tensor:
        """Euclidean norm (1,)."""
        return norm_of_parts(self.parts)

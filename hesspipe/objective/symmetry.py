"""Whether second derivatives are symmetric, beyond what rounding explains."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.loss_graphs import products_of, pull_back
from hesspipe.objective.pieces import Piece, row_norms
from hesspipe.objective.rounding import measured_rounding

# An asymmetry is an error above this fraction of the product and this multiple of its rounding.
_ASYMMETRY, _ASYMMETRY_ROUNDINGS = 1e-4, 1e4


def refuse_asymmetry(
    pieces: list[Piece],
    near: Tensor,
    product: Tensor,
    asymmetry: float,
    vectors: tuple[Tensor, Tensor],
    cause: str,
) -> None:
    """Judge <other, H one> - <one, H other>, with more products and measured rounding if need be.

    Parameters
    ----------
    pieces : list of Piece
        Of the data.
    near : Tensor, shape (P,)
        Where the product was computed.
    product : Tensor, shape (P,)
        H one.
    asymmetry : float
        The difference.
    vectors : Tensor, shape (P,)
        one and other, of length 1.
    cause : str
        What may be wrong, for the message.

    Raises
    ------
    NotTwiceDifferentiableError
    """
    one, other = vectors
    size = float(torch.linalg.vector_norm(product))
    if abs(asymmetry) <= _ASYMMETRY * size / math.sqrt(len(one)):
        return
    values = [piece.value for piece in pieces]
    products, _ = products_of(values, near, [one, other, one + other])
    noise = partial(_rounding_of_product, pieces, near, one)
    _check_symmetry(torch.stack(products), one, other, cause, noise)


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
                total += pull_back(gradient, point, vector)
        return total

    try:
        return float(measured_rounding(product, product(), _norm, "a product"))
    except ValueError:
        return 0.0


def _norm(vector: Tensor) -> Tensor:
    return row_norms(vector.unsqueeze(0))[0]

"""Exact second derivatives where torch's own are rounded on purpose, wrong, or large.

The second derivative of `torch.nn.functional.binary_cross_entropy` in p adds 1e-12 to p (1 - p), so
that it has a relative error of 1e-12 / (p (1 - p)), thousands of roundings. The same loss, written
with operations whose derivatives are exact, takes its place. The fused operation of weight
normalization has a second derivative that is not symmetric. For cross-entropy of many classes see
`hesspipe.objective.many_classes`, and for normalization where a loss differentiates the model
`hesspipe.objective.norms`. Pairs of numbers are viewed as complex where torch cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.many_classes import cross_entropy
from hesspipe.objective.norms import EXACT_NORMS, is_differentiated_inside
from hesspipe.objective.rounding import is_perturbing

# torch bounds log(p) from below by -100.
_SMALLEST = math.exp(-100)


class _DifferentiatedInsideError(BaseException):
    """A function differentiates what it evaluates; no Exception, for functions that catch all."""


@dataclass
class Norms:
    """Whether normalization must be exact, as something that is evaluated differentiates it.

    The model and the loss of an objective share it, so that this is found once, and also where a
    loss differentiates what the model returns.

    Attributes
    ----------
    are_exact : bool
    were_inexact : bool
        Whether that of torch has been used.
    """

    are_exact: bool = False
    were_inexact: bool = False


class _InexactOutputsError(NotTwiceDifferentiableError):
    """A loss differentiates outputs that were computed before this was known."""


class ExactDerivatives(TorchFunctionMode):
    """Puts exact operations in the place of those with rounded derivatives.

    Models and losses are evaluated with it, and nothing else, because it sees every function of
    torch, which takes a quarter of the time of checks with many small ones.

    Parameters
    ----------
    norms : Norms
        Where they are not exact, normalization is that of torch until something evaluated is
        differentiated, which raises `_DifferentiatedInsideError`.
    """

    def __init__(self, norms: Norms) -> None:
        super().__init__()
        self._norms = norms

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EXACT_NORMS:
            norms = self._norms
            is_exact = norms.are_exact or is_differentiated_inside()
            func = EXACT_NORMS[func] if is_exact else func
            norms.were_inexact |= not is_exact
        elif func is torch.autograd.grad:
            is_differentiated = self._norms.were_inexact and not self._norms.are_exact
            if is_differentiated and (kwargs or {}).get("create_graph"):
                raise _DifferentiatedInsideError
        elif func is functional.binary_cross_entropy:
            func = binary_cross_entropy
        elif func is torch._weight_norm:
            func = weight_norm
        elif func is functional.cross_entropy:
            func = cross_entropy
        elif func is torch.view_as_complex:
            func = view_as_complex
        return func(*args, **(kwargs or {}))


def evaluated_exactly(norms: Norms, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the caller with exact operations, but not inside transforms.

    Transforms of torch.func have no rules for them. Where the function differentiates what it
    evaluates, it is called again with exact normalization, and so it is from then on.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return function(*args)
    try:
        with ExactDerivatives(norms):
            return function(*args)
    except _DifferentiatedInsideError:
        norms.are_exact = True
    with ExactDerivatives(norms):
        return function(*args)


def loss_evaluated_exactly(
    norms: Norms, loss_fn: Callable[[Any, Any], Tensor], outputs: Any, targets: Any
) -> Tensor:
    """Call a loss as `evaluated_exactly` does.

    Raises
    ------
    NotTwiceDifferentiableError
        If it differentiates, for the first time, and the outputs may be of torch's normalization;
        not inside `evaluated_with_loss`.
    """
    may_be_inexact = norms.were_inexact and not norms.are_exact
    value: Tensor = evaluated_exactly(norms, loss_fn, outputs, targets)
    if may_be_inexact and norms.are_exact:
        raise _InexactOutputsError(
            "the loss must differentiate the outputs of the model at every evaluation, got one "
            "that did so for the first time after others; build a new Objective"
        )
    return value


def evaluated_with_loss(function: Callable[[], Any]) -> Any:
    """Call a function that evaluates a model and its loss, again if the outputs were inexact."""
    try:
        return function()
    except _InexactOutputsError:  # from now on they are exact
        return function()


def binary_cross_entropy(
    input: Tensor,  # noqa: A002 (torch's name, which may be a keyword)
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute what `torch.nn.functional.binary_cross_entropy` does, which checks the arguments."""
    plain = functional.binary_cross_entropy(
        input.detach(), target.detach(), weight, size_average, reduce, reduction
    )
    is_differentiated = input.requires_grad and torch.is_grad_enabled()
    _refuse_lost_probabilities(input.detach(), target, weight, is_differentiated=is_differentiated)
    likelihood = target * input.clamp(min=_SMALLEST).log()
    other = (1 - target) * (1 - input).clamp(min=_SMALLEST).log()
    losses = -(likelihood + other)
    losses = losses if weight is None else losses * weight
    if plain.shape == losses.shape and plain.ndim:
        return losses
    is_mean = size_average is not False and reduction == "mean"
    return losses.mean() if is_mean else losses.sum()


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Compute g v / |v|, with the norm over all dimensions but one, or over all for -1."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def view_as_complex(input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
    """Compute what `torch.view_as_complex` does, also for pairs at odd places of theta.

    It can only view pairs that begin at even places of memory, those of parameters, of buffers and
    of the vectors of products alike. A product with 1, unlike a clone, moves all of them.
    """
    return torch.view_as_complex(input * 1)


def _refuse_lost_probabilities(
    probability: Tensor, target: Tensor, weight: Tensor | None, *, is_differentiated: bool
) -> None:
    """Raise an error where log(p) or log(1 - p) counts and p is rounded to 0 or 1.

    torch takes -100 for this logarithm, whose derivative is 0 and not that of log(sigmoid(z)). The
    value alone is as good as that.
    """
    if is_perturbing() or not is_differentiated:
        return
    lost = ((probability >= 1) & (target < 1)) | ((probability <= 0) & (target > 0))
    if weight is not None:
        lost = lost & (weight != 0)
    if lost.any():
        raise ValueError(
            "probabilities of binary_cross_entropy must lie between 0 and 1 where the target "
            f"differs, got {int(lost.sum())} rounded to 0 or 1, where the derivative is lost; use "
            "nn.BCEWithLogitsLoss on the logits"
        )

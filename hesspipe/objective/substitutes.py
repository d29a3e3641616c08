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
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hesspipe.objective.many_classes import cross_entropy
from hesspipe.objective.norms import EXACT_NORMS, is_differentiated_inside
from hesspipe.objective.rounding import is_perturbing

# torch bounds log(p) from below by -100.
_SMALLEST = math.exp(-100)


Norms = Literal["torch", "until differentiated", "exact"]


class _DifferentiatedInsideError(BaseException):
    """A function differentiates what it evaluates; no Exception, for functions that catch all."""


class ExactDerivatives(TorchFunctionMode):
    """Puts exact operations in the place of those with rounded derivatives.

    Models and losses are evaluated with it, and nothing else, because it sees every function of
    torch, which takes a quarter of the time of checks with many small ones.

    Parameters
    ----------
    norms : {"torch", "until differentiated", "exact"}
        Whether normalization is that of torch, or the same until something evaluated is
        differentiated, which raises `_DifferentiatedInsideError`.
    """

    def __init__(self, norms: Norms = "torch") -> None:
        super().__init__()
        self._norms, self._has_norms = norms, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EXACT_NORMS:
            is_exact = self._norms == "exact" or is_differentiated_inside()
            func = EXACT_NORMS[func] if is_exact else func
            self._has_norms |= not is_exact
        elif func is torch.autograd.grad and self._norms == "until differentiated":
            if self._has_norms and (kwargs or {}).get("create_graph"):
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


def exact_operations() -> AbstractContextManager[Any]:
    """Use exact operations; not inside transforms of torch.func, for which they have no rules."""
    is_transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return nullcontext() if is_transformed else ExactDerivatives()


def evaluated_exactly(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the caller with exact operations.

    Where it differentiates what it evaluates, it is called again with exact normalization.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return function(*args)
    try:
        with ExactDerivatives("until differentiated"):
            return function(*args)
    except _DifferentiatedInsideError:
        with ExactDerivatives("exact"):
            return function(*args)


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

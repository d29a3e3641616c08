"""Denominators of mean losses, the weights of batches in the loss over all the data.

A loss of torch is recognized by identity, not by its name: a subclass with a forward of its own, or
a function of the same name, may divide by anything.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import _reduction, functional

from hesspipe.objective.substitutes import Norms, loss_evaluated_exactly

# (outputs, targets) -> scalar; outputs as the model returns them.
LossFunction = Callable[[Any, Any], Tensor]
Denominator = Callable[[Any, Any], float]

# Functions of torch by the names of their modules. The first are means over labels, weighted by
# class; then means over elements, with targets of the shape of the outputs; then means over what
# reduction="none" returns.
_PER_LABEL = {"CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss"}
_PER_ELEMENT = {
    "MSELoss": "mse_loss",
    "L1Loss": "l1_loss",
    "SmoothL1Loss": "smooth_l1_loss",
    "HuberLoss": "huber_loss",
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "KLDivLoss": "kl_div",
    "PoissonNLLLoss": "poisson_nll_loss",
    "SoftMarginLoss": "soft_margin_loss",
}
_PER_TERM = {
    "HingeEmbeddingLoss": "hinge_embedding_loss",
    "GaussianNLLLoss": "gaussian_nll_loss",
    "MultiLabelSoftMarginLoss": "multilabel_soft_margin_loss",
    "MultiLabelMarginLoss": "multilabel_margin_loss",
    "MultiMarginLoss": "multi_margin_loss",
    "CosineEmbeddingLoss": "cosine_embedding_loss",
    "MarginRankingLoss": "margin_ranking_loss",
    "TripletMarginLoss": "triplet_margin_loss",
}
_FUNCTIONS = _PER_LABEL | _PER_ELEMENT | _PER_TERM
# Means over terms that are themselves weighted by an argument of the shape of the outputs.
_WEIGHTED_MEANS = ("mse_loss", "l1_loss")


@dataclass(frozen=True)
class ReducedLoss:
    """The loss of a batch, and how those of several batches are added.

    Attributes
    ----------
    given : callable (outputs, targets) -> scalar Tensor
        The loss of the caller.
    denominator : callable (outputs, targets) -> float, optional
        Of a mean on a batch, if the caller gave it.
    is_sum : bool
        Whether losses of batches are added, and not averaged.
    norms : Norms
        Of the model.
    """

    given: LossFunction
    denominator: Denominator | None
    is_sum: bool
    norms: Norms

    @cached_property
    def loss_fn(self) -> LossFunction:
        """The loss with exact operations; see `hesspipe.objective.substitutes`."""
        return partial(loss_evaluated_exactly, self.norms, self.given)

    def known_denominator(self) -> Denominator | None:
        """Return the denominator of a mean loss; None for a sum.

        Raises
        ------
        ValueError
            If it was not given, and the loss is not one of torch.
        """
        if self.is_sum:
            return None
        return self.denominator or known_denominator(self.given)


class _Known(NamedTuple):
    """A loss of torch: the name of its function, its settings, and itself with others."""

    name: str
    settings: dict[str, Any]
    with_settings: Callable[..., LossFunction]


def reduction(loss_fn: LossFunction) -> str | None:
    """Return the reduction of a loss of torch, "mean", "sum" or "batchmean"; None for others."""
    known = _known(loss_fn)
    return None if known is None else known.settings["reduction"]


def known_denominator(loss_fn: LossFunction) -> Denominator:
    """Return the denominator of a loss of torch, or of a `functools.partial` of one.

    Parameters
    ----------
    loss_fn : callable (outputs, targets) -> scalar Tensor

    Returns
    -------
    callable (outputs, targets) -> float
        1 for a sum.

    Raises
    ------
    ValueError
        If the loss is not one of torch, or its denominator is no function of one batch.

    Examples
    --------
    >>> loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    >>> known_denominator(loss_fn)(torch.zeros(3, 2), torch.tensor([0, 1, -100]))
    4.0
    """
    known = _known(loss_fn)
    how = None if known is None else known.settings["reduction"]
    if known is not None and how not in ("mean", "sum", "batchmean"):
        raise ValueError(f"loss_fn must be a mean or a sum, got reduction={how!r}; use 'mean'")
    if known is None:
        raise ValueError(
            f"the denominator of loss_fn ({_name_of(loss_fn)}) must be known to weight batches, "
            "got a loss that is not one of torch; pass denominator=..., a function of (outputs, "
            "targets) that returns what the loss divides by on a batch (1 for a sum), or all the "
            "data as one batch"
        )
    if how == "sum":
        return lambda outputs, targets: 1.0
    if how == "batchmean":
        return lambda outputs, _: float(len(outputs))
    return partial(_denominator, known)


def _known(loss_fn: LossFunction) -> _Known | None:
    """Recognize a loss of torch that is used as torch defines it."""
    while isinstance(loss_fn, partial) and not (loss_fn.args or loss_fn.keywords):
        loss_fn = loss_fn.func
    if isinstance(loss_fn, MethodType) and loss_fn.__name__ == "forward":
        owner: Any = loss_fn.__self__
        is_forward = isinstance(owner, nn.Module) and loss_fn == owner.forward
        return _known_module(owner) if is_forward else None
    if isinstance(loss_fn, nn.Module):
        return _known_module(loss_fn)
    function = loss_fn.func if isinstance(loss_fn, partial) else loss_fn
    names = [name for name in _FUNCTIONS.values() if getattr(functional, name) is function]
    if not names or (isinstance(loss_fn, partial) and loss_fn.args):
        return None
    given = loss_fn.keywords if isinstance(loss_fn, partial) else {}
    parameters = inspect.signature(function).parameters.values()
    settings = {parameter.name: parameter.default for parameter in parameters} | given
    legacy = settings.pop("size_average", None), settings.pop("reduce", None)
    if legacy != (None, None):
        settings["reduction"] = _reduction.legacy_get_string(*legacy, emit_warning=False)
    plain = {name: value for name, value in given.items() if name not in ("size_average", "reduce")}
    return _Known(names[0], settings, lambda **others: partial(function, **(plain | others)))


def _known_module(module: Any) -> _Known | None:
    """Recognize a module of torch, or of a subclass that computes the same."""
    kinds = [kind for kind in type(module).__mro__ if kind is getattr(nn, kind.__name__, None)]
    if not kinds or kinds[0].__name__ not in _FUNCTIONS:
        return None
    is_changed = (
        type(module).forward is not kinds[0].forward
        or type(module).__call__ is not nn.Module.__call__
        or "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
    )
    if is_changed:
        return None
    settings = {
        name: getattr(module, name, default)
        for name, default in (("reduction", "mean"), ("weight", None), ("ignore_index", -100))
    }

    def with_settings(**others: Any) -> LossFunction:
        other = copy.copy(module)
        vars(other).update(others)
        return other  # type: ignore[no-any-return]

    return _Known(_FUNCTIONS[kinds[0].__name__], settings, with_settings)


def _denominator(known: _Known, outputs: Any, targets: Any) -> float:
    """Compute what a mean divides by."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        kinds = f"{type(outputs).__name__} and {type(targets).__name__}"
        raise ValueError(
            f"outputs and targets of {known.name} must be tensors, got {kinds}; where the model "
            "returns more, take the tensor from it: in forward, or in a function that is given as "
            "loss_fn with its denominator=..."
        )
    weight = known.settings.get("weight")
    if known.name in _PER_LABEL.values():
        return _label_weight(known.settings, outputs, targets)
    if known.name in _PER_ELEMENT.values() and outputs.shape != targets.shape:
        raise ValueError(
            f"targets must have the shape of the outputs, {tuple(outputs.shape)}, got "
            f"{tuple(targets.shape)}, which would be broadcast over samples; use "
            "targets.view_as(outputs)"
        )
    if known.name in _WEIGHTED_MEANS and weight is not None:
        return float(weight.sum())
    with torch.no_grad():
        terms = known.with_settings(reduction="none")(outputs, targets)
    return float(terms.numel())


def _label_weight(settings: dict[str, Any], outputs: Tensor, targets: Tensor) -> float:
    """Sum the class weights of the valid labels; targets that are probabilities count 1 each."""
    if targets.is_floating_point():
        return outputs.numel() / outputs.shape[min(1, outputs.ndim - 1)]
    valid = targets[targets != settings["ignore_index"]]
    weight: Tensor | None = settings["weight"]
    return float(valid.numel() if weight is None else weight[valid].sum())


def _name_of(loss_fn: LossFunction) -> str:
    function = loss_fn.func if isinstance(loss_fn, partial) else loss_fn
    return str(getattr(function, "__name__", type(function).__name__))

"""Denominators of mean losses, the weights of batches in the loss over all the data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

# (outputs, targets) -> scalar; outputs as the model returns them.
LossFunction = Callable[[Any, Any], Tensor]
Denominator = Callable[[Any, Any], float]

# Losses that are means over labels, weighted by class, over elements, or over samples.
_PER_LABEL = {"CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss"}
_PER_ELEMENT = {
    "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss",
    "KLDivLoss", "PoissonNLLLoss", "SoftMarginLoss", "mse_loss", "l1_loss", "smooth_l1_loss",
    "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
    "poisson_nll_loss", "soft_margin_loss",
}  # fmt: skip
_PER_SAMPLE = {"MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss"}


def reduction(loss_fn: LossFunction) -> str | None:
    """Return the reduction of the loss, "mean", "sum" or "batchmean"; None if unknown."""
    found = _setting(loss_fn, "reduction", None)
    return found if isinstance(found, str) else None


def known_denominator(loss_fn: LossFunction) -> Denominator:
    """Return the denominator of a mean loss of torch, or of a `functools.partial` of one.

    Parameters
    ----------
    loss_fn : callable (outputs, targets) -> scalar Tensor

    Returns
    -------
    callable (outputs, targets) -> float

    Raises
    ------
    ValueError
        If the loss is not one of torch.

    Examples
    --------
    >>> loss_fn = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    >>> known_denominator(loss_fn)(torch.zeros(3, 2), torch.tensor([0, 1, -100]))
    4.0
    """
    function = loss_fn.func if isinstance(loss_fn, partial) else loss_fn
    name = getattr(function, "__name__", type(function).__name__)
    if getattr(function, "__module__", "").startswith("torch.nn"):
        if name in _PER_LABEL:
            return lambda outputs, targets: _label_weight(loss_fn, outputs, targets)
        if name in _PER_SAMPLE or reduction(loss_fn) == "batchmean":
            return lambda outputs, _: float(len(outputs))
        if name in _PER_ELEMENT:
            return _num_elements
    raise ValueError(
        f"the denominator of loss_fn ({name}) must be known to weight batches, got a loss that is "
        "not one of torch; pass denominator=..., a function of (outputs, targets) that returns "
        "what the loss divides by on a batch (1 for a sum), or all the data as one batch"
    )


def _setting(loss_fn: LossFunction, name: str, default: Any) -> Any:
    """Return an argument that a loss was constructed with."""
    if isinstance(loss_fn, partial):
        return loss_fn.keywords.get(name, default)
    return getattr(loss_fn, name, default)


def _num_elements(outputs: Tensor, targets: Tensor) -> float:
    if outputs.shape != targets.shape:
        raise ValueError(
            f"targets must have the shape of the outputs, {tuple(outputs.shape)}, got "
            f"{tuple(targets.shape)}, which would be broadcast over samples; use "
            "targets.view_as(outputs)"
        )
    return float(outputs.numel())


def _label_weight(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> float:
    """Sum the class weights of the valid labels; targets that are probabilities count 1 each."""
    if targets.is_floating_point():
        return outputs.numel() / outputs.shape[1]
    valid = targets[targets != _setting(loss_fn, "ignore_index", -100)]
    weight: Tensor | None = _setting(loss_fn, "weight", None)
    return float(len(valid) if weight is None else weight[valid].sum())

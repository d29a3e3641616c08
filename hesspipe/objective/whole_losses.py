"""Losses of whole batches: `loss(model, batch)`, or `outputs(model, batch)` and then a loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.reductions import Denominator, ReducedLoss
from hesspipe.objective.whole_batches import BatchNumber, WholeBatch, number_of

COUPLING = "batches of Objective.from_batches are whole, and are not divided into samples"
WITHOUT_OUTPUTS = (
    "G and R are defined by the outputs of the network, which loss(model, batch) hides; pass "
    "outputs=lambda model, batch: ..., and loss as a function of (outputs, batch), or use the "
    "hessian"
)
_REDUCTIONS = ("mean", "sum")


def adopt_functions(
    flat: FlatModel,
    loss: Callable[..., Tensor],
    outputs: Callable[[nn.Module, Any], Any] | None,
    denominator: Denominator,
    *,
    is_sum: bool,
) -> ReducedLoss:
    """Copy the functions of the caller, and let a model be evaluated by them.

    Parameters
    ----------
    flat : FlatModel
        Gets its `function`.
    loss : callable (model, batch) -> scalar Tensor
        Or callable (outputs, batch), if there are outputs.
    outputs : callable (model, batch) -> nested tensors, optional
    denominator : callable (outputs, WholeBatch) -> float
    is_sum : bool
        Whether losses of batches are added, and not averaged.

    Returns
    -------
    ReducedLoss
        Of what the model returns, and a WholeBatch.

    Raises
    ------
    ValueError
        If one is no function.
    """
    for name, function in (("loss", loss), ("outputs", outputs)):
        if not (callable(function) or (name == "outputs" and function is None)):
            first = "model" if name == "outputs" or outputs is None else "outputs"
            raise ValueError(
                f"{name} must be a function of ({first}, batch), got {type(function).__name__}"
            )
    loss, outputs, denominator = flat.copied(loss, outputs, denominator)
    if outputs is None:
        flat.function = partial(_scalar, loss)
        return ReducedLoss(_first, denominator, is_sum, flat.norms)
    flat.function = outputs
    return ReducedLoss(partial(_loss_of_outputs, loss), denominator, is_sum, flat.norms)


def denominator_of(
    num_samples: BatchNumber | None, denominator: BatchNumber | None, reduction: str
) -> Denominator:
    """Return what the loss of a batch divides by.

    Parameters
    ----------
    num_samples, denominator : callable (batch) -> number, or str, optional
    reduction : {"mean", "sum"}

    Returns
    -------
    callable (outputs, WholeBatch) -> float
        Raises an error if it is not known.

    Raises
    ------
    ValueError
        If an argument has another form.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    for name, what in (("num_samples", num_samples), ("denominator", denominator)):
        if not (what is None or isinstance(what, str) or callable(what)):
            raise ValueError(
                f"{name} must be a function of the batch, or the name of one of its attributes or "
                f"keys, got {what!r}; a loss that is a sum has reduction='sum'"
            )
    if reduction == "sum" and denominator is not None:
        raise ValueError("denominator must be None for reduction='sum', which divides by nothing")
    if denominator is not None:
        return partial(_number, denominator, "denominator")
    if num_samples is not None:
        return partial(_number, num_samples, "num_samples")
    return _unknown


def _number(what: BatchNumber, name: str, _: Any, batch: WholeBatch) -> float:
    return number_of(batch, what, name)


def _unknown(_: Any, batch: WholeBatch) -> float:
    raise ValueError(
        "the number of samples of each batch must be known to weight batches of a mean loss, got "
        "neither num_samples nor denominator; pass num_samples=lambda batch: ... (or the name of "
        "an attribute or key), denominator=lambda batch: ... if the loss divides by something "
        "else, e.g. valid labels, or reduction='sum'"
    )


def _first(outputs: Tensor, _: WholeBatch) -> Tensor:
    """Return the loss, where it is all that is evaluated."""
    return outputs


def _loss_of_outputs(loss: Callable[[Any, Any], Tensor], outputs: Any, batch: WholeBatch) -> Tensor:
    return _scalar(loss, outputs, batch.copy())


def _scalar(loss: Callable[[Any, Any], Tensor], first: Any, batch: Any) -> Tensor:
    value = loss(first, batch)
    if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
        return value
    if isinstance(value, Tensor):
        found, advice = f"shape {tuple(value.shape)} of {value.dtype}", "use .mean() or .sum()"
    else:
        found, advice = type(value).__name__, "return the loss only, e.g. .loss of an output"
    raise ValueError(f"loss must return a scalar tensor, got {found}; {advice}")

"""Targets of another shape than the outputs, which torch would broadcast over samples.

Outputs (N, 1) less targets (N,) are (N, N): every output is compared with every target. Torch
computes this without an error, and the loss looks like one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.reductions import LossFunction
from hesspipe.tolerances import rounding


def refuse_mixing_broadcast(loss: LossFunction, outputs: Any, targets: Any) -> None:
    """Raise an error if a loss compares the outputs for a sample with targets of others.

    The shapes alone do not tell: labels (N,) are right for logits (N, C). The loss does: with the
    targets in the shape of the outputs, or the outputs in that of the targets, it has one value,
    and as they are another one.

    Parameters
    ----------
    loss : callable (outputs, targets) -> scalar Tensor
    outputs, targets : Any
        Of one batch.

    Raises
    ------
    NotASumOverSamplesError
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return
    if outputs.shape == targets.shape or not _is_mixed(outputs, targets):
        return
    ways = _aligned(outputs, targets)
    found = _value(loss, outputs, targets)
    one, other = (_value(loss, *way) for way in ways)
    tolerance = rounding(max(abs(found), abs(one)), outputs.dtype)
    if abs(one - other) <= tolerance < abs(found - one):
        raise NotASumOverSamplesError(
            "targets must have one row per sample in the shape of the outputs, "
            f"{tuple(outputs.shape)}, got {tuple(targets.shape)}, which loss_fn broadcasts over "
            "samples; use targets.view_as(outputs)"
        )


def _is_mixed(outputs: Tensor, targets: Tensor) -> bool:
    """Whether broadcasting aligns the samples of one with another dimension of the other."""
    try:
        shape = torch.broadcast_shapes(outputs.shape, targets.shape)
    except RuntimeError:
        return False
    if not outputs.ndim or not targets.ndim or len(outputs) < 2:
        return False
    has_rows = len(targets) == len(outputs)
    if has_rows and outputs.ndim != targets.ndim:
        return True
    return bool(outputs.numel() == targets.numel() < shape.numel())


def _aligned(outputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Give both one shape, in two ways that a sum over samples does not tell apart."""
    if outputs.numel() == targets.numel():
        return [
            (outputs, targets.reshape(outputs.shape)),
            (outputs.reshape(targets.shape), targets),
        ]
    ndim = max(outputs.ndim, targets.ndim)
    tall, wide = (
        tensor.reshape(tensor.shape + (1,) * (ndim - tensor.ndim)) for tensor in (outputs, targets)
    )
    try:
        expanded = torch.broadcast_tensors(tall, wide)
    except RuntimeError:
        return [(outputs, targets)] * 2
    return [(tall, wide), (expanded[0], expanded[1])]


def _value(loss: LossFunction, outputs: Tensor, targets: Tensor) -> float:
    try:
        return float(loss(outputs, targets).detach())
    except Exception:  # the loss need not be defined for these shapes
        return math.nan

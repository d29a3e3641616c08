"""Loss, accuracy and gradient norm of a network over a whole set, in batches where exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from hesspipe.networks.pooling import faster_pooling
from hesspipe.objective.reductions import LossFunction, known_denominator, reduction
from hesspipe.seeding import generator
from hesspipe.tolerances import agrees, rounding

# The largest batch that the paper trains on, so a network that can be trained on it also fits in
# memory here. Larger ones were not faster.
_BATCH_SIZE = 1000
# Samples, drawn from all batches, whose outputs are compared with those of a batch of their own.
_NUM_PROBES = 64


def loss_and_accuracy(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss_fn: LossFunction = nn.functional.cross_entropy,
) -> tuple[float, float | None]:
    """Evaluate a network on a set of any size.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    inputs, targets : Tensor, shape (N, ...)
    loss_fn : callable (outputs, targets) -> scalar Tensor
        A loss of torch is computed in batches, each weighted by what the loss divides by on it.
        Any other loss, and any network whose outputs for a sample depend on the other samples, is
        computed on the whole set at once.

    Returns
    -------
    loss : float
    accuracy : float or None
        Share of the samples whose label has the largest output, 0 to 1; None if the targets are
        not labels of at least two classes.

    Raises
    ------
    ValueError
        If there is no sample, or not as many targets as inputs.
    """
    with torch.no_grad(), faster_pooling(model):
        loss, accuracy, _ = _evaluate(model, inputs, targets, loss_fn, [])
    return loss, accuracy


def loss_accuracy_and_slope(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss_fn: LossFunction = nn.functional.cross_entropy,
) -> tuple[float, float | None, float]:
    """Evaluate a network and the norm of its loss's gradient in one pass.

    Parameters
    ----------
    model, inputs, targets, loss_fn
        See `loss_and_accuracy`; the parameters' `.grad` is not changed.

    Returns
    -------
    loss, accuracy : float
        See `loss_and_accuracy`.
    gradient_norm : float
        Norm of the gradient of the loss in all parameters that require one.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model must have a parameter that requires a gradient, got none")
    return _evaluate(model, inputs, targets, loss_fn, parameters)


class _CoupledError(Exception):
    """The set is not the sum of its batches."""


def _evaluate(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss_fn: LossFunction,
    parameters: list[nn.Parameter],
) -> tuple[float, float | None, float]:
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        raise TypeError(
            "inputs and targets must be Tensors, got "
            f"{type(inputs).__name__} and {type(targets).__name__}; use torch.as_tensor"
        )
    if not len(inputs) or len(inputs) != len(targets):
        raise ValueError(
            "inputs and targets must be as many, and at least one, got "
            f"{len(inputs)} and {len(targets)}"
        )
    buffers = [
        (buffer, buffer.clone()) for buffer in model.buffers() if buffer.layout == torch.strided
    ]
    try:
        if len(inputs) > _BATCH_SIZE and _is_known(loss_fn):
            try:
                return _evaluate_in(_BATCH_SIZE, model, inputs, targets, loss_fn, parameters)
            except _CoupledError:
                _restore(buffers)
        return _evaluate_in(len(inputs), model, inputs, targets, loss_fn, parameters)
    finally:
        _restore(buffers)


def _restore(buffers: list[tuple[Tensor, Tensor]]) -> None:
    """Undo what an evaluation in training mode does to running means."""
    with torch.no_grad():
        for buffer, before in buffers:
            if not torch.equal(buffer, before):
                buffer.copy_(before)


def _evaluate_in(
    size: int,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss_fn: LossFunction,
    parameters: list[nn.Parameter],
) -> tuple[float, float | None, float]:
    """Evaluate in batches of one size; the gradient's norm is 0 without parameters."""
    slopes = [torch.zeros_like(parameter) for parameter in parameters]
    loss, total, counts, probed = 0.0, 0.0, [], []
    probes = _draw_probes(len(inputs), size)
    for start, (part, part_targets) in zip(
        range(0, len(inputs), size), _batches(inputs, targets, size), strict=True
    ):
        outputs = model(part)
        weight = _weight(loss_fn, outputs, part_targets)
        if len(part) < len(inputs):
            _require_separable(loss_fn, outputs, part_targets)
            chosen = probes[(probes >= start) & (probes < start + len(part))] - start
            probed.append(outputs.detach()[chosen.to(outputs.device)])
            if weight == 0:  # no valid label: the loss would be 0 / 0
                continue
        else:
            weight = 1.0  # so that nothing is rounded
        part_loss = loss_fn(outputs, part_targets)
        _require_scalar(part_loss)
        if parameters:
            gradients = torch.autograd.grad(part_loss, parameters, materialize_grads=True)
            torch._foreach_add_(slopes, gradients, alpha=weight)
        loss, total = loss + weight * part_loss.item(), total + weight
        counts.append(_count_right(outputs, part_targets, loss_fn))
    if len(probes):
        _require_same(model, inputs[probes.to(inputs.device)], torch.cat(probed))
    if not total > 0:
        raise ValueError(f"targets must hold what the loss counts, got a denominator of {total}")
    if reduction(loss_fn) == "sum":
        total = 1.0
    norm = torch.stack([slope.norm() for slope in slopes]).norm().item() if slopes else 0.0
    return loss / total, _accuracy(counts), norm / total


def _require_scalar(loss: object) -> None:
    """Refuse what loss_fn returns if it is not one number."""
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss_fn must return a scalar Tensor, got {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"loss_fn must return a scalar, got shape {tuple(loss.shape)}")


def _batches(inputs: Tensor, targets: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(inputs.split(size), targets.split(size), strict=True)


def _is_known(loss_fn: LossFunction) -> bool:
    """Whether the weights of batches are known."""
    try:
        known_denominator(loss_fn)
    except ValueError:
        return reduction(loss_fn) == "sum" and _is_of_torch(loss_fn)
    return True


def _is_of_torch(loss_fn: LossFunction) -> bool:
    function = loss_fn.func if isinstance(loss_fn, partial) else loss_fn
    return getattr(function, "__module__", "").startswith("torch.nn")


def _weight(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> float:
    """Weigh a batch by what its loss divides by; refuse targets that would be broadcast."""
    try:
        divide = known_denominator(loss_fn)
    except ValueError:
        return 1.0
    denominator = divide(outputs, targets)
    return 1.0 if reduction(loss_fn) == "sum" else denominator


def _require_separable(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> None:
    """Compare the loss of a batch with that of its two halves."""
    if not isinstance(outputs, Tensor) or len(outputs) != len(targets):
        raise _CoupledError
    half = (len(outputs) + 1) // 2
    with torch.no_grad():
        sums = [
            weight * float(loss_fn(rows, labels))
            for rows, labels in _batches(outputs, targets, half)
            if (weight := _weight(loss_fn, rows, labels))
        ]
        weight = _weight(loss_fn, outputs, targets)
        whole = weight * float(loss_fn(outputs, targets)) if weight else 0.0
    scale = sum(map(abs, sums)) + abs(whole)
    if not abs(sum(sums) - whole) <= rounding(scale, outputs.dtype):
        raise _CoupledError


def _draw_probes(num_samples: int, size: int) -> Tensor:
    """Draw samples from all batches, ascending; none if there is one batch."""
    if size >= num_samples:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    order = torch.randperm(
        num_samples, generator=generator(num_samples, "probes of a set"), device="cpu"
    )
    return order[:_NUM_PROBES].sort().values


def _require_same(model: nn.Module, inputs: Tensor, expected: Tensor) -> None:
    """Compare outputs with those of the same samples in other company."""
    with torch.no_grad():
        found = model(inputs)
    if found.shape != expected.shape or not agrees(found, expected, expected.norm()):
        raise _CoupledError


def _count_right(outputs: Tensor, targets: Tensor, loss_fn: LossFunction) -> tuple[int, int] | None:
    """Count the labels with the largest output, and all labels; None without class labels."""
    # Class labels have the shape of the outputs without the second dimension, the classes.
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.shape[1] < 2:
        return None
    is_whole = not (targets.is_floating_point() or targets.is_complex())
    if not is_whole or targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        return None
    ignored = getattr(loss_fn, "ignore_index", -100)
    if isinstance(loss_fn, partial):
        ignored = loss_fn.keywords.get("ignore_index", -100)
    is_label = targets != ignored
    if not ((targets >= 0) & (targets < outputs.shape[1]))[is_label].all():
        return None
    is_right = (outputs.argmax(1) == targets) & is_label
    return int(is_right.sum().item()), int(is_label.sum().item())


def _accuracy(counts: list[tuple[int, int] | None]) -> float | None:
    known = [count for count in counts if count is not None]
    num_right, num_labels = (
        (sum(numbers) for numbers in zip(*known, strict=True)) if known else (0, 0)
    )
    return num_right / num_labels if num_labels and len(known) == len(counts) else None

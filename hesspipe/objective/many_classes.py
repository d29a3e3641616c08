"""Cross-entropy of many classes, such as the words of a language, with little memory.

What torch keeps for second derivatives, and makes on the way, are nine arrays of one number per
sample and class. Here the logits and the slopes are kept, and a product with the curvature
diag(p) - p p^T of each sample, computed for a few samples at a time, makes one more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# From here on the arrays are large, and vectors are multiplied one at a time anyway.
_MANY = 10_000
# Numbers of the arrays that are made for a few samples.
_NUM_NUMBERS = 2**18


def cross_entropy(
    input: Tensor,  # noqa: A002 (torch's name, which may be a keyword)
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute what `torch.nn.functional.cross_entropy` does, which takes few or soft labels."""
    is_plain = size_average is None and reduce is None and label_smoothing == 0.0
    is_known = is_plain and reduction in ("none", "mean", "sum")
    has_rows = input.ndim == 2 and input.shape[1] >= _MANY and input.is_floating_point()
    has_labels = target.dtype == torch.int64 and target.shape == input.shape[:1] and len(input)
    has_weights = weight is None or weight.shape == input.shape[1:]
    is_ours = is_known and has_rows and has_labels and has_weights
    is_valid = target != ignore_index if is_ours else target
    labels = target.where(is_valid, 0) if is_ours else target
    if not (is_ours and _are_classes(labels, input)):  # also for what torch refuses
        return functional.cross_entropy(
            input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing
        )
    weights = is_valid.to(input.dtype)
    if weight is not None:
        weights = weights * weight[labels]
    losses: Tensor = CrossEntropyOfManyClasses.apply(input, labels)  # type: ignore[no-untyped-call]
    losses = torch.where(is_valid, losses * weights, 0.0)
    if reduction == "none":
        return losses
    return losses.sum() / weights.sum() if reduction == "mean" else losses.sum()


def _are_classes(labels: Tensor, logits: Tensor) -> bool:
    return int(labels.min()) >= 0 and int(labels.max()) < logits.shape[1]


class CrossEntropyOfManyClasses(torch.autograd.Function):
    """-log p of a label for each sample: (n,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute log sum exp(z) - z_y, relative to the largest logit."""
        ctx.save_for_backward(logits, labels)
        losses = logits.new_empty(len(logits))
        for part in _parts(logits):
            few = logits[part]
            largest = few.amax(1, keepdim=True)
            likelihood = few.gather(1, labels[part].unsqueeze(1)) - largest
            losses[part] = (few - largest).exp_().sum(1).log_() - likelihood.squeeze(1)
        return losses

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        """Pull slopes (n,) back to the logits."""
        logits, labels = ctx.saved_tensors
        return _Slopes.apply(logits, slopes, labels), None  # type: ignore[no-untyped-call]


class _Slopes(torch.autograd.Function):
    """a (p - y) for factors a (n,): the slopes in the logits (n, C)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, factors: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, factors, labels)
        found = torch.empty_like(logits)
        for part in _parts(logits):
            found[part] = logits[part].softmax(1).mul_(factors[part].unsqueeze(1))
        places = labels.unsqueeze(1)
        return found.scatter_add_(1, places, -factors.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, vectors: Tensor) -> tuple[Tensor, Tensor, None]:
        logits, factors, labels = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a third derivative
            return *_pulled_back(logits, factors, labels, vectors), None
        products, means = torch.empty_like(logits), torch.empty_like(factors)
        for part in _parts(logits):
            products[part], means[part] = _pulled_back(
                logits[part], factors[part], labels[part], vectors[part]
            )
        return products, means, None


def _pulled_back(
    logits: Tensor, factors: Tensor, labels: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Multiply vectors u (n, C) with derivatives of the slopes in logits and factors.

    These are a (p u - p <p, u>) and <p - y, u>.
    """
    probabilities = logits.softmax(1)
    means = (probabilities * vectors).sum(1)
    products = factors.unsqueeze(1) * probabilities * (vectors - means.unsqueeze(1))
    return products, means - vectors.gather(1, labels.unsqueeze(1)).squeeze(1)


def _parts(rows: Tensor) -> Iterator[slice]:
    """Divide samples so that arrays of a part are small."""
    size = max(1, _NUM_NUMBERS // rows.shape[1])
    for start in range(0, len(rows), size):
        yield slice(start, start + size)

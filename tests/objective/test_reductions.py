"""Denominators: the weighted sum over batches equals the loss of one batch, or they are refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from problems import EPS, labels, normal
from torch import Tensor, nn
from torch.nn import functional

from hesspipe.objective.reductions import known_denominator, reduction

N, C = 11, 3
WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
OUTPUTS, CLASSES = normal(N, C), labels(N, C)
REAL, PROBABILITIES = normal(N, C, seed=5), normal(N, C, seed=5).softmax(1)
SIGNS = torch.where(REAL > 0, 1.0, -1.0).double()
MAPS, MAP_CLASSES = normal(N, C, 4), labels(4 * N, C).view(N, 4)


def ignoring(targets: Tensor, index: int = -100) -> Tensor:
    targets = targets.clone()
    targets[::4] = index
    return targets


def quietly(build: Callable[[], Any]) -> Any:
    """Build a loss with settings that torch calls legacy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()


CE, F = nn.CrossEntropyLoss, functional
# Losses with outputs and targets.
CASES: dict[str, tuple[Any, Tensor, Tensor]] = {
    "labels": (CE(), OUTPUTS, CLASSES),
    "weights": (CE(weight=WEIGHTS), OUTPUTS, CLASSES),
    "ignored": (CE(), OUTPUTS, ignoring(CLASSES)),
    "ignored class": (CE(ignore_index=1), OUTPUTS, CLASSES),
    "weights, ignored": (CE(weight=WEIGHTS, ignore_index=7), OUTPUTS, ignoring(CLASSES, 7)),
    "smoothing": (CE(label_smoothing=0.3), OUTPUTS, ignoring(CLASSES)),
    "weights, smoothing": (CE(weight=WEIGHTS, label_smoothing=0.3), OUTPUTS, ignoring(CLASSES)),
    "probabilities": (CE(), OUTPUTS, PROBABILITIES),
    "probabilities, weights": (CE(weight=WEIGHTS, label_smoothing=0.2), OUTPUTS, PROBABILITIES),
    "maps": (CE(weight=WEIGHTS, label_smoothing=0.2), MAPS, ignoring(MAP_CLASSES)),
    "probability maps": (CE(), MAPS, MAPS.softmax(1)),
    "sum": (CE(reduction="sum", weight=WEIGHTS), OUTPUTS, CLASSES),
    "legacy sum": (quietly(lambda: CE(size_average=False)), OUTPUTS, CLASSES),
    "legacy mean": (quietly(lambda: CE(size_average=True, reduce=True)), OUTPUTS, CLASSES),
    "log-likelihood": (nn.NLLLoss(weight=WEIGHTS), OUTPUTS.log_softmax(1), ignoring(CLASSES)),
    "log-likelihood of maps": (nn.NLLLoss(), MAPS.log_softmax(1), ignoring(MAP_CLASSES)),
    "function": (F.cross_entropy, OUTPUTS, ignoring(CLASSES)),
    "partial": (partial(F.cross_entropy, weight=WEIGHTS, ignore_index=1), OUTPUTS, CLASSES),
    "partial of a partial": (
        partial(partial(F.nll_loss, ignore_index=2), weight=WEIGHTS),
        OUTPUTS.log_softmax(1), CLASSES,
    ),
    "partial, legacy sum": (partial(F.cross_entropy, size_average=False), OUTPUTS, CLASSES),
    "partial, legacy mean": (partial(F.mse_loss, reduce=True, reduction="sum"), OUTPUTS, REAL),
    "partial sum": (partial(F.mse_loss, reduction="sum"), OUTPUTS, REAL),
    "partial of a module": (partial(CE(weight=WEIGHTS)), OUTPUTS, CLASSES),
    "method": (CE(weight=WEIGHTS).forward, OUTPUTS, CLASSES),
    "squares": (nn.MSELoss(), OUTPUTS, REAL),
    "squares of maps": (nn.MSELoss(), MAPS, MAPS.flip(0)),
    "absolute values": (nn.L1Loss(), OUTPUTS, REAL),
    "smooth": (nn.SmoothL1Loss(beta=0.3), OUTPUTS, REAL),
    "huber": (nn.HuberLoss(delta=0.4), OUTPUTS, REAL),
    "logistic": (nn.BCEWithLogitsLoss(weight=WEIGHTS, pos_weight=WEIGHTS), OUTPUTS, PROBABILITIES),
    "logistic, one weight": (nn.BCEWithLogitsLoss(weight=WEIGHTS[:1]), OUTPUTS, PROBABILITIES),
    "binary": (nn.BCELoss(weight=WEIGHTS), PROBABILITIES.flip(0), PROBABILITIES),
    "partial binary": (
        partial(F.binary_cross_entropy, weight=WEIGHTS[:1]), PROBABILITIES.flip(0), PROBABILITIES
    ),
    "divergence": (quietly(lambda: nn.KLDivLoss()), OUTPUTS.log_softmax(1), PROBABILITIES),
    "divergence by sample": (
        nn.KLDivLoss(reduction="batchmean"), OUTPUTS.log_softmax(1), PROBABILITIES
    ),
    "partial divergence by sample": (
        partial(F.kl_div, reduction="batchmean", log_target=True),
        OUTPUTS.log_softmax(1), PROBABILITIES.log(),
    ),
    "legacy sum of divergences": (
        quietly(lambda: nn.KLDivLoss(size_average=False)), OUTPUTS.log_softmax(1), PROBABILITIES
    ),
    "counts": (nn.PoissonNLLLoss(full=True), OUTPUTS, REAL.abs().round()),
    "soft margin": (nn.SoftMarginLoss(), OUTPUTS, SIGNS),
    "several labels": (nn.MultiLabelSoftMarginLoss(weight=WEIGHTS), OUTPUTS, (REAL > 0).double()),
    "margins of several labels": (
        nn.MultiLabelMarginLoss(), OUTPUTS,
        torch.stack([CLASSES, -torch.ones_like(CLASSES), CLASSES], 1),
    ),
    "margins": (nn.MultiMarginLoss(weight=WEIGHTS), OUTPUTS, CLASSES),
    "hinge": (nn.HingeEmbeddingLoss(margin=0.5), OUTPUTS, SIGNS),
    "hinge, broadcast": (nn.HingeEmbeddingLoss(), OUTPUTS, SIGNS[:, :1]),
    "gaussian": (partial(F.gaussian_nll_loss, var=0.5), OUTPUTS, REAL),
    "cosines": (partial(F.cosine_embedding_loss, target=torch.ones(1)), OUTPUTS, REAL),
    "ranking": (partial(F.margin_ranking_loss, target=torch.ones(1, 1)), OUTPUTS, REAL),
    "triplets": (partial(F.triplet_margin_loss, negative=REAL[:1] + 1), OUTPUTS, REAL),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.filterwarnings("ignore:size_average and reduce args:UserWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("splits", [[5, 5, 1], [1, 2, 8]])
def test_denominators_make_the_loss_of_one_batch(case: str, splits: list[int]) -> None:
    loss_fn, outputs, targets = CASES[case]
    divide, expected = known_denominator(loss_fn), loss_fn(outputs, targets)
    parts = list(zip(outputs.split(splits), targets.split(splits), strict=True))
    weights = [divide(*part) for part in parts]
    terms = [w * loss_fn(*part) for w, part in zip(weights, parts, strict=True) if w]
    found = torch.stack(terms).sum() / (1.0 if reduction(loss_fn) == "sum" else sum(weights))
    assert abs(float(found - expected)) <= 20 * EPS * abs(float(expected))


@pytest.mark.parametrize("function", [functional.mse_loss, functional.l1_loss])
def test_denominator_of_weighted_elements_is_the_sum_of_weights(function: Any) -> None:
    weight = REAL.abs()
    loss_fn = partial(function, weight=weight)
    total = loss_fn(OUTPUTS, REAL) * known_denominator(loss_fn)(OUTPUTS, REAL)
    expected = (weight * function(OUTPUTS, REAL, reduction="none")).sum()
    assert abs(float(total - expected)) <= 20 * EPS * float(expected)


class Overridden(nn.CrossEntropyLoss):
    """Divides by something else."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().forward(outputs, targets) / len(outputs)


class Renamed(nn.CrossEntropyLoss):
    """Computes the same."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """A function that is named, and claims to be, like one of torch."""
    return functional.cross_entropy(outputs, targets, reduction="sum") / 7


cross_entropy.__module__ = "torch.nn.functional"


class MSELoss(nn.Module):
    """A module that is named, and claims to be, like one of torch."""

    reduction = "sum"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum(1).mean()


MSELoss.__module__ = "torch.nn.modules.loss"


def with_hook() -> nn.Module:
    loss_fn = nn.MSELoss()
    loss_fn.register_forward_hook(lambda module, args, value: value / 2)
    return loss_fn


def with_forward() -> nn.Module:
    loss_fn = nn.MSELoss()
    loss_fn.forward = lambda outputs, targets: (outputs - targets).square().sum()  # type: ignore[method-assign]
    return loss_fn


@pytest.mark.parametrize(
    "loss_fn",
    [
        Overridden(),
        Overridden(reduction="sum"),
        Overridden().forward,
        cross_entropy,
        partial(cross_entropy),
        MSELoss(),
        with_hook(),
        with_forward(),
        partial(functional.mse_loss, REAL),
        nn.CTCLoss(),
        nn.Sequential(nn.MSELoss()),
        lambda outputs, targets: functional.mse_loss(outputs, targets),
    ],
)
def test_denominator_of_other_losses_is_refused(loss_fn: Any) -> None:
    with pytest.raises(ValueError, match=r"must be known to weight batches.*pass denominator"):
        known_denominator(loss_fn)
    assert reduction(loss_fn) is None


@pytest.mark.parametrize(
    "loss_fn", [CE(reduction="none"), partial(functional.cross_entropy, reduction="none")]
)
def test_denominator_of_a_loss_without_reduction_is_refused(loss_fn: Any) -> None:
    with pytest.raises(ValueError, match="must be a mean or a sum, got reduction='none'"):
        known_denominator(loss_fn)


def test_denominator_of_a_subclass_that_computes_the_same_is_known() -> None:
    assert known_denominator(Renamed(weight=WEIGHTS))(OUTPUTS, CLASSES) == float(
        WEIGHTS[CLASSES].sum()
    )


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ({"logits": OUTPUTS}, REAL, "mse_loss must be tensors, got dict and Tensor"),
        (OUTPUTS, REAL[:, :1], "targets must have the shape of the outputs"),
    ],
)
def test_denominator_of_other_outputs_is_refused(outputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        known_denominator(nn.MSELoss())(outputs, targets)

"""Losses of many kinds, each with a small network and data for which it is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.distributions import Bernoulli, Beta, Categorical, Gamma, Laplace, Normal, StudentT
from torch.nn import functional

NUM_SAMPLES, NUM_INPUTS = 9, 4


def _in_unit_interval(seed: int) -> Tensor:
    return normal(NUM_SAMPLES, 3, seed=seed).sigmoid()


def _brier(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.softmax(1) - functional.one_hot(targets, 3)).square().sum(1).mean()


def _focal(outputs: Tensor, targets: Tensor) -> Tensor:
    log_p = outputs.log_softmax(1).gather(1, targets[:, None])
    return -((1 - log_p.exp()) ** 2 * log_p).mean()


def _log_with_epsilon(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(outputs.softmax(1).gather(1, targets[:, None]) + 1e-12).log().mean()


def _cosine(outputs: Tensor, targets: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(outputs, targets, dim=1).mean()


def _hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    right = outputs.gather(1, targets[:, None])
    return functional.relu(1 + outputs - right).square().mean()


def _gaussian(outputs: Tensor, targets: Tensor) -> Tensor:
    variance = outputs[:, 2].square() + 0.01
    return functional.gaussian_nll_loss(outputs[:, :2], targets[:, :2], variance[:, None])


def _log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).cosh().log().mean()


def _negative_log_probability(distribution: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return -distribution(outputs).log_prob(targets).mean()

    return loss


CLASSES, NUMBERS = labels(NUM_SAMPLES, 3), normal(NUM_SAMPLES, 3, seed=5)
COUNTS, SIGNS = labels(NUM_SAMPLES * 3, 4).view(-1, 3).double(), NUMBERS.sign()
BITS, PARTS = (NUMBERS > 0).double(), _in_unit_interval(5)
positive, unit = functional.softplus, torch.sigmoid

LOSSES: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "CrossEntropyLoss": (nn.CrossEntropyLoss(), CLASSES),
    "CrossEntropyLoss, smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), CLASSES),
    "MSELoss": (nn.MSELoss(), NUMBERS),
    "HuberLoss": (nn.HuberLoss(delta=0.7), NUMBERS),
    "SmoothL1Loss": (nn.SmoothL1Loss(), NUMBERS),
    "SoftMarginLoss": (nn.SoftMarginLoss(), SIGNS),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss(), BITS),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss(), PARTS),
    "BCELoss": (lambda o, t: functional.binary_cross_entropy(unit(o), t), BITS),
    "PoissonNLLLoss of logarithms": (nn.PoissonNLLLoss(), COUNTS),
    "PoissonNLLLoss": (lambda o, t: functional.poisson_nll_loss(positive(o), t, False), COUNTS),
    "GaussianNLLLoss": (_gaussian, NUMBERS),
    "KLDivLoss": (
        lambda o, t: functional.kl_div(o.log_softmax(1), t, reduction="batchmean"),
        NUMBERS.softmax(1),
    ),
    "NLLLoss": (lambda o, t: functional.nll_loss(o.log_softmax(1), t), CLASSES),
    "Brier": (_brier, CLASSES),
    "focal": (_focal, CLASSES),
    "logarithm with an epsilon": (_log_with_epsilon, CLASSES),
    "cosine": (_cosine, NUMBERS),
    "squared hinge": (_hinge, CLASSES),
    "log-cosh": (_log_cosh, NUMBERS),
    "Normal": (_negative_log_probability(lambda o: Normal(o, positive(o))), NUMBERS),
    "Laplace": (_negative_log_probability(lambda o: Laplace(o, positive(o))), NUMBERS),
    "StudentT": (_negative_log_probability(lambda o: StudentT(2 + positive(o), o)), NUMBERS),
    "Bernoulli": (_negative_log_probability(lambda o: Bernoulli(unit(o))), BITS),
    "Categorical": (_negative_log_probability(lambda o: Categorical(o.softmax(1))), CLASSES),
    "Gamma": (_negative_log_probability(lambda o: Gamma(positive(o), 1 + positive(o))), PARTS),
    "Beta": (_negative_log_probability(lambda o: Beta(positive(o), 1 + positive(o))), PARTS),
}

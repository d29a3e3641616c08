"""Operations whose second derivatives by torch are rounded or wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from problems import assert_close, normal
from torch import Tensor, nn

import hesspipe
from hesspipe.objective.objective import Objective

INPUTS = normal(12, 4)


def saturated(logit: float) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    with torch.no_grad():
        model[2].bias.fill_(logit)
    return model


def targets(wrong: int, logit: float) -> Tensor:
    found = torch.full((12, 1), float(logit > 0), dtype=torch.float64)
    found[:wrong] = 1 - found[:wrong]
    return found


@pytest.mark.parametrize(("logit", "wrong"), [(-90.0, 1), (-34.0, 1), (20.0, 2), (34.0, 1)])
def test_hessian_of_probabilities_is_that_of_logits(logit: float, wrong: int) -> None:
    model, given = saturated(logit), targets(wrong, logit)
    logits = Objective(model, nn.BCEWithLogitsLoss(), (INPUTS, given))
    probabilities = Objective(nn.Sequential(model, nn.Sigmoid()), nn.BCELoss(), (INPUTS, given))
    expected = hesspipe.hessian_matrix(logits)
    assert_close(hesspipe.hessian_matrix(probabilities), expected, factor=500)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("logit", "wrong"), [(-800.0, 1), (40.0, 1), (40.0, 3), (200.0, 1)])
def test_probabilities_that_lost_their_derivative_are_refused(
    logit: float, wrong: int, weighted: bool
) -> None:
    weight = torch.ones(12, 1, dtype=torch.float64)
    weight[:wrong] = 0
    model = nn.Sequential(saturated(logit), nn.Sigmoid())
    data = INPUTS, targets(wrong, logit)
    with pytest.raises(ValueError, match=f"got {wrong} rounded to 0 or 1"):
        Objective(model, nn.BCELoss(), data)
    Objective(model, nn.BCELoss(weight=weight if weighted else None), (INPUTS, targets(0, logit)))
    if weighted:
        Objective(model, nn.BCELoss(weight=weight), data)


def old_form(layer: nn.Linear, dim: int | None) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(layer, dim=dim)


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("apply", [nn.utils.parametrizations.weight_norm, old_form])
def test_hessian_of_weight_norm_is_that_of_its_formula(apply: Any, dim: int | None) -> None:
    torch.manual_seed(0)
    layer = apply(nn.Linear(4, 3, bias=False).double(), dim=dim)
    objective = Objective(layer, lambda o, _: o.tanh().square().sum(), (INPUTS, None))
    scales = 1 if dim is None else layer.weight.shape[dim]

    def loss(theta: Tensor) -> Tensor:
        g, v = theta[:scales], theta[scales:].view(3, 4)
        g = g.view([-1 if place == dim else 1 for place in range(2)]) if dim is not None else g
        norm = v.norm() if dim is None else v.norm(dim=1 - dim, keepdim=True)
        return (INPUTS @ (g * v / norm).mT).tanh().square().sum()

    assert_close(
        hesspipe.hessian_matrix(objective), torch.autograd.functional.hessian(loss, objective.theta)
    )

"""What an optimizer can take: its stability limit, and the metric in which it holds.

An optimizer that moves parameter i by s_i / P_i times its gradient, with step size s_i and
preconditioner P_i, is stable on a quadratic with Hessian H if the largest eigenvalue of

    D H D,   D = diag(sqrt((s_i / s) / P_i)),   s the largest step size,

is below c / s. This largest eigenvalue is the preconditioned sharpness, and c / s its limit:

    SGD                         P = 1                   c = 2
    with momentum m             P = 1                   c = 2 (1 + m)
    Nesterov                    P = 1                   c = 2 (1 + m) / (1 + 2 m)
    Adam, AdamW                 P = sqrt(v_hat) + eps   c = 2 (1 + beta1) / (1 - beta1), 38 for 0.9
    RMSprop with momentum m     P = sqrt(v) + eps       c = 2 (1 + m)

For one step size, D H D has the eigenvalues of P^-1 H. Weight decay that is not part of the loss,
Adam's correction 1 - beta1^t of its first steps, and the change of P from step to step are left
out, and mini-batches are less stable than the limit says.

References
----------
Cohen, Kaur, Li, Kolter, Talwalkar (2021), Gradient descent on neural networks typically occurs at
the edge of stability, Section 2 and Appendix B.
Cohen et al. (2022), Adaptive gradient methods at the edge of stability, Sections 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler

# Packages whose wrappers of optimizers take the steps of these.
_TRAINERS = ("accelerate", "lightning", "lightning_fabric", "pytorch_lightning")


@dataclass(frozen=True, eq=False)
class StepSizes:
    """Step size, limit and metric of an optimizer at one moment.

    Attributes
    ----------
    step_size : float or None
        s, the largest of those of the parameters.
    stability_limit : float or None
        c / s; None if it is not known.
    diagonal : Tensor, shape (P,), or None
        Of D; None if it is the identity.
    reason : str or None
        Why the limit or D is not known.
    """

    step_size: float | None
    stability_limit: float | None = None
    diagonal: Tensor | None = None
    reason: str | None = None

    @property
    def is_metric_known(self) -> bool:
        """Whether D is known, be it the identity."""
        return self.diagonal is not None or self.stability_limit is not None


def step_sizes(optimizer: Optimizer, parameters: Sequence[Tensor], like: Tensor) -> StepSizes:
    """Read the step sizes of an optimizer, its limit and its metric.

    Parameters
    ----------
    optimizer : Optimizer
        Of torch, or a wrapper with an attribute `optimizer`. It is only read. Of wrappers that are
        not those of accelerate, Lightning or a schedule of torch, the limit is not known: lookahead
        and sharpness-aware minimization take other steps.
    parameters : sequence of Tensor
        Those of theta, in its order. The ones that the optimizer does not move, such as those that
        were frozen meanwhile, have zeros in D.
    like : Tensor, shape (P,)
        Gives the dtype and the device.

    Returns
    -------
    StepSizes

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> found = step_sizes(SGD([weight], lr=0.1, momentum=0.9), [weight], torch.ones(2))
    >>> found.step_size, round(found.stability_limit, 6), found.diagonal
    (0.1, 38.0, None)
    """
    kind: type = type(optimizer)
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        if type(optimizer) is kind and _only_hands_on(optimizer):
            kind = type(inner)
        optimizer = inner
    groups = {
        id(each): group
        for group in optimizer.param_groups
        for each in group["params"]
        if each.requires_grad or each.grad is not None  # the others are frozen
    }
    own = [groups[id(each)] for each in parameters if id(each) in groups]
    if not own:
        return StepSizes(None, reason="the optimizer moves none of the parameters of the objective")
    largest = max(float(group["lr"]) for group in own)
    if kind not in _LIMITS:
        known = ", ".join(each.__name__ for each in _LIMITS)
        unknown = f"the stability limit of {kind.__name__} is not known ({known} are)"
        return StepSizes(largest, reason=unknown)
    constants = {_LIMITS[kind](group) for group in own}
    reason: str | None = None
    if len(constants) > 1:
        reason = "parameter groups have different momenta, for which there is no common limit"
    elif any(group["maximize"] for group in own):
        reason = "the optimizer maximizes"
    limit = constants.pop() / largest if reason is None and largest > 0 else None
    is_one = len(own) == len(parameters) and {float(group["lr"]) for group in own} == {largest}
    if kind is SGD and is_one:
        return StepSizes(largest, limit, None, reason)
    parts = [
        _part(each, groups.get(id(each)), optimizer.state.get(each, {}), largest)
        for each in parameters
    ]
    if not any(part.any() for part in parts):
        return StepSizes(largest)  # no step was taken yet
    diagonal = torch.cat([part.to(like).reshape(-1) for part in parts]).sqrt_()
    return StepSizes(largest, limit, diagonal, reason)


def _only_hands_on(wrapper: object) -> bool:
    """Whether the steps of a wrapper are those of its optimizer."""
    package = type(wrapper).__module__.partition(".")[0]
    return isinstance(wrapper, LRScheduler) or package in _TRAINERS


def _part(
    parameter: Tensor, group: Mapping[str, Any] | None, state: Mapping[str, Any], largest: float
) -> Tensor:
    """Compute (s_i / s) / P_i for one parameter: 0 if it does not move."""
    zeros = torch.zeros_like(parameter, dtype=torch.float64)
    if group is None:
        return zeros
    ratio = float(group["lr"]) / largest if largest > 0 else 1.0
    if "alpha" in group:  # RMSprop
        squares, correction = state.get("square_avg"), 1.0
        if squares is not None and group["centered"]:
            squares = squares.double() - state["grad_avg"].double().square()
    elif "betas" in group:
        squares = state.get("max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq")
        correction = (
            1.0 if squares is None else 1 - float(group["betas"][1]) ** float(state["step"])
        )
    else:
        return zeros + ratio
    if squares is None:  # it had no gradient yet
        return zeros
    found: Tensor = ratio / ((squares.detach().double() / correction).sqrt() + group["eps"])
    return found


def _descent_constant(group: Mapping[str, Any]) -> float:
    momentum, damping = float(group["momentum"]), float(group.get("dampening", 0.0))
    constant = 2 * (1 + momentum)
    if group.get("nesterov"):
        return constant / (1 + 2 * momentum)
    return constant / (1 - damping) if momentum and damping < 1 else constant


def _adam_constant(group: Mapping[str, Any]) -> float:
    beta = float(group["betas"][0])
    return 2 * (1 + beta) / (1 - beta) if beta < 1 else math.inf


_LIMITS = {
    SGD: _descent_constant,
    Adam: _adam_constant,
    AdamW: _adam_constant,
    RMSprop: _descent_constant,
}

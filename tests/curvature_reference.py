"""H, G and R of an objective by `torch.func`, each from its own formula."""

from __future__ import annotations

import torch
from torch import Tensor

import hesspipe
from hesspipe.objective.objective import Objective

MATRICES = {
    "hessian": hesspipe.hessian_matrix,
    "ggn": hesspipe.ggn_matrix,
    "residual": hesspipe.residual_matrix,
}


def reference_hessian(objective: Objective) -> Tensor:
    return torch.func.hessian(objective.loss)(objective.theta)


def reference_ggn(objective: Objective) -> Tensor:
    """The Hessian of the loss of the linearized network."""

    def linearized_loss(theta: Tensor) -> Tensor:
        losses = []
        for batch in objective.batches:
            outputs, change = torch.func.jvp(
                lambda point, inputs=batch.inputs: objective.outputs(point, inputs),
                (objective.theta,),
                (theta - objective.theta,),
            )
            losses.append(batch.share * objective.loss_fn(outputs + change, batch.targets))
        return torch.stack(losses).sum()

    return torch.func.hessian(linearized_loss)(objective.theta)


def reference_residual(objective: Objective) -> Tensor:
    """sum_n sum_c e_nc d2f_c/dtheta2, one output of one sample at a time."""
    total = torch.zeros(objective.num_parameters, objective.num_parameters, dtype=torch.float64)
    for batch in objective.batches:
        outputs = objective.outputs(objective.theta, batch.inputs).detach().requires_grad_()
        loss = batch.share * objective.loss_fn(outputs, batch.targets)
        (slopes,) = torch.autograd.grad(loss, outputs)
        for sample, slope in zip(batch.inputs, slopes, strict=True):
            second = torch.func.jacfwd(torch.func.jacrev(objective.outputs))(
                objective.theta, sample.unsqueeze(0)
            )[0]
            total += torch.einsum("c,cpq->pq", slope, second)
    return total


REFERENCES = {
    "hessian": reference_hessian,
    "ggn": reference_ggn,
    "residual": reference_residual,
}

"""Matrices of networks with operations that torch differentiates in unusual ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe import Objective
from hesspipe.curvature.products import forward_link, require_adjoint
from hesspipe.errors import InconsistentMatrixError

PLACES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
TABLE = torch.linspace(0, 3, 41, dtype=torch.float64).square()


def interpolated(hidden: Tensor) -> Tensor:
    """Look up a table at the whole numbers on both sides of each entry."""
    places = (hidden[:, :3] + 4).clamp(0.1, 7) * 4
    below = places.floor()
    share = places - below
    return TABLE[below.long()] * (1 - share) + TABLE[(below + 1).long()] * share


def reduced(hidden: Tensor, reduction: str) -> Tensor:
    return hidden.new_ones(len(hidden), 3).scatter_reduce(
        1, PLACES.expand(len(hidden), 9), hidden, reduction, include_self=False
    )


def sampled(hidden: Tensor, **options: object) -> Tensor:
    grid = hidden[:, :6].reshape(-1, 1, 3, 2).tanh() * 0.8
    image = hidden.view(-1, 1, 3, 3)
    return functional.grid_sample(image, grid, align_corners=False, **options).flatten(1)


def by_columns(hidden: Tensor) -> Tensor:
    return hidden.view(-1, 3, 3)


# Torch's derivative takes logarithms of the slopes, and perturbations of these reach its kinks:
# dense matrices are refused, and products are right.
WITHOUT_MATRICES: dict[str, Callable[[Tensor], Tensor]] = {
    "logcumsumexp": lambda hidden: hidden.logcumsumexp(1)[:, :3],
    "logcumsumexp of products": lambda hidden: (hidden * hidden.roll(1, 1)).logcumsumexp(1)[:, 6:],
}
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "scatter amax": lambda hidden: reduced(hidden, "amax") * hidden[:, :3],
    "scatter amin": lambda hidden: reduced(hidden, "amin") * hidden[:, :3],
    "scatter mean": lambda hidden: reduced(hidden.square(), "mean"),
    "scatter prod": lambda hidden: reduced(hidden, "prod"),
    "index amax": lambda hidden: (
        hidden.new_zeros(len(hidden), 3).index_reduce(1, PLACES, hidden, "amax") * hidden[:, :3]
    ),
    "aminmax": lambda hidden: torch.aminmax(hidden, dim=1)[1][:, None] * hidden[:, :3],
    "norm of order inf": lambda hidden: (
        torch.linalg.vector_norm(by_columns(hidden), torch.inf, dim=2) * hidden[:, :3]
    ),
    "norm of order -inf": lambda hidden: (
        torch.linalg.vector_norm(by_columns(hidden), -torch.inf, dim=2) * hidden[:, :3]
    ),
    "norm of order 3": lambda hidden: torch.linalg.vector_norm(by_columns(hidden), 3, dim=2),
    "normalize by inf": lambda hidden: functional.normalize(hidden, p=torch.inf)[:, :3],
    "interpolated table": interpolated,
    "bilinear samples": sampled,
    "bicubic samples": lambda hidden: sampled(hidden, mode="bicubic"),
    "reflected samples": lambda hidden: sampled(hidden * 3, padding_mode="reflection"),
}


class Operation(nn.Module):
    """A linear layer, and an operation on what it returns."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.operation = nn.Linear(4, 9), operation

    def forward(self, inputs: Tensor) -> Tensor:
        return self.operation(self.layer(inputs))


def hessian_of(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """H, (P, P), by plain double backward."""
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    rows = [
        torch.cat(
            [
                part.flatten()
                for part in torch.autograd.grad(
                    slope, parameters, retain_graph=True, materialize_grads=True
                )
            ]
        )
        for slope in torch.cat([part.flatten() for part in slopes])
    ]
    return torch.stack(rows)


def ggn_of(outputs: Tensor, targets: Tensor, parameters: list[Tensor]) -> Tensor:
    """J^T S J, (P, P), with J by one backward pass for each output."""
    rows = [
        torch.cat([p.flatten() for p in torch.autograd.grad(each, parameters, retain_graph=True)])
        for each in outputs.flatten()
    ]
    jacobian = torch.stack(rows)
    curvature = torch.autograd.functional.hessian(
        lambda flat: functional.cross_entropy(flat.view_as(outputs), targets),
        outputs.detach().flatten(),
    )
    return jacobian.T @ curvature @ jacobian


def require_close(found: dict[str, tuple[Tensor, Tensor]]) -> None:
    for what, (one, other) in found.items():
        assert float((one - other).norm()) < 1e-11 * (1 + float(other.norm())), what


@pytest.mark.parametrize("name", [*OPERATIONS, *WITHOUT_MATRICES])
def test_matrices_are_those_of_plain_double_backward(name: str) -> None:
    model = Operation((OPERATIONS | WITHOUT_MATRICES)[name]).double()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    targets = torch.arange(6) % 3
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    parameters = [*model.parameters()]
    outputs = model(inputs)
    hessian = hessian_of(functional.cross_entropy(outputs, targets), parameters)
    ggn = ggn_of(outputs, targets, parameters)
    residual = hessian - ggn
    vector = torch.randn(len(hessian), generator=generator, dtype=torch.float64)
    require_close(
        {
            "H v": (hesspipe.HessianOperator(objective) @ vector, hessian @ vector),
            "G v": (hesspipe.GGNOperator(objective) @ vector, ggn @ vector),
            "R v": (hesspipe.ResidualOperator(objective) @ vector, residual @ vector),
        }
    )
    if name in OPERATIONS:
        eigenvalues = hesspipe.spectrum(objective, "ggn").eigenvalues
        require_close(
            {
                "H": (hesspipe.hessian_matrix(objective), hessian),
                "G": (hesspipe.ggn_matrix(objective), ggn),
                "R": (hesspipe.residual_matrix(objective), residual),
                "spectrum of G": (eigenvalues, torch.linalg.eigvalsh(ggn)),
            }
        )


def test_products_with_a_jacobian_that_is_not_adjoint_are_refused() -> None:
    theta = torch.randn(5, dtype=torch.float64, requires_grad=True)
    vector = torch.randn(5, dtype=torch.float64)
    link = forward_link(theta.sin(), theta)
    change = theta.detach().cos() * vector
    assert require_adjoint(link, vector, change)
    assert not require_adjoint(link, 0 * vector, 0 * change)  # says nothing
    with pytest.raises(InconsistentMatrixError, match=r"must be adjoint .* wrong second derivat"):
        require_adjoint(link, vector, change * (1 + 1e-6))

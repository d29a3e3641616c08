"""Trainings for the tests of the monitor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hesspipe import Monitor, Objective

LOSS = nn.CrossEntropyLoss()


def data(num: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(num, 4, generator=generator)
    return inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.5).long()


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def noisy(seed: int = 0) -> nn.Sequential:
    """A network with dropout and batch normalization, which differ between the modes."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)
    )


def objective_of(model: nn.Module, **options: object) -> Objective:
    model.eval()
    objective = Objective(model, LOSS, data(), **options)
    model.train()
    return objective


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    num_steps: int,
    monitor: Monitor | None = None,
    after: Callable[[int], None] | None = None,
) -> None:
    """Train on batches of 8 in a random order, and call the monitor."""
    inputs, targets = data()
    for step in range(1, num_steps + 1):
        chosen = torch.randperm(len(inputs))[:8]
        optimizer.zero_grad()
        LOSS(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
        if monitor is not None:
            monitor.step()
        if after is not None:
            after(step)


def exact_hessian(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """H of the loss of the model in evaluation mode, in float64, by torch.func alone."""
    parameters = {name: part.detach().double() for name, part in model.named_parameters()}
    buffers = {
        name: part.double() if part.is_floating_point() else part
        for name, part in model.named_buffers()
    }
    sizes = [part.numel() for part in parameters.values()]

    def loss(theta: Tensor) -> Tensor:
        parts = theta.split(sizes)
        named = {
            name: part.view_as(old)
            for part, (name, old) in zip(parts, parameters.items(), strict=True)
        }
        return LOSS(torch.func.functional_call(model, named | buffers, inputs.double()), targets)

    was_training = model.training
    model.eval()
    found = torch.func.jacrev(torch.func.grad(loss))(
        torch.cat([part.flatten() for part in parameters.values()])
    )
    model.train(was_training)
    return found

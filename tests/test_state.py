"""No public function changes the model, the data or any global state."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from problems import labels, normal
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import hesspipe
from hesspipe.objective.objective import Objective


def model() -> nn.Module:
    """A model in training mode without randomness, with gradient, buffer and frozen parameter."""
    network = nn.Sequential(
        nn.ReLU(inplace=True), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)
    )
    network[2].eval()
    network[1].bias.requires_grad_(False)
    network[4].weight.grad = torch.full((3, 5), 2.0)
    return network


class Failing(nn.Module):
    """Draws random numbers without an effect, and fails if it is differentiated and told to."""

    is_failing = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002 (the caller's state)
        if Failing.is_failing and self.layer.weight.requires_grad:
            raise RuntimeError("out of luck")
        outputs: Tensor = self.layer(inputs)
        return outputs


def snapshot(network: nn.Module, tensors: list[Tensor]) -> list[Any]:
    """Everything that must not change, as comparable values."""
    numpy_state = np.random.get_state()  # noqa: NPY002 (the state that must not change)
    return [
        {name: value.clone() for name, value in network.state_dict().items()},
        {name: (value.requires_grad, value.dtype) for name, value in network.named_parameters()},
        {n: None if v.grad is None else v.grad.clone() for n, v in network.named_parameters()},
        {name: module.training for name, module in network.named_modules()},
        {name: len(module._forward_hooks) for name, module in network.named_modules()},
        [id(value) for value in network.parameters()],
        [tensor.clone() for tensor in tensors],
        torch.get_rng_state(),
        (numpy_state[1].tolist(), numpy_state[2]),
        random.getstate(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    ]


def is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other)


def on_vector(operator: Callable[[Objective], Any]) -> Callable[[Objective], Any]:
    return lambda objective: operator(objective) @ normal(objective.num_parameters)


ENTRY_POINTS: dict[str, Callable[[Objective], Any]] = {
    "hessian_matrix": lambda objective: hesspipe.hessian_matrix(objective),
    "ggn_matrix": lambda objective: hesspipe.ggn_matrix(objective),
    "residual_matrix": lambda objective: hesspipe.residual_matrix(objective),
    "spectrum": lambda objective: hesspipe.spectrum(objective),
    "spectra": lambda objective: hesspipe.spectra(objective),
    "HessianOperator": on_vector(lambda objective: hesspipe.HessianOperator(objective)),
    "GGNOperator": on_vector(lambda objective: hesspipe.GGNOperator(objective)),
    "ResidualOperator": on_vector(lambda objective: hesspipe.ResidualOperator(objective)),
    "eigenpairs": lambda objective: hesspipe.eigenpairs(objective, num_largest=2),
    "density": lambda objective: hesspipe.density(objective, num_probes=2, num_steps=5),
    "estimate_norms": lambda objective: hesspipe.estimate_norms(objective, num_products=6),
    "layer_spectra": lambda objective: hesspipe.layer_spectra(objective),
}
# Every test builds an objective; the other names take none. What a monitor leaves unchanged is
# tested with it. A sharded objective has a test of its own.
WITHOUT_OBJECTIVE = {
    "Objective", "DiagonalBlock", "Matrix", "Spectrum", "Eigenpairs", "Density", "NormEstimates",
    "Estimate", "LayerSpectra", "Monitor", "ShardedObjective", "count_outliers", "save", "load",
}  # fmt: skip
PRESENT = [name for name in ENTRY_POINTS if name in hesspipe.__all__]


def test_every_public_name_is_tested() -> None:
    errors = {name for name in hesspipe.__all__ if name.endswith("Error")}
    assert set(hesspipe.__all__) - errors <= set(ENTRY_POINTS) | WITHOUT_OBJECTIVE


@pytest.mark.parametrize("name", PRESENT)
def test_entry_point_changes_nothing(name: str) -> None:
    network, data = model(), TensorDataset(normal(11, 4).float(), labels(11, 3))
    before = snapshot(network, list(data.tensors))
    objective = Objective(
        network, nn.CrossEntropyLoss(), DataLoader(data, batch_size=4, shuffle=True)
    )
    theta = objective.theta.clone()
    ENTRY_POINTS[name](objective)
    assert is_equal(snapshot(network, list(data.tensors)), before)
    assert torch.equal(objective.theta, theta)


@pytest.mark.parametrize("name", PRESENT)
def test_entry_point_that_fails_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = Failing(), (normal(11, 4).float(), labels(11, 3))
    before = snapshot(network, list(data))
    objective = Objective(network, nn.CrossEntropyLoss(), data)
    monkeypatch.setattr(Failing, "is_failing", True)
    with pytest.raises(ValueError, match="out of luck"):
        ENTRY_POINTS[name](objective)
    assert is_equal(snapshot(network, list(data)), before)


@pytest.mark.parametrize("name", PRESENT)
def test_entry_point_draws_no_number_of_the_caller(name: str) -> None:
    network, data = Failing(), (normal(11, 4).float(), labels(11, 3))
    before = snapshot(network, list(data))
    ENTRY_POINTS[name](Objective(network, nn.CrossEntropyLoss(), data))
    assert is_equal(snapshot(network, list(data)), before)


def test_sharded_objective_changes_nothing() -> None:
    network, data = model(), (normal(11, 4).float(), labels(11, 3))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        before = snapshot(network, list(data))
        objective = hesspipe.ShardedObjective(network, nn.CrossEntropyLoss(), data)
        hesspipe.eigenpairs(objective, num_largest=2)
        hesspipe.density(objective, num_probes=2, num_steps=5)
        assert is_equal(snapshot(network, list(data)), before)
    finally:
        dist.destroy_process_group()


def test_refused_objective_changes_nothing() -> None:
    network, data = model(), (normal(11, 4).float(), labels(11, 3))
    before = snapshot(network, list(data))

    def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs + torch.randn_like(outputs), targets)

    with pytest.raises(ValueError, match="randn_like draws random numbers"):
        Objective(network, noisy, data)
    assert is_equal(snapshot(network, list(data)), before)


def test_snapshot_sees_each_change() -> None:
    # Otherwise the tests above could not fail.
    network, data = model(), [normal(3)]
    before = snapshot(network, data)
    changes: list[Callable[[nn.Module, list[Tensor]], Any]] = [
        lambda network, data: data[0].add_(1),
        lambda network, data: network.eval(),
        lambda network, data: network[4].weight.grad.add_(1),
        lambda network, data: network[1].bias.requires_grad_(),
        lambda network, data: network[2].running_mean.add_(1),
        lambda network, data: torch.rand(1),
        lambda network, data: random.random(),
        lambda network, data: np.random.rand(),  # noqa: NPY002 (the caller's state)
    ]
    for change in changes:
        changed, tensors = copy.deepcopy(network), [data[0].clone()]
        for old, new in zip(network.parameters(), changed.parameters(), strict=True):
            new.grad = None if old.grad is None else old.grad.clone()
        ids = before[5]
        change(changed, tensors)
        after = snapshot(changed, tensors)
        after[5] = ids
        assert not is_equal(after, before)

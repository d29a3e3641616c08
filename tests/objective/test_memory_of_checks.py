"""What is kept while derivatives are compared: gradients in parts, and few vectors."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from hesspipe.objective.directional_derivatives import (
    Remainder,
    derivatives_along,
    norm_of_parts,
)
from hesspipe.objective.objective import Objective

INPUTS = normal(4, 3)


def outputs(weight: Tensor, bias: Tensor) -> Tensor:
    return (INPUTS @ weight.T + bias).sin()


def outputs_of_vector(theta: Tensor) -> Tensor:
    return outputs(theta[:6].view(2, 3), theta[6:])


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_along_are_products_with_the_jacobian_and_the_hessian(seed: int) -> None:
    theta, way, weights = normal(8, seed=seed), normal(8, seed=20), normal(4, 2, seed=22)

    def weighted(at: Tensor) -> Tensor:
        return (outputs_of_vector(at) * weights).sum()

    jacobian = torch.autograd.functional.jacobian(outputs_of_vector, theta)
    hessian = torch.autograd.functional.hessian(weighted, theta)
    leaves = [part.clone().requires_grad_() for part in (theta[:6].view(2, 3), theta[6:])]
    taken: list[Tensor] = []
    ways = [way[:6].view(2, 3), way[6:]]
    along, product = derivatives_along(outputs(*leaves), leaves, ways, weights, taken.extend)
    pairs = [
        (along, jacobian @ way),
        (joined(taken), torch.einsum("nc,ncp->p", weights, jacobian)),
        (joined(product), hessian @ way),
    ]
    for found, expected in pairs:
        assert_close(found, expected)


def joined(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def test_derivatives_of_what_has_no_graph_or_a_constant_one_are_zero() -> None:
    leaf, way = normal(4, 2).requires_grad_(), [normal(4, 2, seed=1)]
    taken: list[Tensor] = []
    along, product = derivatives_along(leaf.detach(), [leaf], way, normal(4, 2), taken.extend)
    assert not any(part.any() for part in (along, *product, *taken))
    weights = normal(4, 2, seed=3)
    along, product = derivatives_along(leaf * 1.0, [leaf], way, weights, taken.extend)
    assert torch.equal(along, way[0])
    assert torch.equal(taken[-1], weights)
    assert not product[0].any()


def test_remainder_leaves_the_vectors_that_it_is_given() -> None:
    parts = [normal(3), torch.ones(1, dtype=torch.float64).expand(5)]
    given, before = list(parts), [part.clone() for part in parts]
    rest = Remainder(given)
    rest.add(parts, -0.5)
    assert given == []
    for part, old, left in zip(parts, before, rest.parts, strict=True):
        assert torch.equal(part, old)
        assert torch.equal(left, old / 2)


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, 0.0])
def test_norm_of_parts_is_that_of_the_vector(scale: float) -> None:
    parts = [scale * normal(2, 3), scale * normal(4, seed=1), torch.zeros(2, dtype=torch.float64)]
    expected = scale * torch.cat([normal(2, 3).reshape(-1), normal(4, seed=1)]).norm()
    assert torch.allclose(norm_of_parts(parts), expected, rtol=1e-14, atol=0.0)


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that exist at once beside some others."""

    def __init__(self, others: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0
        self.others = {tensor.untyped_storage()._cdata for tensor in others}
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor):
                storage = part.untyped_storage()
                if storage._cdata not in self.others:
                    self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.storages = {key: one for key, one in self.storages.items() if not one[0].expired()}
        self.largest = max(self.largest, sum(size for _, size in self.storages.values()))
        return result


@pytest.mark.parametrize("width", [200, 300])
def test_building_takes_six_vectors(width: int) -> None:
    """Theta among them, where a batch is small; random numbers recur in vectors this long."""
    torch.manual_seed(0)
    widths = [100, width, width, width, 3]
    model = nn.Sequential(
        *(layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.Tanh()))
    )
    data, loss = (normal(2, 100), labels(2, 3)), nn.CrossEntropyLoss()
    num_parameters = Objective(model, loss, data).num_parameters
    with Peak([*model.parameters(), *data]) as peak:
        Objective(model, loss, data)
    assert peak.largest / 8 / num_parameters < 6.0

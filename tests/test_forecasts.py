"""Forecasts against the networks themselves, built and evaluated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hesspipe import hardware
from hesspipe.errors import TooLargeError
from hesspipe.forecasts import (
    basis_capacity,
    least_basis_capacity,
    network_size,
    vectors_of_search,
)
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.networks.architectures import build_architecture

MLP = {"kind": "mlp", "activation": "relu"}
ALEXNET = {"kind": "alexnet", "channels": [4, 5, 6, 3, 2]}
NETWORKS = [
    (MLP | {"hidden_widths": []}, [7], 3),
    (MLP | {"hidden_widths": [30, 30]}, [100], 10),
    (MLP | {"hidden_widths": [5]}, [1, 28, 28], 10),
    ({"kind": "convnet", "channels": [4, 8], "kernel_size": 5, "hidden_width": 24}, [1, 28, 28], 9),
    ({"kind": "convnet", "channels": [3, 2], "kernel_size": 4, "hidden_width": 5}, [3, 32, 32], 10),
    (
        ALEXNET | {"kernel_sizes": [11, 5, 3, 3, 3], "first_stride": 4, "pool_after": [1, 2, 5]},
        [3, 32, 32],
        10,
    ),
    (
        ALEXNET | {"kernel_sizes": [5, 3, 3, 1, 3], "first_stride": 2, "pool_after": []},
        [1, 28, 28],
        10,
    ),
]


@pytest.mark.parametrize(("model", "shape", "num_outputs"), NETWORKS)
def test_network_size_is_that_of_the_network_that_is_built(model, shape, num_outputs):
    found = network_size(model, shape, num_outputs)
    network = build_architecture(torch.zeros(1, *shape), num_outputs, **model)
    activations, products = [], []

    def record(module, inputs, outputs):
        if not isinstance(module, nn.Flatten):
            activations.append(outputs.numel())
        if isinstance(module, nn.Linear | nn.Conv2d):
            # Each output is a sum over the weights of its feature.
            products.append(outputs.numel() * module.weight[0].numel())

    for module in network:
        module.register_forward_hook(record)
    network(torch.zeros(1, *shape))
    assert found.num_parameters == sum(part.numel() for part in network.parameters())
    assert found.num_activations == sum(activations)
    assert found.num_products == sum(products)


def test_network_size_leaves_a_network_of_the_user_to_its_job():
    assert network_size({"kind": "user"}, [3], 2) is None


def test_basis_capacity_is_that_of_the_search(monkeypatch):
    from hesspipe.linalg import krylov

    asked = []
    monkeypatch.setattr(krylov, "require", lambda num_bytes, *_, **__: asked.append(num_bytes))
    diagonal = torch.diag(torch.arange(200.0, dtype=torch.float64))
    eigenpairs(diagonal, num_smallest=1, num_largest=2)
    assert asked == [(basis_capacity(3) + 1) * 200 * 8]


@pytest.mark.parametrize("num_wanted", [1, 3, 10])
def test_vectors_of_search_are_what_the_search_refuses_to_go_without(
    num_wanted, monkeypatch, caplog
):
    num_parameters = 200
    diagonal = torch.diag(torch.arange(num_parameters, dtype=torch.float64))
    vector = 8 * num_parameters

    def search_in(num_bytes):
        """Whether a search in so much memory has its whole basis; None if it is refused."""
        monkeypatch.setattr(hardware, "available_bytes", lambda *_: num_bytes)
        caplog.clear()
        try:
            eigenpairs(diagonal, num_largest=num_wanted, tolerance=1e-3)
        except TooLargeError:
            return None
        return "memory has no room" not in caplog.text

    least = vectors_of_search(num_wanted, least_basis_capacity(num_wanted)) * vector
    preferred = vectors_of_search(num_wanted, basis_capacity(num_wanted)) * vector
    answers = [search_in(one) for one in (least - 1, least, preferred - 1, preferred)]
    assert answers == [None, False, False, True]

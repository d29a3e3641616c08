"""Flat vectors of named tensors: order and inverse."""

from __future__ import annotations

import pytest
import torch
from problems import network, normal

from hesspipe.objective.flattening import flatten, unflatten


def test_flatten_has_the_order_of_torch() -> None:
    model = network([4, 3, 2])
    expected = torch.nn.utils.parameters_to_vector(model.parameters())
    assert torch.equal(flatten(dict(model.named_parameters())), expected)


def test_unflatten_inverts_flatten_and_gives_views() -> None:
    tensors = {
        "matrix": normal(3, 2),
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "vector": normal(4),
    }
    theta = flatten(tensors)
    found = unflatten(theta, {name: tensor.shape for name, tensor in tensors.items()})
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
    found["vector"].zero_()
    assert (theta[-4:] == 0).all()
    assert tensors["vector"].all()  # flatten copied


def test_unflatten_passes_gradients_through() -> None:
    theta = normal(6).requires_grad_()
    found = unflatten(theta, {"first": torch.Size([2, 2]), "second": torch.Size([2])})
    (gradient,) = torch.autograd.grad(found["first"].sum(), theta)
    assert gradient.tolist() == [1.0] * 4 + [0.0] * 2


def test_unflatten_refuses_another_number_of_entries() -> None:
    with pytest.raises(RuntimeError, match="split_with_sizes expects"):
        unflatten(normal(5), {"first": torch.Size([2, 2])})

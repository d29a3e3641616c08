"""Losses that differentiate a model with normalization, of which torch's third derivative is wrong.

The reference is the same network with normalization written out, by plain double backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from normalized import (
    INPUTS,
    LAYERS,
    SLOPES,
    Field,
    Returned,
    Returning,
    distance,
    hessian_by_double_backward,
    network,
    penalty,
)
from problems import assert_close, normal
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import hesspipe
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.batches import Batch
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.norms import batch_norm, instance_norm, layer_norm
from hesspipe.objective.objective import Objective
from hesspipe.objective.reductions import ReducedLoss
from hesspipe.objective.weights import evaluate

# torch warns about torch.jit.script, which it uses itself, when it first differentiates forward.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", SLOPES)
def test_hessian_of_a_penalty_on_slopes_is_that_of_the_formula(way: str, name: str) -> None:
    slopes = SLOPES[way]
    objective = Objective.from_batches(
        network(name, is_written_out=False),
        lambda model, batch: penalty(slopes, model, batch),
        [INPUTS],
    )
    plain = network(name, is_written_out=True)
    expected = hessian_by_double_backward(plain, lambda: penalty(slopes, plain, INPUTS))
    assert_close(hesspipe.hessian_matrix(objective), expected, factor=500)


@pytest.mark.parametrize("name", LAYERS)
def test_hessian_of_a_model_that_differentiates_is_that_of_the_formula(name: str) -> None:
    targets = normal(5, 3, seed=2)
    model = Field(network(name, is_written_out=False))
    objective = Objective(model, nn.MSELoss(), (INPUTS, targets))
    plain = Field(network(name, is_written_out=True))
    expected = hessian_by_double_backward(
        plain, lambda: functional.mse_loss(plain(INPUTS), targets)
    )
    assert_close(hesspipe.hessian_matrix(objective), expected, factor=500)


def in_tuple(returned: Returned) -> Any:
    return returned.x, returned.outputs


def in_dictionary(returned: Returned) -> Any:
    return {"x": returned.x, "outputs": returned.outputs}


def as_it_is(returned: Returned) -> Any:
    return returned


@pytest.mark.parametrize("form", [in_tuple, in_dictionary, as_it_is])
@pytest.mark.parametrize("way", ["samples", "batches"])
def test_loss_that_differentiates_outputs_is_referred_to_the_model(
    way: str, form: Callable[[Returned], Any]
) -> None:
    class Formed(Returning):
        def forward(self, x: Tensor) -> Any:
            return form(super().forward(x))

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        parts = outputs.values() if isinstance(outputs, dict) else outputs
        return distance(outputs if isinstance(outputs, Returned) else Returned(*parts), targets)

    model, targets = Formed(network("layer", is_written_out=False)), normal(5, 3, seed=2)
    ways: dict[str, Callable[[], Objective]] = {
        "samples": lambda: Objective(model, loss, (INPUTS, targets), denominator=lambda *_: 1.0),
        "batches": lambda: Objective.from_batches(
            model,
            lambda outputs, batch: loss(outputs, batch[1]),
            [(INPUTS, targets)],
            outputs=lambda model, batch: model(batch[0]),
        ),
    }
    with pytest.raises(
        ValueError, match=r"use Objective\.from_batches, with loss\(model, batch\)$"
    ):
        ways[way]()


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_that_a_loss_differentiates_are_evaluated_anew_once(name: str) -> None:
    targets = normal(5, 3, seed=2)
    flat = FlatModel(Returning(network(name, is_written_out=False)), torch.float64, None)
    loss = ReducedLoss(distance, None, is_sum=False, norms=flat.norms).loss_fn
    outputs = flat(flat.theta, INPUTS)
    with pytest.raises(NotTwiceDifferentiableError, match="at every evaluation, got one"):
        loss(outputs, targets)
    again = FlatModel(Returning(network(name, is_written_out=False)), torch.float64, None)
    for model in (flat, again):
        loss = ReducedLoss(distance, None, is_sum=False, norms=model.norms).loss_fn
        theta = model.theta.clone().requires_grad_()
        value = evaluate(model, loss, theta, Batch(INPUTS, targets, 1.0))[1]
        (slope,) = torch.autograd.grad(value, theta, create_graph=True)
        found = torch.stack([
            torch.autograd.grad(entry, theta, retain_graph=True)[0] for entry in slope
        ])  # fmt: skip
        plain = network(name, is_written_out=True)
        expected = hessian_by_double_backward(
            plain, functools.partial(_distance_of, plain, targets)
        )
        assert_close(found, expected, factor=500)


def _distance_of(plain: nn.Module, targets: Tensor) -> Tensor:
    return distance(Returning(plain)(INPUTS), targets)


class Linears(TorchFunctionMode):
    """Counts evaluations of Linear layers."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is functional.linear
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", SLOPES)
def test_exact_normalization_is_found_once_for_each_objective(way: str, name: str) -> None:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return penalty(SLOPES[way], model, batch)

    def plain(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().mean()

    model = network(name, is_written_out=False)
    objective = Objective.from_batches(model, loss, [INPUTS])
    with Linears() as once:
        loss(model, INPUTS)
    with Linears() as found:
        objective.loss(objective.theta)
    assert found.count == once.count > 0
    # Those of others are torch's, to the last bit.
    other = Objective.from_batches(model, plain, [INPUTS])
    assert torch.equal(other.loss(other.theta), plain(model, INPUTS))


VALUES = normal(4, 3, 5, seed=3)
SCALES = normal(3, seed=4), normal(3, seed=5)
CALLS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Any, ...]]] = {
    "layer": (layer_norm, functional.layer_norm, ((5,), normal(5), normal(5, seed=6), 1e-3)),
    "layer, two dimensions": (layer_norm, functional.layer_norm, ((3, 5),)),
    "instance": (instance_norm, functional.instance_norm, (None, None, *SCALES)),
    "instance, plain": (instance_norm, functional.instance_norm, ()),
    "instance, given statistics": (
        instance_norm, functional.instance_norm,
        (SCALES[0], SCALES[1].abs(), None, None, False),
    ),
    "batch": (batch_norm, functional.batch_norm, (None, None, *SCALES, True)),
    "batch, given statistics": (
        batch_norm, functional.batch_norm, (SCALES[0], SCALES[1].abs(), *SCALES),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_norm_has_the_values_and_slopes_of_torch(name: str) -> None:
    ours, torchs, arguments = CALLS[name]
    found, expected = [], []
    for function, results in ((ours, found), (torchs, expected)):
        point = VALUES.clone().requires_grad_()
        outputs = function(point, *arguments)
        results += [outputs.detach(), *torch.autograd.grad(outputs.pow(3).sum(), point)]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, factor=100)


@pytest.mark.parametrize(
    ("ours", "torchs", "values", "arguments"),
    [
        (layer_norm, functional.layer_norm, VALUES, ((4,),)),
        (instance_norm, functional.instance_norm, VALUES[..., :1], ()),
        (batch_norm, functional.batch_norm, VALUES[:1, :, :1], (None, None, None, None, True)),
    ],
)
def test_norm_refuses_what_torch_refuses(
    ours: Any, torchs: Any, values: Tensor, arguments: tuple[Any, ...]
) -> None:
    for function in (torchs, ours):
        with pytest.raises((RuntimeError, ValueError), match=r"shape|Expected more than 1"):
            function(values, *arguments)

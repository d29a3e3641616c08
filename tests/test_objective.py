"""The objective is the loss of all the data, whatever the batches, and leaves the model alone."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import EPS, assert_close, labels, network, normal
from torch import nn
from torch.nn import functional

from hesspipe.objective import Objective

CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def with_ignored_labels(targets: torch.Tensor) -> torch.Tensor:
    targets = targets.clone()
    targets[::4] = -100
    return targets


LOSSES = {
    "mean": (nn.CrossEntropyLoss(), labels(11, 3)),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), labels(11, 3)),
    "class weights": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), labels(11, 3)),
    "ignored labels": (nn.CrossEntropyLoss(), with_ignored_labels(labels(11, 3))),
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), labels(11, 3)),
    "probabilities": (nn.CrossEntropyLoss(), normal(11, 3, seed=5).softmax(1)),
    "function": (functional.cross_entropy, labels(11, 3)),
    "squares": (nn.MSELoss(), normal(11, 3, seed=5)),
    "functional squares": (functional.mse_loss, normal(11, 3, seed=5)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("splits", [[11], [5, 5, 1], [1, 2, 8]])
def test_loss_is_that_of_one_batch_whatever_the_batches(name: str, splits: list[int]) -> None:
    loss_fn, targets = LOSSES[name]
    model, inputs = network([4, 5, 3]), normal(11, 4)
    expected = (
        copy.deepcopy(loss_fn).double()(model(inputs), targets)
        if isinstance(loss_fn, nn.Module)
        else loss_fn(model(inputs), targets)
    )
    batches = list(zip(inputs.split(splits), targets.split(splits), strict=True))
    objective = Objective(model, loss_fn, batches)
    assert_close(objective.loss(objective.theta), expected.detach())


def test_outputs_follow_theta_and_the_order_of_named_parameters() -> None:
    model = nn.Linear(2, 3).double()
    objective = Objective(model, nn.MSELoss(), (normal(5, 2), normal(5, 3)))
    theta = normal(9, seed=3)
    expected = normal(5, 2) @ theta[:6].view(3, 2).T + theta[6:]
    assert_close(objective.outputs(theta, normal(5, 2)), expected)
    assert objective.names == ["weight", "bias"]
    assert [objective.name_of(index) for index in (0, 5, 6, 8)] == ["weight"] * 2 + ["bias"] * 2


def test_model_is_the_same_after_use_as_before() -> None:
    model = network([4, 5, 3])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)))
    torch.autograd.functional.hessian(objective.loss, objective.theta)
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.equal(random_state, torch.get_rng_state())


def test_float32_model_is_evaluated_in_float64() -> None:
    model, inputs, targets = network([4, 5, 3]).float(), normal(6, 4).float(), labels(6, 3)
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    expected = functional.cross_entropy(copy.deepcopy(model).double()(inputs.double()), targets)
    assert objective.theta.dtype == torch.float64
    assert abs(objective.loss(objective.theta) - expected) <= 10 * EPS
    assert next(model.parameters()).dtype == torch.float32


def test_frozen_parameters_are_constant() -> None:
    model = network([4, 5, 3])
    model[1].weight.requires_grad_(False)
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)))
    gradient = torch.autograd.functional.jacobian(objective.loss, objective.theta)
    assert (gradient[:20] == 0).all()
    assert (gradient[20:] != 0).any()


def test_batch_norm_in_evaluation_mode_uses_its_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model(normal(20, 3))
    model.eval()
    objective = Objective(model, nn.MSELoss(), (normal(5, 3, seed=4), normal(5, 2)))
    expected = model(normal(5, 3, seed=4))
    assert_close(objective.outputs(objective.theta, normal(5, 3, seed=4)), expected.detach())


@pytest.mark.parametrize(
    ("module", "training", "message"),
    [
        (nn.Dropout(0.5), True, r"got 1 \(Dropout\) in training mode; call model.eval\(\)"),
        (nn.BatchNorm1d(4), True, r"got 1 \(BatchNorm1d\) in training mode; call model.eval\(\)"),
        (nn.BatchNorm1d(4, track_running_stats=False), False, "track_running_stats=True"),
    ],
)
def test_random_and_coupling_modules_are_refused(
    module: nn.Module, training: bool, message: str
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), module).train(training)
    with pytest.raises(ValueError, match=message):
        Objective(model, nn.MSELoss(), (normal(5, 3), normal(5, 4)))


def test_dropout_without_effect_is_accepted() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.0))
    assert Objective(model, nn.MSELoss(), (normal(5, 3), normal(5, 4))).num_parameters == 16


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data must hold at least one sample"),
        ((torch.full((2, 3), torch.nan), normal(2, 2)), "inputs must be finite, got nan or inf"),
    ],
)
def test_bad_data_are_refused(data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(nn.Linear(3, 2), nn.MSELoss(), data)


def test_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="model must have parameters, got ReLU"):
        Objective(nn.ReLU(), nn.MSELoss(), (normal(2, 2), normal(2, 2)))


def test_unknown_loss_on_several_batches_needs_a_denominator() -> None:
    def half_squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().sum(1).mean() / 2

    model, inputs, targets = network([4, 5, 3]), normal(7, 4), normal(7, 3)
    batches = list(zip(inputs.split(4), targets.split(4), strict=True))
    with pytest.raises(ValueError, match=r"half_squares\) is not known.*pass denominator="):
        Objective(model, half_squares, batches)
    whole = Objective(model, half_squares, (inputs, targets))
    split = Objective(
        model, half_squares, batches, denominator=lambda outputs, _: float(len(outputs))
    )
    assert_close(split.loss(split.theta), whole.loss(whole.theta))

"""Derivatives that are wrong for some samples only, or by little, are refused; kinks are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.objective.finite_differences import compare
from hesspipe.objective.objective import Objective

NUM_SAMPLES = 60
INPUTS, TARGETS = normal(NUM_SAMPLES, 4), normal(NUM_SAMPLES, 2, seed=5)
# The samples where something is wrong: by their first input.
PLACES = {
    "last": INPUTS[:, 0].sort().values,
    "random": INPUTS[:, 0],
    "first": INPUTS[:, 0].sort(descending=True).values,
}
THRESHOLD = float(INPUTS[:, 0].sort().values[-3:].mean())


class WrongSlope(torch.autograd.Function):
    """The hyperbolic tangent, with a slope that is too large by a fraction."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, excess: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.excess = excess
        return values.tanh()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return slope * (1 + ctx.excess) * (1 - ctx.saved_tensors[0].tanh().square()), None


class WrongCurvature(WrongSlope):
    """Its slope is right, and the derivative of this is too small by a fraction."""

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        (values,) = ctx.saved_tensors
        constant = 1 - values.detach().tanh().square()
        right = 1 - values.tanh().square()
        return slope * (right + ctx.excess * (constant - right)), None


def straight_through(hidden: Tensor) -> Tensor:
    return hidden + (hidden.mul(4).round().div(4) - hidden).detach()


def as_numbers(hidden: Tensor) -> Tensor:
    return torch.tensor(hidden.tolist(), dtype=hidden.dtype) + 0 * hidden


def without_gradient(hidden: Tensor) -> Tensor:
    with torch.no_grad():
        return hidden.tanh()


FIRST: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda h: h.detach(),
    "data": lambda h: h.data,
    "no_grad": without_gradient,
    "numbers": as_numbers,
    "straight through": straight_through,
    "slope": lambda h: WrongSlope.apply(h, 1.0),
    "ten percent": lambda h: WrongSlope.apply(h, 0.1),
    "one percent": lambda h: WrongSlope.apply(h, 1e-2),
    "1e-4": lambda h: WrongSlope.apply(h, 1e-4),
    "sign": lambda h: h.detach().abs() * h.sign(),
}
SECOND: dict[str, Callable[[Tensor], Tensor]] = {
    "curvature": lambda h: WrongCurvature.apply(h, 1.0),
    "ten percent": lambda h: WrongCurvature.apply(h, 0.1),
    "one percent": lambda h: WrongCurvature.apply(h, 1e-2),
}


class Planted(nn.Module):
    """A network with a function of its hidden units for samples with a large first input."""

    def __init__(self, function: Callable[[Tensor], Tensor], otherwise: Any = None) -> None:
        super().__init__()
        self.function = function
        self.otherwise = otherwise or (lambda hidden: hidden)
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 2)
        with torch.no_grad():
            for seed, parameter in enumerate(self.parameters()):
                parameter.copy_(0.7 * normal(*parameter.shape, seed=seed))
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs).tanh()
        is_planted = inputs[:, :1] >= THRESHOLD
        mixed = torch.where(is_planted, self.function(hidden), self.otherwise(hidden))
        outputs: Tensor = self.last(mixed)
        return outputs


def sorted_inputs(place: str) -> Tensor:
    inputs = INPUTS.clone()
    inputs[:, 0] = PLACES[place]
    return inputs


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FIRST)
def test_first_derivative_that_is_wrong_for_few_samples_is_refused(name: str, place: str) -> None:
    inputs = sorted_inputs(place)
    sizes = [20, 20, 20] if place == "last" else [NUM_SAMPLES]
    batches = list(zip(inputs.split(sizes), TARGETS.split(sizes), strict=True))
    with pytest.raises(NotTwiceDifferentiableError, match="gradient must be the deriv") as error:
        Objective(Planted(FIRST[name]), nn.MSELoss(), batches)
    batch, sample = (int(str(error.value).split(f"{word} ")[1].split()[0].strip(";"))
                     for word in ("of batch", "for sample"))  # fmt: skip
    assert float(batches[batch][0][sample, 0]) >= THRESHOLD


@pytest.mark.parametrize("name", ["detached", "straight through", "ten percent"])
def test_first_derivative_that_is_wrong_for_all_samples_is_refused_in_float32(name: str) -> None:
    model = Planted(FIRST[name], FIRST[name])
    with pytest.raises(NotTwiceDifferentiableError, match="gradient must be the derivative"):
        Objective(model, nn.MSELoss(), (INPUTS, TARGETS), dtype=torch.float32)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SECOND)
def test_second_derivative_that_is_wrong_for_few_samples_is_refused(name: str, place: str) -> None:
    data = sorted_inputs(place), TARGETS
    with pytest.raises(NotTwiceDifferentiableError, match="second derivative must agree"):
        Objective(Planted(SECOND[name]), nn.MSELoss(), data)


def planted_loss(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Squares, with a function of the outputs for three samples."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        is_planted = (targets[:, :1] >= TARGETS[:, 0].sort().values[-3]).to(outputs.dtype)
        squares = (outputs - targets).square() + 0.3 * is_planted * function(outputs)
        return squares.sum(1).mean()

    return loss


@pytest.mark.parametrize("name", ["detached", "no_grad", "slope", "ten percent", "one percent"])
def test_loss_with_a_wrong_slope_for_few_samples_is_refused(name: str) -> None:
    model, loss = Planted(torch.tanh), planted_loss(FIRST[name])
    with pytest.raises(NotTwiceDifferentiableError, match=r"derivative of loss_fn.*for sample"):
        Objective(model, loss, (INPUTS, TARGETS))


@pytest.mark.parametrize("name", SECOND)
def test_loss_with_a_wrong_curvature_for_few_samples_is_refused(name: str) -> None:
    model, loss = Planted(torch.tanh), planted_loss(SECOND[name])
    with pytest.raises(NotTwiceDifferentiableError, match=r"second derivative.*for sample"):
        Objective(model, loss, (INPUTS, TARGETS))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ["detached", "ten percent"])
def test_wrong_derivatives_of_very_few_samples_are_refused(name: str, count: int) -> None:
    data = sorted_inputs("first")[:count], TARGETS[:count]
    with pytest.raises(NotTwiceDifferentiableError, match="gradient must be the derivative"):
        Objective(Planted(FIRST[name]), nn.MSELoss(), data)


ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.Hardtanh, nn.LeakyReLU, nn.GELU, nn.ReLU6, nn.Softshrink]
KINKED: dict[str, Any] = {
    "squares": nn.MSELoss(),
    "absolute": nn.L1Loss(),
    "huber": nn.HuberLoss(),
    "hinge": lambda o, t: (1 - o * t.sign()).clamp(min=0).mean(),
    "squared hinge": lambda o, t: (1 - o * t.sign()).relu().square().mean(),
    "tiny": lambda o, t: 1e-12 * functional.mse_loss(o, t),
    "large": lambda o, t: 1e12 * functional.mse_loss(o, t),
    "saturated": lambda o, t: ((40 * o).softmax(1) - t.sign()).square().mean(),
}


@pytest.mark.parametrize("loss", KINKED)
@pytest.mark.parametrize("scale", ["1", "1e4", "1e-4", "integers and zeros"])
def test_networks_with_kinks_are_accepted(loss: str, scale: str) -> None:
    for seed, activation in enumerate(ACTIVATIONS):
        torch.manual_seed(seed)
        count = [10, 200, 30, 3, 1, 20, 60][seed]
        inputs, targets = normal(count, 4, seed=seed), normal(count, 2, seed=seed + 50)
        if scale == "integers and zeros":
            inputs, targets = inputs.round(), targets.round()
            inputs[: count // 2] = 0
        else:
            inputs *= float(scale)
        model = nn.Sequential(
            nn.Linear(4, 8), activation(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2)
        )
        if seed % 2:
            nn.init.zeros_(model[0].bias)
        if seed % 3 == 0:
            nn.init.zeros_(model[4].weight)
        dtype = torch.float32 if seed % 3 == 1 else torch.float64
        objective = Objective(model, KINKED[loss], (inputs, targets), dtype=dtype)
        assert objective.coupling is None


def test_max_pooling_of_many_images_is_accepted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3)
    )
    images = normal(1200, 1, 8, 8).clamp(min=0).mul(2).round()
    objective = Objective(model, nn.CrossEntropyLoss(), (images, torch.arange(1200) % 3))
    assert objective.is_separable


@pytest.mark.parametrize("error", [1e-9, 1e-4, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_compare_sees_errors_above_its_tolerance_only(error: float, count: int) -> None:
    place, step = normal(count, 3, seed=1), 1e-6

    def at(change: float) -> Tensor:
        return (place * (1 + change)).sin()

    derivative = place * place.cos()
    found = compare(derivative, at(-step), at(0.0), at(step), step)
    assert not found.is_wrong.any()
    found = compare(derivative * (1 + error), at(-step), at(0.0), at(step), step)
    assert bool(found.is_wrong.all()) == (error > 1e-6)


def test_compare_does_not_judge_at_a_kink() -> None:
    numbers = torch.tensor([[0.0], [0.0], [1e-7]], dtype=torch.float64)
    sides = [(numbers + change).abs() for change in (-1e-6, 0.0, 1e-6)]
    found = compare(torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64), *sides, 1e-6)
    assert not found.is_wrong.any()
    assert found.is_unclear.tolist() == [False, True, True]


class Penalized(nn.Module):
    """The model differentiates inside, as for a gradient penalty or a potential."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.clone().requires_grad_()
        energy = self.net(inputs).sum()
        found: Tensor = torch.autograd.grad(energy, inputs, create_graph=True)[0]
        return found


class Strict(nn.Module):
    """Raises for anything but the caller's own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.known = self.layer.weight.detach().clone().double()

    def forward(self, inputs: Tensor) -> Tensor:
        if not torch.equal(self.layer.weight, self.known):
            raise AssertionError("another point")
        outputs: Tensor = self.layer(inputs)
        return outputs


def normal_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    scale = outputs[:, 1].abs() + 1e-3
    return -torch.distributions.Normal(outputs[:, 0], scale).log_prob(targets[:, 0]).mean()


def test_checks_at_other_points_raise_no_errors_of_the_model_or_loss() -> None:
    torch.manual_seed(0)
    inputs = normal(8, 2)
    norms = lambda o, t: (o.norm(dim=1) - 1).square().mean()  # noqa: E731
    objective = Objective(Penalized(), norms, (inputs, torch.zeros(8, 2)))
    assert torch.isfinite(hesspipe.hessian_matrix(objective)).all()
    assert Objective(Strict(), nn.MSELoss(), (INPUTS, TARGETS)).is_separable
    assert Objective(nn.Linear(4, 2), normal_loss, (INPUTS, TARGETS)).is_separable
    edge = nn.Sequential(nn.Linear(4, 2), nn.Hardtanh(0.01, 0.99))
    assert Objective(edge, nn.BCELoss(), (INPUTS, TARGETS.sigmoid())).is_separable

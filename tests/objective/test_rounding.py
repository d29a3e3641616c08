"""Measured rounding against the errors of float32, for which float64 is a reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import normal
from torch import Tensor
from torch.nn import functional

from hesspipe.objective import rounding
from hesspipe.objective.rounding import is_perturbing, measured_rounding, model_evaluation


def norm_of(change: Tensor) -> Tensor:
    return change.norm()


def rounding_of(evaluate: Callable[[], Tensor]) -> float:
    return float(measured_rounding(evaluate, evaluate(), norm_of, "the result"))


def second_derivative(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """The derivative of <v, gradient> for a fixed v."""
    point = point.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(point).sum(), point, create_graph=True)
    weights = torch.linspace(0.3, 1.1, gradient.numel()).to(gradient).view_as(gradient)
    return torch.autograd.grad((gradient * weights).sum(), point, materialize_grads=True)[0]


ROWS = normal(6, 5, seed=3)
MATRIX = normal(5, 4, seed=4)
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: (x @ MATRIX.to(x)).square(),
    "tanh": torch.tanh,
    "saturated tanh": lambda x: torch.tanh(4 * x),
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(1).square(),
    "confident log-softmax": lambda x: (8 * x).log_softmax(1)[:, 0],
    "cross-entropy": lambda x: functional.cross_entropy(x, torch.arange(6) % 5),
    "binary cross-entropy": lambda x: functional.binary_cross_entropy_with_logits(x, x.detach()),
    "layer norm": lambda x: functional.layer_norm(x, (5,)).pow(3),
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "elu": lambda x: functional.elu(x).square(),
    "convolution": lambda x: functional.conv1d(x[:, None], x.detach()[:2, None, :3]).square(),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "norm": lambda x: x.norm(dim=1),
    "cumulative": lambda x: x.cumsum(1).square().cumsum(0),
    "product of all": lambda x: x.prod(1),
    "cancellation": lambda x: (1000 + x.pow(3)) - 1000 - x,
    "square root of a difference": lambda x: (x.square() + 1e-3 - x.square().detach()).sqrt(),
    "inverse": lambda x: torch.linalg.inv(x[:5] + 3 * torch.eye(5).to(x)),
    "attention": lambda x: functional.softmax(x @ x.T / 2, 1) @ x,
    "in place on a view": lambda x: _in_place(x),
    "product of complex matrices": lambda x: (_complex(x).mT @ _complex(x.cos())).real,
    "product with a conjugate": lambda x: (_complex(x) @ _complex(x.cos()).mH).imag,
    "batches with conjugates": lambda x: _complex(x).conj()[None].bmm(_complex(x).T[None]).imag,
    "product with a negative": lambda x: _complex(x).conj().imag @ x.T,
    "distances": lambda x: (x[:, None] - x[None]).square().sum(2).add(0.1).sqrt(),
}


def _complex(x: Tensor) -> Tensor:
    return torch.complex(x, x.flip(1).sin())


def _in_place(x: Tensor) -> Tensor:
    copied = x.clone() * 1.1
    copied[:, 1:3].mul_(x[:, :2].exp())
    copied[0].add_(x[1])
    return copied.sin()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_measured_rounding_bounds_the_error_of_a_second_derivative(name: str) -> None:
    function, rows = FUNCTIONS[name], ROWS.float()
    found = second_derivative(function, rows)
    error = float((found.double() - second_derivative(function, rows.double())).norm())
    measured = rounding_of(lambda: second_derivative(function, rows))
    assert error <= measured
    assert measured <= 1e3 * error + 1e-30


@pytest.mark.parametrize("name", FUNCTIONS)
def test_measured_rounding_bounds_the_error_of_a_value(name: str) -> None:
    function, rows = FUNCTIONS[name], ROWS.float()
    error = float((function(rows).double() - function(rows.double())).norm())
    assert error <= rounding_of(lambda: function(rows)) <= 1e3 * error + 1e-30


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "reshape": lambda x: x.reshape(5, 6).T[1:],
    "cat": lambda x: torch.cat([x, -x, x.abs()], 1),
    "stack": lambda x: torch.stack([x, x]),
    "index": lambda x: x[torch.tensor([1, 0, 2])],
    "gather": lambda x: x.gather(1, torch.zeros(6, 1, dtype=torch.long)),
    "where": lambda x: torch.where(x > 0, x, x.flip(0)),
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "amax": lambda x: x.amax(1),
    "max": lambda x: x.max(1).values,
    "sort": lambda x: x.sort(1).values,
    "maximum": lambda x: torch.maximum(x, x.roll(1)),
    "max pooling": lambda x: functional.max_pool1d(x[:, None], 2),
    "pad": lambda x: functional.pad(x, (1, 2)),
    "embedding": lambda x: functional.embedding(torch.tensor([3, 0]), x),
    "masked fill": lambda x: x.masked_fill(x > 0, 2.0),
    "copy in place": lambda x: torch.zeros_like(x).copy_(x),
}


@pytest.mark.parametrize("name", MOVES)
def test_operations_that_move_numbers_have_no_rounding(name: str) -> None:
    function = MOVES[name]
    assert rounding_of(lambda: function(ROWS)) == 0

    def gradient() -> Tensor:
        point = ROWS.clone().requires_grad_()
        outputs = function(point)
        return torch.autograd.grad(outputs, point, torch.ones_like(outputs))[0]

    size = float(gradient().norm())
    assert rounding_of(gradient) <= 40 * torch.finfo(torch.float64).eps * size


def test_measured_rounding_does_not_change_what_it_measures() -> None:
    state, rows = torch.get_rng_state(), ROWS.clone()
    first = rounding_of(lambda: rows.t().mul(3).exp())
    assert (rows == ROWS).all()
    assert torch.equal(state, torch.get_rng_state())
    assert rounding_of(lambda: rows.t().mul(3).exp()) == first
    assert not is_perturbing()


EDGE = torch.tensor([1.0, 1.0 - 1e-16, 0.5], dtype=torch.float64)
DOMAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "log(1 - p)": lambda x: torch.log1p(-x.clamp(max=0.999999) * x / x.clamp(min=1e-9)),
    "arc cosine": lambda x: torch.acos(0.9999 * x * x.cos() / x.cos()),
    "binary cross-entropy": lambda x: functional.binary_cross_entropy(1.0 * x, torch.ones(3).to(x)),
    "Bernoulli": lambda x: torch.distributions.Bernoulli(1.0 * x).log_prob(torch.ones(3).to(x)),
    "square root": lambda x: (2 - (1.0 * x + 1)).sqrt().nan_to_num(),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_measured_rounding_stays_in_the_domain(name: str) -> None:
    assert rounding_of(lambda: DOMAINS[name](EDGE)) < 1e-6


def test_border_of_the_domain_is_refused() -> None:
    value = torch.zeros(1, dtype=torch.float64)

    def evaluate() -> Tensor:
        if is_perturbing():
            raise ValueError("the argument must be exactly 1")
        return value

    with pytest.raises(ValueError, match=r"the result must stay finite.*must be exactly 1"):
        rounding_of(evaluate)


def test_kink_in_the_model_keeps_the_outputs_exact() -> None:
    inputs, weights = torch.tensor([[1.0, 1.0], [2.0, 1.0]]).double(), torch.tensor([1.0, -1.0])

    def slope() -> Tensor:
        point = weights.double().requires_grad_()
        with model_evaluation():
            outputs = torch.relu(inputs @ point)  # 0 by cancellation, and 1
        return torch.autograd.grad(outputs.square().sum() + outputs.sum(), point)[0]

    assert 0 < rounding_of(slope) < 1e3 * torch.finfo(torch.float64).eps


def test_kink_in_the_loss_keeps_its_value_exact() -> None:
    point = torch.tensor([1.0, 3.0], dtype=torch.float64)

    def slope() -> Tensor:
        leaf = point.clone().requires_grad_()
        return torch.autograd.grad(((leaf * 3 - 3).abs() * 1.1).sum(), leaf)[0]

    assert 0 < rounding_of(slope) < 1e3 * torch.finfo(torch.float64).eps


def test_kink_in_a_derivative_is_refused() -> None:
    point = torch.ones(20, dtype=torch.float64)

    def step() -> Tensor:
        leaf = point.clone().requires_grad_()
        (slope,) = torch.autograd.grad((leaf**3).sum(), leaf)

        def jump(gradient: Tensor) -> Tensor:
            return (gradient * leaf.detach() - 3 > 0).double()

        leaf.register_hook(jump)
        return torch.autograd.grad((slope.detach() * leaf).sum(), leaf)[0]

    with pytest.raises(ValueError, match="the result must be continuous at the parameters"):
        rounding_of(step)


def test_sample_has_its_own_rounding() -> None:
    scales = torch.tensor([1e-9, 1.0, 1e9], dtype=torch.float64)[:, None]
    rows = normal(3, 4) * scales

    def evaluate() -> Tensor:
        return (rows * 3.3).sin() * scales

    found = measured_rounding(evaluate, evaluate(), lambda change: change.norm(dim=1), "it")
    eps = torch.finfo(torch.float64).eps
    assert (found[:2] < 1e3 * eps * evaluate().norm(dim=1)[:2]).all()
    assert found[2] > 1e8 * eps * evaluate().norm(dim=1)[2]  # the sine of a huge number


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_numbers_of_long_tensors_change_in_turn(rows: int, more: int) -> None:
    # Every number of a tensor is changed, by factors that are repeated after a fixed number.
    period = rounding._NUM_NUMBERS
    ones = torch.ones(rows * period + more, dtype=torch.float64)
    changes: list[Tensor] = []

    def size(change: Tensor) -> Tensor:
        changes.append(change)
        return change.norm()

    measured_rounding(lambda: ones * 1.0, ones, size, "ones")
    large = changes[0]
    assert large.count_nonzero() >= 0.99 * len(large)
    assert torch.equal(large[period:], large[:-period])
    assert len(large[:period].unique()) > 3

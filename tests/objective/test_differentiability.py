"""Operations without a second derivative, or with a wrong one, are named."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from custom_functions import ConstantSlope, Square
from dense_reference import reference_matrices
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import hesspipe
from hesspipe.errors import NotTwiceDifferentiableError
from hesspipe.networks.architectures import initialize_normal
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective
from hesspipe.objective.symmetry import _check_symmetry


class OnceOnly(Square):
    """Declared, but torch.autograd.grad does not reach the node that would raise."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * slope


class StraightThrough(torch.autograd.Function):
    """The backward method is not the derivative, as in quantized networks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.mul(4).round().div(4)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


class Applied(nn.Module):
    """A network with a function between its layers."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(4, 5), nn.Linear(5, 3), function
        with torch.no_grad():
            self.first.weight.copy_(normal(5, 4))
            self.last.weight.copy_(normal(3, 5))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.function(self.first(inputs)))
        return outputs


DATA = normal(8, 4), labels(8, 3)


def test_user_function_with_a_second_derivative_is_correct() -> None:
    model = Applied(Square.apply).double()
    plain = Applied(torch.square).double()
    plain.load_state_dict(model.state_dict())
    expected = reference_matrices(
        plain,
        lambda other: other(DATA[0]),
        lambda outputs: functional.cross_entropy(outputs, DATA[1]),
    )
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"])


@pytest.mark.parametrize("function", [ConstantSlope, OnceOnly])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_user_function_with_a_wrong_second_derivative_is_named(
    function: Any, dtype: torch.dtype
) -> None:
    message = f"second derivative must .* with the torch.autograd.Function {function.__name__}"
    with pytest.raises(NotTwiceDifferentiableError, match=message):
        Objective(Applied(function.apply), nn.CrossEntropyLoss(), DATA, dtype=dtype)


def test_user_function_with_a_wrong_first_derivative_is_named() -> None:
    message = r"gradient must be the derivative.*Function StraightThrough"
    with pytest.raises(NotTwiceDifferentiableError, match=message):
        Objective(Applied(StraightThrough.apply), nn.CrossEntropyLoss(), DATA)


def checkpointed(use_reentrant: bool) -> Any:
    return partial(checkpoint, torch.tanh, use_reentrant=use_reentrant)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_is_correct(use_reentrant: bool) -> None:
    model = Applied(checkpointed(use_reentrant)).double()
    plain = Applied(torch.tanh).double()
    plain.load_state_dict(model.state_dict())
    expected = hesspipe.hessian_matrix(Objective(plain, nn.CrossEntropyLoss(), DATA))
    found = hesspipe.hessian_matrix(Objective(model, nn.CrossEntropyLoss(), DATA))
    assert_close(found, expected)


def test_operation_of_torch_without_a_second_derivative_is_named() -> None:
    def fused(hidden: Tensor) -> Tensor:
        rows = hidden.view(-1, 1, 1, 5)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(rows, rows, rows)[
            0
        ].flatten(1)

    message = r"got aten::_scaled_dot_product_flash_attention_for_cpu_backward without a second"
    with pytest.raises(NotTwiceDifferentiableError, match=message):
        Objective(Applied(fused), nn.CrossEntropyLoss(), DATA)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_operation_of_torch_with_a_wrong_second_derivative_is_named(dtype: torch.dtype) -> None:
    class Fused(nn.Linear):
        """Weight normalization by the operation itself, for which nothing is substituted."""

        def forward(self, inputs: Tensor) -> Tensor:
            size = self.bias.unsqueeze(1).exp()
            weight = torch.ops.aten._weight_norm_interface(self.weight, size)[0]
            return functional.linear(inputs, weight, self.bias).tanh()

    model = Fused(4, 5)
    with pytest.raises(NotTwiceDifferentiableError, match=r"symmetric.*weight_norm, whose second"):
        Objective(model, nn.CrossEntropyLoss(), (DATA[0], labels(8, 5)), dtype=dtype)


def test_products_name_an_operation_without_a_second_derivative() -> None:
    message = r"got aten::some_op without a second derivative \(torch says: derivative for aten"
    with pytest.raises(NotTwiceDifferentiableError, match=message), differentiating():
        raise NotImplementedError("derivative for aten::some_op is not implemented")


def test_loss_without_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="must depend on the parameters"):
        Objective(Applied(Tensor.detach), lambda outputs, _: outputs.detach().sum(), DATA)


class Detaching(nn.Module):
    """The gradient is not the derivative of the function."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(4, 5), nn.Linear(5, 3), how

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs).tanh()
        if self.how == "no_grad":
            with torch.no_grad():
                hidden = self.first(inputs).tanh()
        elif self.how == "straight through":
            hidden = hidden + (hidden.mul(4).round().div(4) - hidden).detach()
        elif self.how == "harmless":
            hidden = hidden - hidden.amax(1, keepdim=True).detach() + hidden.amax(1, keepdim=True)
            hidden = hidden - hidden.amax(1, keepdim=True).detach()
            outputs: Tensor = self.last(hidden.softmax(1))
            return outputs
        result: Tensor = self.last(hidden)
        return result


@pytest.mark.parametrize("how", ["no_grad", "straight through"])
@pytest.mark.parametrize("seed", range(5))
def test_gradient_that_is_not_the_derivative_is_refused(how: str, seed: int) -> None:
    model = Detaching(how)
    initialize_normal(model, 0.7, torch.Generator().manual_seed(seed))
    with pytest.raises(NotTwiceDifferentiableError, match="gradient must be the derivative"):
        Objective(model, nn.CrossEntropyLoss(), DATA)


def test_parameters_behind_no_grad_may_be_frozen() -> None:
    model = Detaching("no_grad").double()
    initialize_normal(model, 0.7, torch.Generator().manual_seed(0))
    model.first.requires_grad_(False)
    expected = reference_matrices(
        model,
        lambda model: model(DATA[0]),
        lambda outputs: functional.cross_entropy(outputs, DATA[1]),
    )
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    assert not expected["hessian"][:25].any()  # those of the first layer
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"][25:, 25:])


def test_detached_shift_without_effect_is_accepted() -> None:
    model = Detaching("harmless").double()
    initialize_normal(model, 0.7, torch.Generator().manual_seed(0))
    expected = reference_matrices(
        model,
        lambda model: model(DATA[0]),
        lambda outputs: functional.cross_entropy(outputs, DATA[1]),
    )
    objective = Objective(model, nn.CrossEntropyLoss(), DATA)
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"])


def test_units_exactly_on_a_kink_are_accepted() -> None:
    # As at many starting points: zero biases, and samples that are zero.
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    nn.init.zeros_(model[0].bias)
    inputs = DATA[0].clone()
    inputs[:6] = 0
    assert Objective(model, nn.CrossEntropyLoss(), (inputs, DATA[1])).num_parameters == 43


def test_parameters_that_are_used_in_another_way_are_refused() -> None:
    model = Applied(torch.tanh)

    def penalized(outputs: Tensor, targets: Tensor) -> Tensor:
        penalty = model.first.weight.square().sum().double()
        return functional.cross_entropy(outputs, targets) + penalty

    with pytest.raises(ValueError, match=r"got first.weight used in another way.*weight_decay"):
        Objective(model, penalized, DATA)
    # Constant, because it is not varied.
    frozen = Objective(model, penalized, DATA, parameters=["last.*", "first.bias"])
    plain = Objective(model, nn.CrossEntropyLoss(), DATA, parameters=["last.*", "first.bias"])
    assert_close(hesspipe.hessian_matrix(frozen), hesspipe.hessian_matrix(plain))
    captured = Applied(torch.tanh)
    weights = [captured.first.weight]
    captured.forward = lambda inputs: captured.last(captured.first(inputs) + weights[0].sum())
    with pytest.raises(ValueError, match="used in another way"):
        Objective(captured.double(), nn.CrossEntropyLoss(), DATA)


def test_forward_that_holds_its_model_is_that_of_theta() -> None:
    captured, plain = Applied(torch.tanh), Applied(torch.tanh)
    captured.load_state_dict(plain.state_dict())
    captured.forward = lambda inputs: captured.last(captured.first(inputs).tanh())
    expected = hesspipe.hessian_matrix(Objective(plain, nn.CrossEntropyLoss(), DATA))
    found = hesspipe.hessian_matrix(Objective(captured, nn.CrossEntropyLoss(), DATA))
    assert_close(found, expected)


@pytest.mark.parametrize("error", [1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("scale", [1e-200, 1e-12, 1.0, 1e12])
@pytest.mark.parametrize("size", [2, 50])
def test_products_that_are_not_symmetric_are_refused(error: float, scale: float, size: int) -> None:
    square = normal(size, size, seed=3)
    matrix = scale * (square + square.T)
    one, other = torch.linalg.qr(normal(size, 2)).Q.T
    vectors = torch.stack([one, other, one + other])
    _check_symmetry(vectors @ matrix, one, other, "", lambda: 0.0)
    skew = error * float(matrix.abs().max()) * (torch.outer(one, other) - torch.outer(other, one))
    with pytest.raises(NotTwiceDifferentiableError, match="must be symmetric"):
        _check_symmetry(vectors @ (matrix + skew), one, other, "", lambda: 0.0)
    _check_symmetry(vectors @ (matrix + skew), one, other, "", lambda: 100 * scale)

"""What has no second derivative, or a wrong one, is named."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from conftest import assert_close, labels, normal
from dense_reference import reference_matrices
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import hesspipe
from hesspipe import columns
from hesspipe.differentiability import NotTwiceDifferentiableError
from hesspipe.objective import Objective


class Square(torch.autograd.Function):
    """Right: its backward method is differentiable."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.square()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * slope


class ConstantSlope(Square):
    """Wrong without a word: the derivative is a constant to the second derivative."""

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].detach() * slope


class OnceOnly(Square):
    """Says so, but torch.autograd.grad does not reach the node that would raise."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * slope


class StraightThrough(torch.autograd.Function):
    """No derivative of what it computes, as quantized networks have it."""

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


def test_own_function_with_a_second_derivative_is_right() -> None:
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


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (ConstantSlope, r"agree with differences of the gradient.*Function ConstantSlope"),
        (OnceOnly, r"agree with differences of the gradient.*Function OnceOnly"),
        (StraightThrough, r"agree with differences.*Function StraightThrough"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_own_function_without_a_right_second_derivative_is_named(
    function: Any, message: str, dtype: torch.dtype
) -> None:
    with pytest.raises(NotTwiceDifferentiableError, match=message):
        Objective(Applied(function.apply), nn.CrossEntropyLoss(), DATA, dtype=dtype)


def checkpointed(use_reentrant: bool) -> Any:
    return partial(checkpoint, torch.tanh, use_reentrant=use_reentrant)


# Of the reentrant kind, which warns wherever nothing is differentiated.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_is_right_or_refused() -> None:
    model = Applied(checkpointed(False)).double()
    plain = Applied(torch.tanh).double()
    plain.load_state_dict(model.state_dict())
    expected = hesspipe.hessian_matrix(Objective(plain, nn.CrossEntropyLoss(), DATA))
    found = hesspipe.hessian_matrix(Objective(model, nn.CrossEntropyLoss(), DATA))
    assert_close(found, expected)
    with pytest.raises(NotTwiceDifferentiableError, match=r"Function CheckpointFunction \(torch"):
        Objective(Applied(checkpointed(True)), nn.CrossEntropyLoss(), DATA)


def test_operation_of_torch_without_a_second_derivative_is_named() -> None:
    def fused(hidden: Tensor) -> Tensor:
        rows = hidden.view(-1, 1, 1, 5)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(rows, rows, rows)[
            0
        ].flatten(1)

    objective = Objective(Applied(fused), nn.CrossEntropyLoss(), DATA)
    message = r"got aten::_scaled_dot_product_flash_attention_for_cpu_backward without a second"
    for compute in (
        lambda: columns.multiply(objective, "hessian", normal(1, objective.num_parameters)),
        lambda: hesspipe.hessian_matrix(objective),
        lambda: hesspipe.spectrum(objective),
    ):
        with pytest.raises(NotTwiceDifferentiableError, match=message):
            compute()


def test_loss_without_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="must depend on the parameters"):
        Objective(Applied(Tensor.detach), lambda outputs, _: outputs.detach().sum(), DATA)

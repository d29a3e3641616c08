"""A function of theta as a model, whose only output it is."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class FunctionOfTheta(nn.Module):
    """A model whose only output is a function of its only parameter."""

    def __init__(self, function: Callable[[Tensor], Tensor], theta: Tensor) -> None:
        super().__init__()
        if not isinstance(theta, Tensor):
            raise TypeError(
                f"theta must be a tensor, got {type(theta).__name__}; convert with torch.as_tensor"
            )
        if theta.ndim != 1 or not theta.is_floating_point():
            raise ValueError(
                "theta must be a vector of floating point, got "
                f"shape {tuple(theta.shape)} of {theta.dtype}"
            )
        self.function = function
        self.theta = nn.Parameter(theta.detach().clone())

    @staticmethod
    def sum_of_outputs(outputs: Tensor, _: Tensor) -> Tensor:
        """Loss function that returns the output itself."""
        return outputs.sum()

    def forward(self, inputs: Tensor) -> Tensor:
        """Evaluate the function: shape (1, 1)."""
        value = self.function(self.theta)
        if not isinstance(value, Tensor) or value.numel() != 1:
            what = (
                f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            )
            raise ValueError(f"loss must return a scalar tensor, got {what}")
        return value.reshape(1, 1)

"""The second derivatives of all outputs for a batch, against a difference of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hesspipe.objective.directional_derivatives import Remainder, norm_of_parts
from hesspipe.objective.finite_differences import allowed_error
from hesspipe.objective.pieces import random_numbers
from hesspipe.seeding import generator


class SumOfOutputs:
    """The second derivative of a random combination of all outputs for a batch.

    The gradient of ``sum_n <w_n, f_n>`` a step ahead is that here, and the step times the product
    of its second derivative with the direction. Parts of the batch are subtracted one by one: only
    one vector is kept, and each sample counts, however few of them are wrong.

    Parameters
    ----------
    rows : Tensor, shape (n, C)
        All outputs ahead, with their graph.
    ahead : sequence of Tensor
        The parameters with which they were computed.
    step : float
    """

    def __init__(self, rows: Tensor, ahead: Sequence[Tensor], step: float) -> None:
        numbers = random_numbers(rows.detach().reshape(-1), generator(0, "weights of outputs"), 1)
        self.weights, self._step = next(numbers).view(rows.shape), step
        if rows.requires_grad:
            found = torch.autograd.grad(rows, ahead, self.weights, materialize_grads=True)
        else:
            found = tuple(torch.zeros_like(part, requires_grad=False) for part in ahead)
        parts = list(found)
        del found
        self._rest = Remainder(parts)
        self._num_open = len(rows)
        self._center, self._size = (self.weights.new_zeros(1) for _ in range(2))

    def subtract_gradient(self, gradient: Sequence[Tensor]) -> None:
        """Subtract what some of the samples add to the gradient, in parts."""
        self._center += norm_of_parts(gradient)
        self._rest.add(gradient, -1.0)

    def subtract_product(self, num_rows: int, product: Sequence[Tensor]) -> None:
        """Subtract what so many samples add to the product, in parts."""
        self._num_open -= num_rows
        self._size += norm_of_parts(product)
        self._rest.add(product, -self._step)

    @property
    def is_right(self) -> bool:
        """Whether all samples were subtracted, and nothing but rounding is left."""
        if self._num_open:
            return False
        error = self._rest.norm() / self._step
        return bool(error <= 0.75 * allowed_error(self._size, self._center, self._step))

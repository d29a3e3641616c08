"""The second derivatives of all outputs for a batch, against a difference of gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from hesspipe.objective.finite_differences import allowed_error
from hesspipe.objective.pieces import random_numbers, row_norms
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
    ahead : Tensor, shape (P,)
        Where they were computed.
    step : float
    """

    def __init__(self, rows: Tensor, ahead: Tensor, step: float) -> None:
        numbers = random_numbers(rows.detach().reshape(-1), generator(0, "weights of outputs"), 1)
        self.weights, self._step = next(numbers).view(rows.shape), step
        if rows.requires_grad:
            (found,) = torch.autograd.grad(rows, ahead, self.weights, materialize_grads=True)
            self._rest = found.clone()  # which may be the weights, or one number repeated
            del found
        else:
            self._rest = torch.zeros_like(ahead, requires_grad=False)
        self._num_open = len(rows)
        self._center, self._size = (self._rest.new_zeros(1) for _ in range(2))

    def subtract(self, num_rows: int, gradient: Tensor, product: Tensor) -> None:
        """Subtract what some of the samples add to the gradient, and to the product (P,)."""
        self._num_open -= num_rows
        self._center += row_norms(gradient.unsqueeze(0))
        self._size += row_norms(product.unsqueeze(0))
        self._rest.sub_(gradient).sub_(product, alpha=self._step)

    @property
    def is_right(self) -> bool:
        """Whether all samples were subtracted, and nothing but rounding is left."""
        if self._num_open:
            return False
        error = row_norms(self._rest.unsqueeze(0)) / self._step
        return bool(error <= 0.75 * allowed_error(self._size, self._center, self._step))

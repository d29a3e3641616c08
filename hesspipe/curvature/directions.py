"""Directions in which the loss is curved in the outputs, and G as a product of two factors.

With S_n = T_n T_n^T (T_n of shape C x r; r = C - 1 for softmax),

    G = A A^T,      A = [J_n^T T_n], one column for each sample n and direction c of T_n

A is applied by differentiation, so that a Gram matrix A^T A computed in another way can be compared
with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hesspipe.curvature.columns import combine_gradients
from hesspipe.curvature.error_bounds import ProductSamples, norm_bound
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import pull_back
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import row_norms
from hesspipe.seeding import generator


@dataclass(frozen=True)
class Directions:
    """T_n of all samples, without the directions in which no S_n has curvature.

    Attributes
    ----------
    values : Tensor, shape (N, C, r)
        In the order of the batches.
    """

    values: Tensor

    @property
    def num_columns(self) -> int:
        """N r, the columns of A."""
        return self.values.shape[0] * self.values.shape[2]

    def project(self, objective: Objective, vector: Tensor) -> Tensor:
        """A^T v = (T_n^T J_n v), of shape (N r,)."""
        theta = objective.theta.clone().requires_grad_()
        changes = []
        for batch in objective.batches:
            with objective.explained(batch):
                outputs = objective.outputs(theta, batch.inputs)  # (n, C)
            pulled = torch.zeros_like(outputs, requires_grad=True)
            (combined,) = torch.autograd.grad(
                outputs, theta, pulled, create_graph=True, materialize_grads=True
            )
            changes.append(pull_back(combined, pulled, vector.unsqueeze(0))[0])
        change = torch.cat(changes).unsqueeze(2)  # (N, C, 1)
        return (self.values.mT @ change).flatten()

    def multiply(self, objective: Objective, weights: Tensor) -> Tensor:
        """A w, of shape (P,)."""
        by_sample = weights.view(len(self.values), self.values.shape[2], 1)
        return combine_gradients(objective, (self.values @ by_sample).squeeze(2))

    def gram_error(
        self, objective: Objective, matrix: Matrix, gram: Tensor, samples: ProductSamples
    ) -> float:
        """Bound the errors of A A^T as G, and of A^T A, with A applied by differentiation."""
        pulled = (self.project(objective, vector) for vector in samples.vectors)
        formed = torch.stack([self.multiply(objective, weights) for weights in pulled])
        error = norm_bound(samples, row_norms(formed - samples.products), matrix)
        every_weights = torch.randn(
            len(formed),
            len(gram),
            generator=generator(0, "Gram matrix error"),
            dtype=torch.float64,
            device="cpu",
        ).to(gram)
        combined = (self.multiply(objective, weights) for weights in every_weights)
        formed = torch.stack([self.project(objective, vector) for vector in combined])
        return error + norm_bound(samples, row_norms(formed - every_weights @ gram), matrix)

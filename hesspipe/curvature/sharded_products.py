"""Products of H, G and R with vectors that are divided among processes.

Each process differentiates its share of the loss by its part of theta. The parameters are gathered
inside the graph, and what autograd does with that adds the products of all processes
(`hesspipe.sharded.gathering`), so that the formulas are those of one process
(`hesspipe.curvature.products`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from hesspipe.curvature.loss_derivatives import decay_diagonal
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import BatchProduct
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.objective.differentiability import differentiating
from hesspipe.sharded.objective import ShardedObjective

_Found = TypeVar("_Found")

# Memory for graphs that are kept, in each process; as for operators in one process.
_KEPT_BYTES = 2 * 2**30


class ShardedProducts:
    """Products of one matrix of a sharded objective, with the graphs kept as memory allows.

    Parameters
    ----------
    objective : ShardedObjective
    matrix : Matrix
    """

    def __init__(self, objective: ShardedObjective, matrix: Matrix) -> None:
        self.objective, self.matrix = objective, matrix
        self._kept: dict[int, BatchProduct] = {}
        self._kept_bytes = 0.0

    def as_symmetric_product(self) -> SymmetricProduct:
        """Wrap it for the methods of `hesspipe.linalg`."""
        objective = self.objective
        return SymmetricProduct(
            self.multiply,
            objective.num_parameters,
            objective.dtype,
            objective.device,
            str(self.matrix),
            sharded=objective.space,
        )

    def found_together(self, _: str, compute: Callable[[], _Found]) -> _Found:
        """Compute something from products in every process: none has all of a vector."""
        return compute()

    def multiply(self, vector: Tensor) -> Tensor:
        """Multiply a vector, of which this process holds (length,), in all processes at once."""
        with self.objective.ranks.raise_together(f"a product with the {self.matrix}"):
            return self._multiply(vector)

    @differentiating()
    def _multiply(self, vector: Tensor) -> Tensor:
        objective = self.objective
        total = torch.zeros_like(vector)
        with objective.gathering.lean():
            for place in range(len(objective.batches)):
                total += self._product(place)(vector.unsqueeze(0))[0]
        if objective.weight_decay:
            total += decay_diagonal(objective, self.matrix) * vector
        return total

    def _product(self, place: int) -> BatchProduct:
        if place in self._kept:
            return self._kept[place]
        objective = self.objective
        product = BatchProduct(objective, self.matrix, objective.batches[place], is_divided=True)
        with objective.gathering.counting():
            own = torch.tensor(float(product.graph_bytes), dtype=torch.float64, device="cpu")
        largest = float(objective.space.largest(own))  # all must decide alike
        if self._kept_bytes + largest <= _KEPT_BYTES:
            self._kept[place] = product
            self._kept_bytes += largest
        return product

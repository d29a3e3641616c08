"""Directions in which the loss is curved in the outputs, and G as a product of two factors.

With S_n = T_n T_n^T (T_n of shape C x r; r = C - 1 for softmax),

    G = A A^T,      A = [J_n^T T_n], one column for each sample n and direction c of T_n

Where samples are not independent, all outputs for a batch are one vector f_b instead, with S_b and
T_b of their number (`hesspipe.curvature.whole_outputs`).

A is applied by differentiation, so that a Gram matrix A^T A computed in another way can be compared
with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature.columns import combine_gradients
from hesspipe.curvature.error_bounds import ProductSamples, norm_bound
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import forward_link, pull_back, require_adjoint
from hesspipe.curvature.whole_outputs import pulled_rows
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import row_norms
from hesspipe.seeding import generator


class Columns(ABC):
    """The columns of A, with G = A A^T, applied by differentiation."""

    @property
    @abstractmethod
    def num_columns(self) -> int:
        """M, the columns of A."""

    @property
    @abstractmethod
    def num_terms(self) -> int:
        """Number of samples or batches whose columns are computed one after the other."""

    @abstractmethod
    def project(self, objective: Objective, vectors: Tensor) -> Tensor:
        """A^T v for each v of vectors (k, P), one after the other: (k, M)."""

    @abstractmethod
    def multiply(self, objective: Objective, weights: Tensor) -> Tensor:
        """A w for each w of weights (k, M), one after the other: (k, P)."""

    @abstractmethod
    def rows(self, part: Objective, entries: slice, bar: tqdm[Any]) -> Tensor:
        """A^T in some entries of the theta of an objective with fewer parameters: (M, k)."""

    def gram_error(
        self, objective: Objective, matrix: Matrix, gram: Tensor, samples: ProductSamples
    ) -> float:
        """Bound the errors of A A^T as G, and of A^T A, with A applied by differentiation."""
        formed = self.multiply(objective, self.project(objective, samples.vectors))
        error = norm_bound(samples, row_norms(formed - samples.products), matrix)
        every_weights = torch.randn(
            len(formed),
            len(gram),
            generator=generator(0, "Gram matrix error"),
            dtype=torch.float64,
            device="cpu",
        ).to(gram)
        formed = self.project(objective, self.multiply(objective, every_weights))
        return error + norm_bound(samples, row_norms(formed - every_weights @ gram), matrix)


@dataclass(frozen=True)
class Directions(Columns):
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

    @property
    def num_terms(self) -> int:
        """N."""
        return len(self.values)

    def project(self, objective: Objective, vectors: Tensor) -> Tensor:
        """A^T v = (T_n^T J_n v) for each vector: (k, N r)."""
        theta = objective.theta.clone().requires_grad_()
        changes = []
        for batch in objective.batches:
            with objective.explained(batch):
                outputs = objective.outputs(theta, batch.inputs)  # (n, C)
            changes.append(_changes(outputs, theta, vectors))
        every_change = torch.cat(changes, 1).unsqueeze(3)  # (k, N, C, 1)
        return torch.stack([(self.values.mT @ change).flatten() for change in every_change])

    def multiply(self, objective: Objective, weights: Tensor) -> Tensor:
        """A w for each of the weights: (k, P)."""
        by_sample = weights.view(len(weights), len(self.values), self.values.shape[2], 1)
        cotangents = [(self.values @ each).squeeze(2) for each in by_sample]
        return combine_gradients(objective, torch.stack(cotangents))

    def rows(self, part: Objective, entries: slice, bar: tqdm[Any]) -> Tensor:
        """A^T in some entries, one sample at a time, so that none can mix."""
        theta = part.theta.clone().requires_grad_()
        num_directions = self.values.shape[2]
        rows = theta.new_empty(self.num_columns, entries.stop - entries.start)
        number = 0
        for batch in part.batches:
            with part.explained(batch):
                for sample in range(len(batch.inputs)):
                    outputs = part.outputs(theta, batch.inputs[sample : sample + 1]).squeeze(0)
                    pulled = pull_back(outputs, theta, self.values[number].mT)
                    place = slice(number * num_directions, (number + 1) * num_directions)
                    rows[place] = pulled[:, entries]
                    number += 1
                    bar.update()
        return rows


@dataclass(frozen=True)
class OutputDirections(Columns):
    """T_b of all batches, where the loss is convex in the outputs.

    Attributes
    ----------
    factors : tuple of Tensor, shapes (K_b, r_b)
        In the order of the batches.
    """

    factors: tuple[Tensor, ...]

    @property
    def num_columns(self) -> int:
        """Number of columns of A."""
        return sum(part.shape[1] for part in self.factors)

    @property
    def num_terms(self) -> int:
        """Number of batches."""
        return len(self.factors)

    def project(self, objective: Objective, vectors: Tensor) -> Tensor:
        """A^T v = (T_b^T J_b v) for each vector: (k, M)."""
        theta = objective.theta.clone().requires_grad_()
        changes = []
        for batch, factors in zip(objective.batches, self.factors, strict=True):
            outputs = objective.output_vector(theta, batch)
            changed = _changes(outputs, theta, vectors)
            changes.append(torch.stack([factors.mT @ change for change in changed]))
        return torch.cat(changes, 1)

    def multiply(self, objective: Objective, weights: Tensor) -> Tensor:
        """A w for each of the weights: (k, P)."""
        theta = objective.theta.clone().requires_grad_()
        total = theta.new_zeros(len(weights), len(theta))
        parts = weights.split([factors.shape[1] for factors in self.factors], 1)
        for batch, factors, part in zip(objective.batches, self.factors, parts, strict=True):
            outputs = objective.output_vector(theta, batch)
            total += _rows(outputs, theta, torch.stack([factors @ each for each in part]))
        return total

    def rows(self, part: Objective, entries: slice, bar: tqdm[Any]) -> Tensor:
        """A^T in some entries of the theta of a part: (M, k)."""
        rows = part.theta.new_empty(self.num_columns, entries.stop - entries.start)
        start = 0
        for batch, factors in zip(part.batches, self.factors, strict=True):
            for found in pulled_rows(part, batch, factors):
                rows[start : start + len(found)] = found[:, entries]
                start += len(found)
            bar.update()
        return rows


def _changes(outputs: Tensor, theta: Tensor, vectors: Tensor) -> Tensor:
    """J v for each of the vectors: (k, *outputs.shape)."""
    link = forward_link(outputs, theta)
    changes = _rows(*link, vectors)
    require_adjoint(link, vectors[0], changes[0])
    return changes


def _rows(values: Tensor, point: Tensor, vectors: Tensor) -> Tensor:
    """The vectors times the Jacobian of values: one backward pass for each, of one graph."""
    return torch.cat([pull_back(values, point, vector.unsqueeze(0)) for vector in vectors])

"""Exact spectrum of G of any network, from a matrix of the size of the data.

With S_n = T_n T_n^T (T_n of shape C x r; r = C - 1 for softmax),

    G = A A^T,      A = [J_n^T T_n], one column for each sample n and direction c of T_n

and the eigenvalues of G other than zero are those of A^T A, of size N r whatever P is. A has P rows
and is never held whole: A^T A is a sum over the parameters, and adds up over blocks of them. For
each block, the columns of A are computed again, by backward passes that end where the block is.

Cost: N r backward passes for each block, and (N r)^2 P multiply-adds. Networks of Linear layers
have a faster way, in `hesspipe.curvature.gram`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature.columns import combine_gradients, mirror_lower
from hesspipe.curvature.error_bounds import ProductSamples, norm_bound, sample_products
from hesspipe.curvature.loss_derivatives import curvature_factors, decay_diagonal
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import pull_back
from hesspipe.hardware import available_bytes, require
from hesspipe.linalg.spectrum import ZERO_TOLERANCE, Spectrum, matrix_spectrum
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective
from hesspipe.objective.pieces import row_norms
from hesspipe.seeding import generator

# Memory for a block of rows of A, and the part of what is free that it may take.
_BLOCK_BYTES = 2 * 2**30
_SHARE = 4
# Rows of A^T A that are updated at once.
_ROWS = 512
# From this many parameters for each column of A on, A^T A is cheaper than G: both are formed by
# the same passes, but G takes an eigensolver of size P.
_FEWEST_ROWS = 2
# The fewest parameters in a block, where memory is short.
_SMALLEST_BLOCK = 1024


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
        by_sample = weights.view(len(self.values), -1, 1)
        return combine_gradients(objective, (self.values @ by_sample).squeeze(2))

    def gram_error(
        self, objective: Objective, matrix: Matrix, gram: Tensor, samples: ProductSamples
    ) -> float:
        """Bound the errors of A A^T as G, and of A^T A, with A applied by differentiation."""
        pulled = (self.project(objective, vector) for vector in samples.vectors)
        formed = torch.stack([self.multiply(objective, weights) for weights in pulled])
        error = norm_bound(samples, row_norms(formed - samples.products), matrix)
        every_weights = torch.randn(
            len(formed), len(gram), generator=generator(0, "Gram matrix error"), dtype=torch.float64
        ).to(gram)
        combined = (self.multiply(objective, weights) for weights in every_weights)
        formed = torch.stack([self.project(objective, vector) for vector in combined])
        return error + norm_bound(samples, row_norms(formed - every_weights @ gram), matrix)


def find_directions(objective: Objective) -> Directions | None:
    """Compute T_n of all samples; None if an S_n has a negative eigenvalue.

    Parameters
    ----------
    objective : Objective
        Separable.
    """
    parts = [curvature_factors(objective, batch) for batch in objective.batches]
    signs = torch.cat([signs for _, signs in parts])  # (N, C)
    if (signs < 0).any():
        return None
    values = torch.cat([factors for factors, _ in parts]) * signs.unsqueeze(1)
    return Directions(values[:, :, signs.any(0)])


def is_smaller(objective: Objective, num_columns: int) -> bool:
    """Whether A^T A, of so many columns, is so much smaller than G that it is cheaper."""
    return _FEWEST_ROWS * num_columns < int(objective.is_varied.sum())


@differentiating()
def sampled_spectrum(
    objective: Objective,
    directions: Directions,
    *,
    zero_tolerance: float = ZERO_TOLERANCE,
    certify: bool | None = None,
    progress: bool = False,
) -> Spectrum:
    """Compute the spectrum of G from A^T A.

    Parameters
    ----------
    objective : Objective
        Without frozen parameters.
    directions : Directions
    zero_tolerance : float
    certify : bool, optional
        See `hesspipe.linalg.spectrum.matrix_spectrum`, as for zero_tolerance.
    progress : bool

    Returns
    -------
    Spectrum
        The eigenvalues of directions that no sample sees are exactly zero, or equal to the weight
        decay.

    Raises
    ------
    TooLargeError
        If A^T A and its eigensolver do not fit into memory; raised before allocating.
    InconsistentMatrixError
        If A^T A disagrees with products computed without it, or the eigenvalues with its traces.
    """
    plain, matrix = objective.without_weight_decay(), Matrix.GGN
    if directions.num_columns > int(objective.is_varied.sum()):
        raise ValueError(
            f"method 'jacobians' needs at most as many outputs of all samples, "
            f"{directions.num_columns:,}, as parameters that vary, "
            f"{int(objective.is_varied.sum()):,}; use method='auto'"
        )
    samples = sample_products(plain, matrix)
    gram = gram_of_jacobians(objective, directions, progress=progress)
    error = directions.gram_error(objective, matrix, gram, samples)
    others = decay_diagonal(objective, matrix).sort().values
    gram.diagonal().add_(objective.weight_decay)
    return matrix_spectrum(
        gram,
        matrix=matrix,
        method="jacobians",
        matrix_error=error,
        zero_tolerance=zero_tolerance,
        certify=certify,
        others=others[: len(others) - len(gram)],
    )


@differentiating()
def gram_of_jacobians(
    objective: Objective, directions: Directions, *, progress: bool = False
) -> Tensor:
    """Compute A^T A, one block of parameters after the other.

    Parameters
    ----------
    objective : Objective
        Without frozen parameters.
    directions : Directions
    progress : bool

    Returns
    -------
    Tensor, shape (N r, N r)
        Symmetric and positive semidefinite.
    """
    size = directions.num_columns
    itemsize = objective.theta.element_size()
    require(
        (2 * size + min(_SMALLEST_BLOCK, objective.num_parameters)) * size * itemsize,
        f"the spectrum of G from {size:,} columns, one for each sample and output",
        "use fewer samples, or hesspipe.eigenpairs and hesspipe.density, which form no matrix",
    )
    budget = min(_BLOCK_BYTES, (available_bytes() - 2 * size**2 * itemsize) // _SHARE)
    total = objective.theta.new_zeros(size, size)
    blocks = list(_blocks(objective, budget // (size * itemsize)))
    bar = tqdm(
        total=len(blocks) * objective.num_data, desc="G", unit="sample", disable=not progress
    )
    for names, entries in blocks:
        _add_squares(total, _rows(objective.restricted_to(names), directions, entries, bar))
    bar.close()
    return mirror_lower(total)


def _blocks(objective: Objective, length: int) -> Iterator[tuple[list[str], slice]]:
    """Divide theta into blocks of at most `length`: names, and entries of their parameters."""
    length = max(length, _SMALLEST_BLOCK)
    names: list[str] = []
    held = 0
    for name, shape in zip(objective.names, objective.shapes, strict=True):
        if names and held + shape.numel() > length:
            yield names, slice(0, held)
            names, held = [], 0
        for start in range(0, shape.numel() if shape.numel() > length else 0, length):
            yield [name], slice(start, min(start + length, shape.numel()))
        if shape.numel() <= length:
            names.append(name)
            held += shape.numel()
    if names:
        yield names, slice(0, held)


def _rows(part: Objective, directions: Directions, entries: slice, bar: tqdm[Any]) -> Tensor:
    """A^T in some entries of theta, (N r, K); one sample at a time, so that none can mix."""
    theta = part.theta.clone().requires_grad_()
    num_directions = directions.values.shape[2]
    rows = theta.new_empty(directions.num_columns, entries.stop - entries.start)
    number = 0
    for batch in part.batches:
        with part.explained(batch):
            for sample in range(len(batch.inputs)):
                outputs = part.outputs(theta, batch.inputs[sample : sample + 1]).squeeze(0)
                pulled = pull_back(outputs, theta, directions.values[number].mT)
                place = slice(number * num_directions, (number + 1) * num_directions)
                rows[place] = pulled[:, entries]
                number += 1
                bar.update()
    return rows


def _add_squares(total: Tensor, rows: Tensor) -> None:
    """Add rows rows^T to the lower triangle, by blocks of rows."""
    for start in range(0, len(rows), _ROWS):
        stop = min(start + _ROWS, len(rows))
        total[start:stop, :stop].addmm_(rows[start:stop], rows[:stop].mT)

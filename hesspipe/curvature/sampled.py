"""Exact spectrum of G of any network, from a matrix of the size of the data.

With S_n = T_n T_n^T (T_n of shape C x r; r = C - 1 for softmax),

    G = A A^T,      A = [J_n^T T_n], one column for each sample n and direction c of T_n

and the eigenvalues of G other than zero are those of A^T A, of size N r whatever P is. A has P rows
and is never held whole: A^T A is a sum over the parameters, and adds up over blocks of them. For
each block, the columns of A are computed again, by backward passes that end where the block is.

Cost: N r backward passes for each block, and (N r)^2 P multiply-adds. The weights of Linear and
convolutional layers, of which A is a sum of outer products, take much less: see
`hesspipe.curvature.outer_products`. Networks of Linear layers alone have a faster way, in
`hesspipe.curvature.gram`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature.columns import mirror_lower, outputs_per_sample
from hesspipe.curvature.directions import Columns, Directions, OutputDirections
from hesspipe.curvature.error_bounds import sample_products
from hesspipe.curvature.loss_derivatives import curvature_factors, decay_diagonal
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.outer_products import (
    Weight,
    add_gram,
    add_squares_of_rows,
    find_weights,
)
from hesspipe.curvature.whole_outputs import output_factors, outputs_of_batches
from hesspipe.errors import InconsistentMatrixError
from hesspipe.hardware import available_bytes, require
from hesspipe.linalg.spectrum import ZERO_TOLERANCE, Spectrum, matrix_spectrum
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective
from hesspipe.progress import bar_options

# Memory for a block of rows of A, and the part of what is free that it may take.
_BLOCK_BYTES = 2 * 2**30
_SHARE = 4
# From this many parameters for each column of A on, A^T A is cheaper than G: both are formed by
# the same passes, but G takes an eigensolver of size P.
_FEWEST_ROWS = 2
# The fewest parameters in a block, where memory is short.
_SMALLEST_BLOCK = 1024


def find_directions(objective: Objective, matrix: Matrix) -> Directions:
    """Compute T_n of all samples.

    Parameters
    ----------
    objective : Objective
    matrix : Matrix

    Raises
    ------
    ValueError
        If the matrix is not G, samples are coupled, or an S_n has a negative eigenvalue.
    """
    _check_matrix("jacobians", matrix)
    if not objective.is_separable:
        raise ValueError(
            "method 'jacobians' needs independent samples, each with a row of outputs; use "
            "method='columns'"
        )
    parts = [curvature_factors(objective, batch) for batch in objective.batches]
    signs = torch.cat([signs for _, signs in parts])  # (N, C)
    _check_convex("jacobians", (signs,), "auto")
    values = torch.cat([factors for factors, _ in parts]) * signs.unsqueeze(1)
    directions = Directions(values[:, :, signs.any(0)])
    _check_columns("jacobians", directions.num_columns, objective)
    return directions


def find_output_directions(objective: Objective, matrix: Matrix) -> OutputDirections:
    """Compute T_b of all batches, for any outputs.

    Parameters
    ----------
    objective : Objective
    matrix : Matrix

    Raises
    ------
    ValueError
        If the matrix is not G, there are no outputs, an S_b has a negative eigenvalue, or all are
        zero.
    TooLargeError
        If an S_b does not fit into memory.
    """
    _check_matrix("outputs", matrix)
    parts = [output_factors(objective, batch) for batch in objective.batches]
    _check_convex("outputs", [signs for _, signs in parts], "columns")
    directions = OutputDirections(tuple(factors for factors, _ in parts))
    if not directions.num_columns:
        raise ValueError("method 'outputs' needs a loss that is curved in them; use method='auto'")
    _check_columns("outputs", directions.num_columns, objective)
    return directions


def _check_matrix(method: str, matrix: Matrix) -> None:
    if matrix is not Matrix.GGN:
        raise ValueError(f"method {method!r} needs the matrix 'ggn', got {str(matrix)!r}")


def _check_convex(method: str, signs: Iterable[Tensor], other: str) -> None:
    if any((part < 0).any() for part in signs):
        raise ValueError(
            f"method {method!r} needs a loss that is convex in the outputs; use method={other!r}"
        )


def _check_columns(method: str, num_columns: int, objective: Objective) -> None:
    num_varied = int(objective.is_varied.sum())
    if num_columns > num_varied:
        raise ValueError(
            f"method {method!r} needs at most as many curved outputs of all samples, "
            f"{num_columns:,}, as parameters that vary, {num_varied:,}; use method='auto'"
        )


def has_few_whole_outputs(objective: Objective, matrix: Matrix) -> bool:
    """Whether G is much larger than the number of all outputs, where samples are not apart."""
    if matrix is not Matrix.GGN or objective.is_separable:
        return False
    counts = outputs_of_batches(objective)
    return counts is not None and _FEWEST_ROWS * sum(counts) < int(objective.is_varied.sum())


def has_few_outputs(objective: Objective, matrix: Matrix) -> bool:
    """Whether G is so much larger than A^T A that the latter is cheaper."""
    num_outputs = outputs_per_sample(objective) if matrix is Matrix.GGN else None
    if num_outputs is None:
        return False
    return _FEWEST_ROWS * objective.num_data * num_outputs < int(objective.is_varied.sum())


@differentiating()
def sampled_spectrum(
    objective: Objective,
    directions: Columns,
    *,
    zero_tolerance: float = ZERO_TOLERANCE,
    certify: bool | None = None,
    progress: bool | None = None,
) -> Spectrum:
    """Compute the spectrum of G from A^T A.

    Parameters
    ----------
    objective : Objective
        Without frozen parameters.
    directions : Columns
    zero_tolerance : float
    certify : bool, optional
        See `hesspipe.linalg.spectrum.matrix_spectrum`, as for zero_tolerance.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

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
    samples = sample_products(plain, matrix)
    gram = gram_of_jacobians(objective, directions, progress=progress)
    try:
        error = directions.gram_error(objective, matrix, gram, samples)
    except InconsistentMatrixError:  # a sample may use a weight in a way that the first does not
        gram = gram_of_jacobians(objective, directions, by_weights=False, progress=progress)
        error = directions.gram_error(objective, matrix, gram, samples)
    others = decay_diagonal(objective, matrix).sort().values
    gram.diagonal().add_(objective.weight_decay)
    return matrix_spectrum(
        gram,
        matrix=matrix,
        method="jacobians" if isinstance(directions, Directions) else "outputs",
        matrix_error=error,
        zero_tolerance=zero_tolerance,
        certify=certify,
        others=others[: len(others) - len(gram)],
        is_gram=objective.weight_decay >= 0,
    )


@differentiating()
def gram_of_jacobians(
    objective: Objective,
    directions: Columns,
    *,
    by_weights: bool = True,
    progress: bool | None = None,
) -> Tensor:
    """Compute A^T A, one block of parameters after the other.

    Parameters
    ----------
    objective : Objective
        Without frozen parameters.
    directions : Columns
    by_weights : bool
        Whether weights whose gradient is a sum of outer products take the cheaper way.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

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
        device=objective.device,
    )
    free = available_bytes(objective.device) - 2 * size**2 * itemsize
    budget = min(_BLOCK_BYTES, free // _SHARE)
    weights = []
    if by_weights and isinstance(directions, Directions):
        weights = find_weights(objective, directions.values.shape[2], budget)
    groups = list(_groups(weights, budget))
    total = objective.theta.new_zeros(size, size)
    found = {weight.name for weight in weights}
    others = [name for name in objective.names if name not in found]
    rest = objective.restricted_to(others) if others else None
    blocks = [] if rest is None else list(_blocks(rest, budget // (size * itemsize)))
    with tqdm(
        total=(len(groups) + len(blocks)) * directions.num_terms,
        desc="G", unit="term", **bar_options(progress),
    ) as bar:  # fmt: skip
        for group in groups:
            assert isinstance(directions, Directions)
            add_gram(total, objective, directions, group, bar)
        for names, entries in blocks:
            part = objective.restricted_to(names)
            add_squares_of_rows(total, directions.rows(part, entries, bar))
    return mirror_lower(total)


def _groups(weights: list[Weight], budget: int) -> Iterator[list[Weight]]:
    """Divide weights into consecutive groups that hold at most `budget` bytes."""
    group: list[Weight] = []
    for weight in weights:
        if group and sum(each.num_bytes for each in group) + weight.num_bytes > budget:
            yield group
            group = []
        group.append(weight)
    if group:
        yield group


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

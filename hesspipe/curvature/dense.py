"""Exact Hessian, generalized Gauss-Newton and residual matrices of an objective.

Each is computed from its own formula, in the notation of the paper's Equation 4:

    H = d2L/dtheta2,   G = sum_n J_n^T S_n J_n,   R = sum_n sum_c e_nc d2f_c/dtheta2

so that H = G + R is a test of all three. Three methods give the same numbers:

    layers          for networks of Linear layers that are used once each: products of per-sample
                    blocks, in `hesspipe.curvature.linear`
    convolutions    for piecewise linear networks of Conv2d and Linear layers: products of patches,
                    and passes between layers, in `hesspipe.curvature.convolutional`
    columns         for any network: differentiation, column by column, in
                    `hesspipe.curvature.columns`

Method "convolutions" assembles H as G + R, where the sum tests nothing. With every method, each
matrix M is compared with products M v that differentiate the loss and form no matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from hesspipe.curvature import columns
from hesspipe.curvature.convolutional import matrix_by_convolutions
from hesspipe.curvature.error_bounds import (
    ProductSamples,
    matrix_error,
    sample_products,
    samples_of_sum,
)
from hesspipe.curvature.layers import Layer, chunks, find_layers, is_piecewise_linear
from hesspipe.curvature.linear import matrix_by_layers
from hesspipe.curvature.loss_derivatives import add_weight_decay
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import CurvatureOperator, objective_of
from hesspipe.errors import NotASumOverSamplesError
from hesspipe.hardware import require
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.finiteness import require_finite_matrix
from hesspipe.objective.objective import Objective

Method = Literal["auto", "layers", "convolutions", "columns"]

_BY_COLUMNS: dict[Matrix, Callable[..., Tensor]] = {
    Matrix.HESSIAN: columns.hessian_by_columns,
    Matrix.GGN: columns.ggn_by_columns,
    Matrix.RESIDUAL: columns.residual_by_columns,
}

# Rows of a matrix that are multiplied while they are in the cache.
_ROWS_PER_PASS = 128

_METHODS = ("layers", "convolutions", "columns")

_NEEDS = {
    "layers": "every parameter in a Linear layer that is used once, on one vector per sample",
    "convolutions": (
        "a piecewise linear network with every parameter in a Conv2d (one group, zero padding) "
        "or Linear layer that is used once, on one image or vector per sample"
    ),
}


def hessian_matrix(
    objective: Objective | CurvatureOperator,
    method: Method = "auto",
    *,
    progress: bool | None = None,
) -> Tensor:
    """Compute the exact Hessian H of the objective at its parameters.

    Parameters
    ----------
    objective : Objective
        Or an operator of one, of the same matrix.
    method : {"auto", "layers", "convolutions", "columns"}
        "auto" takes the first of the others that applies to the network and agrees with products.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal, for "columns".

    Returns
    -------
    Tensor, shape (P, P)
        Rows and columns in the order of `objective.theta`, in its dtype.

    Raises
    ------
    TooLargeError
        If the matrix does not fit into memory; raised before it is allocated.
    ValueError
        If the method does not apply to the network, or an entry of the matrix is not finite.
    InconsistentMatrixError
        If the matrix or its transpose disagrees with a product computed without it.

    References
    ----------
    Sagun, Evci, Guney, Dauphin, Bottou (2017), Equation 4.

    Examples
    --------
    For one Linear layer and the squared error, H is the inputs' second moment:

    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> hessian_matrix(objective)
    tensor([[10.,  4.],
            [ 4.,  2.]], dtype=torch.float64)
    """
    return _values(objective, Matrix.HESSIAN, method, progress)


def ggn_matrix(
    objective: Objective | CurvatureOperator,
    method: Method = "auto",
    *,
    progress: bool | None = None,
) -> Tensor:
    """Compute the exact generalized Gauss-Newton matrix G, the first term of Equation 4.

    Parameters, Returns and Raises as for `hessian_matrix`.
    """
    return _values(objective, Matrix.GGN, method, progress)


def residual_matrix(
    objective: Objective | CurvatureOperator,
    method: Method = "auto",
    *,
    progress: bool | None = None,
) -> Tensor:
    """Compute the exact residual R, the second term of Equation 4; never as H - G.

    Parameters, Returns and Raises as for `hessian_matrix`.
    """
    return _values(objective, Matrix.RESIDUAL, method, progress)


def _values(
    objective: Objective | CurvatureOperator, matrix: Matrix, method: Method, progress: bool | None
) -> Tensor:
    objective, _ = objective_of(objective, matrix)
    return exact_matrix(objective, matrix, method, progress=progress).values


@dataclass(frozen=True)
class ExactMatrix:
    """A matrix, the method that computed it, and a bound of its error.

    Attributes
    ----------
    values : Tensor, shape (P, P)
    method : str
        "layers", "convolutions" or "columns".
    error : float
        Bound of the spectral norm of the matrix's error, and so of the error that it causes in
        any eigenvalue; see `hesspipe.curvature.error_bounds`.
    samples : ProductSamples
        The products that it was compared with.
    """

    values: Tensor
    method: str
    error: float
    samples: ProductSamples


@differentiating()
def exact_matrix(
    objective: Objective,
    matrix: Matrix | str,
    method: Method = "auto",
    *,
    layers: list[Layer] | None = None,
    extra_bytes: int = 0,
    progress: bool | None = None,
) -> ExactMatrix:
    """Compute H, G or R, check it, and return it with the method that was chosen.

    Parameters
    ----------
    objective : Objective
    matrix : {"hessian", "ggn", "residual"}
    method : {"auto", "layers", "convolutions", "columns"}
    layers : list of Layer, optional
        What `hesspipe.curvature.layers.find_layers` found, where it was called before.
    extra_bytes : int
        Memory that the caller will need in addition to the matrix, for the forecast.
    progress : bool, optional

    Returns
    -------
    ExactMatrix
    """
    matrix = Matrix(matrix)
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    _forecast(objective, matrix, extra_bytes)
    if layers is None and method != "columns":
        layers = find_layers(objective)
    compute = partial(_checked, objective, matrix, layers or [], progress)
    *others, last = _METHODS if method == "auto" else (method,)
    for chosen in others:
        with suppress(Exception):  # of any kind: the network may not be what the method needs
            return compute(chosen)
    return compute(last)


def _checked(
    objective: Objective, matrix: Matrix, layers: list[Layer], progress: bool | None, method: str
) -> ExactMatrix:
    """Compute the matrix by one method, and compare it with products."""
    values = _compute(objective, matrix, method, layers, progress)
    if method != "columns":
        add_weight_decay(objective, matrix, values)
    require_finite_matrix(objective, values, matrix)
    samples = sample_products(objective, matrix)
    error = _error_bound(objective, values, matrix, samples)
    return ExactMatrix(values, method, error, samples)


@differentiating()
def add_residual(objective: Objective, ggn: ExactMatrix, residual: ExactMatrix) -> ExactMatrix:
    """Compute H as G + R, in the place of G.

    Parameters
    ----------
    objective : Objective
    ggn, residual : ExactMatrix
        By the same method. The values of the first are overwritten.

    Returns
    -------
    ExactMatrix

    Raises
    ------
    InconsistentMatrixError
        If H or its transpose disagrees with products of H, or with the sum of those of G and R.
    """
    values = ggn.values.add_(residual.values)
    require_finite_matrix(objective, values, Matrix.HESSIAN)
    samples = samples_of_sum(objective, ggn.samples, residual.samples)
    error = _error_bound(objective, values, Matrix.HESSIAN, samples)
    return ExactMatrix(values, ggn.method, error, samples)


def _compute(
    objective: Objective, matrix: Matrix, method: str, layers: list[Layer], progress: bool | None
) -> Tensor:
    """Compute the matrix, without weight decay for layers, by a method if it applies."""
    if method == "columns":
        return _BY_COLUMNS[matrix](objective, progress=progress)
    if method == "layers" and layers and all(layer.is_linear for layer in layers):
        return matrix_by_layers(objective, layers, matrix)
    if method == "convolutions" and layers and is_piecewise_linear(objective, layers):
        return matrix_by_convolutions(objective, layers, matrix)
    if objective.coupling is not None:
        raise NotASumOverSamplesError(
            f"method {method!r} needs {_NEEDS[method]}, and loss_fn must be a sum or mean over "
            f"samples, got a dependence: {objective.coupling}; use method='columns'"
        )
    raise ValueError(
        f"method {method!r} needs {_NEEDS[method]}; use method='columns' for this network"
    )


def _forecast(objective: Objective, matrix: Matrix, extra_bytes: int) -> None:
    size = objective.num_parameters
    num_bytes = size**2 * objective.theta.element_size()
    # The block of the largest layer in packed form, and per-sample arrays up to their budget.
    work_bytes = num_bytes // 4 + min(num_bytes, 2**30)
    require(
        num_bytes + work_bytes + extra_bytes,
        f"the {matrix} of P = {size:,} parameters ({num_bytes / 2**30:,.1f} GiB) with work space",
        "use hesspipe.eigenpairs or hesspipe.density, which form no matrix, or a machine with more "
        "memory",
        device=objective.theta.device,
    )


def _error_bound(
    objective: Objective, values: Tensor, matrix: Matrix, samples: ProductSamples
) -> float:
    """Compare the matrix, and its transpose, with products that form no matrix.

    An eigensolver reads the lower triangle, which is compared too.
    """
    return matrix_error(objective, matrix, partial(_products, values), samples)


def _products(values: Tensor, vectors: Tensor) -> Tensor:
    """Multiply vectors (k, P) with a matrix, its transpose, and that of its lower triangle.

    The third is the symmetric matrix with the same lower triangle. The result has the shape
    (3, k, P). One pass over the matrix serves for all: a block of rows remains in the cache.
    """
    plain, transposed, symmetric = (torch.zeros_like(vectors) for _ in range(3))
    for rows in chunks(len(values), _ROWS_PER_PASS):
        own, before, after = vectors[:, rows], slice(rows.start), slice(rows.start, None)
        left, right = values[rows, before], values[rows, after]
        corner = right[:, : len(left)].tril()
        below, mirrored = vectors[:, before] @ left.mT, own @ left
        plain[:, rows] = below + vectors[:, after] @ right.mT
        transposed[:, before] += mirrored
        transposed[:, after] += own @ right
        symmetric[:, before] += mirrored
        symmetric[:, rows] += below + own @ corner.mT + own @ corner.tril(-1)
    return torch.stack([plain, transposed, symmetric])
